"""The part of the OpenAPI document that speaks of one version: its paths, and the schemas they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infold.rest import model_example as example
from infold.rest import model_schema as schema
from infold.rest.operations import JSON, OCTETS, OCTETS_SCHEMA, PICTURES, TENSOR_ALONE, operation, ref
from infold.serving import Catalogue, State
from infold.tensors import Array, Signature, Tensors, TensorSpec

__all__ = ["Served", "components", "paths", "served"]


@dataclass(frozen=True, slots=True)
class Served:
    """A version that answers.

    Attributes:
        model: Its name.
        version: Its number.
        signature: Its inputs and outputs.
        path: Of its file.
        is_default: It answers where no version is asked for.
        takes_pictures: A picture may be sent instead of numbers.
    """

    model: str
    version: int
    signature: Signature
    path: Path
    is_default: bool
    takes_pictures: bool = False

    def component(self, kind: str) -> str:
        """The name of one of its schemas; no two are alike, whatever models are called."""
        return f"{self.model}.{kind}" if self.is_default else f"{self.model}.{kind}.{self.version}"


def served(models: Catalogue) -> tuple[Served, ...]:
    """All versions that answer, by model; the default one first."""
    found: list[Served] = []
    for name in models.models():
        ready = [each for each in models.versions(name) if each.state is State.READY]
        found += [
            Served(
                name,
                each.version.number,
                each.signature,
                each.version.path,
                each is ready[-1],
                each.reading.picture is not None and len(each.signature.inputs) == 1,
            )
            for each in reversed(ready)
        ]
    return tuple(found)


def components(each: Served) -> dict[str, schema.Schema]:
    """The schemas of a version, by name."""
    return {
        each.component("InferRequest"): schema.infer_request(each.signature),
        each.component("InferResponse"): schema.infer_response(each.model, each.signature),
        each.component("PredictRequest"): schema.predict_request(each.signature),
        each.component("PredictResponse"): _predict_response(each),
    }


def paths(each: Served) -> dict[str, Any]:
    """The two paths under which a version is run, with examples that work."""
    row = example.example_row(each.path, each.signature)
    place = each.model if each.is_default else f"{each.model}/versions/{each.version}"
    infer, predict = f"/v2/models/{place}/infer", f"/v1/models/{place}:predict"
    identity = each.model if each.is_default else f"{each.model}:{each.version}"
    version = "" if each.is_default else f" version {each.version}"
    return {
        infer: {
            "post": operation(
                each.model,
                f"infer_{identity}",
                f"Run{version or ' the model'}",
                _infer_bodies(each, row),
                ref(each.component("InferResponse")),
                parameters=[TENSOR_ALONE] if _file_hint(each, row) else [],
                description=_described(each, row, example.infer_line(infer, row), _file_hint(each, row)),
            )
        },
        predict: {
            "post": operation(
                each.model,
                f"predict_{identity}",
                f"Run{version or ' the model'}, TF-Serving style",
                _predict_bodies(each, row),
                ref(each.component("PredictResponse")),
                description=_described(each, row, example.predict_line(predict, row)),
            )
        },
    }


def _predict_response(each: Served) -> schema.Schema:
    numbers = schema.predict_response(each.signature)
    return {"anyOf": [numbers, schema.classes_response()]} if each.takes_pictures else numbers


def _infer_bodies(each: Served, row: Tensors) -> dict[str, Any]:
    octets = {OCTETS: {"schema": OCTETS_SCHEMA}} | (PICTURES if each.takes_pictures else {})
    text: dict[str, Any] = {"schema": ref(each.component("InferRequest"))}
    if example.is_large(row):  # what comes first is what a page opens with
        return octets | {JSON: text}
    return {JSON: text | {"example": example.infer_example(row)}} | octets


def _predict_bodies(each: Served, row: Tensors) -> dict[str, Any]:
    text: dict[str, Any] = {"schema": ref(each.component("PredictRequest"))}
    if not example.is_large(row):
        text["example"] = example.predict_example(row, each.signature)
    return {JSON: text} | (PICTURES if each.takes_pictures else {})


def _described(each: Served, row: Tensors, line: str, file_hint: str = "") -> str:
    lines = [f"Version {each.version}.", "", "Inputs:", ""]
    lines += [f"- {schema.shown(spec)}" for spec in each.signature.inputs]
    lines += ["", "Outputs:", ""]
    lines += [f"- {schema.shown(spec)}" for spec in each.signature.outputs]
    if any(length == 1 for spec in each.signature.inputs for length in _opened(spec, row[spec.name])):
        lines += ["", "Open lengths are 1 in the example; the model may want longer ones."]
    if example.is_large(row):
        lines += ["", f"Too long for JSON on a page. This sends zeros from a shell{file_hint}:"]
        lines += ["", f"```sh\n{line}\n```"]
    return "\n".join(lines)


def _opened(spec: TensorSpec, array: Array) -> list[int]:
    """What the example puts for lengths that are open, rows aside."""
    lengths = list(zip(spec.shape or (), array.shape, strict=False))
    return [length for dim, length in lengths[1:] if not isinstance(dim, int)]


def _file_hint(each: Served, row: Tensors) -> str:
    size = example.raw_bytes(row, each.signature) if example.is_large(row) else None
    return "" if size is None else f"; a file of {size} bytes, chosen below, is a request too"
