"""The OpenAPI document: FastAPI's own part, and the routes that carry tensors, which it does not see.

Every version that answers has paths of its own, with its inputs and outputs and an
example that works when sent as it is. The paths with `{model}` in them stay:
generated clients want them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from infold.rest import model_paths
from infold.rest.codec import DATATYPES, encode_json
from infold.rest.model_example import example_row, infer_example, is_large, predict_example
from infold.rest.model_paths import Served, served
from infold.rest.model_schema import Schema
from infold.rest.operations import JSON, OCTETS, OCTETS_SCHEMA, RESPONSES, errors, operation, ref
from infold.serving import Catalogue

__all__ = ["Document", "document"]


class Document:
    """The OpenAPI document of what is loaded now; made anew when that has changed.

    Args:
        own: Returns the part that FastAPI writes.
        models: What is loaded.
    """

    def __init__(self, own: Callable[[], dict[str, Any]], models: Catalogue) -> None:
        self._own = own
        self._models = models
        self._kept: tuple[tuple[Served, ...], bytes] | None = None

    def build(self) -> dict[str, Any]:
        """The document as FastAPI wants it."""
        return document(self._own(), served(self._models))

    async def text(self) -> bytes:
        """The document in JSON; it is written in a thread, for golden inputs are read from disk."""
        versions = served(self._models)
        if self._kept is None or self._kept[0] != versions:
            text = await asyncio.to_thread(lambda: encode_json(document(self._own(), versions)))
            self._kept = versions, text
        return self._kept[1]


def document(own: dict[str, Any], versions: Sequence[Served]) -> dict[str, Any]:
    """FastAPI's part with infer and predict in it, of each version and of any."""
    first = versions[0] if versions else None
    paths: dict[str, Any] = {}
    schemas = dict(COMMON)
    for each in versions:
        paths |= model_paths.paths(each)
        schemas |= model_paths.components(each)
    paths |= _any_paths(first)
    for path, operations in own["paths"].items():
        paths[path] = {method: _completed(path, each, first) for method, each in operations.items()}
    tags = [
        {"name": each.model, "description": _answers(each, versions)} for each in versions if each.is_default
    ]
    tags += [{"name": name, "description": text} for name, text in TAGS.values()]
    return own | {"tags": tags, "paths": paths, "components": {"schemas": schemas, "responses": RESPONSES}}


def _answers(default: Served, versions: Sequence[Served]) -> str:
    others = [str(each.version) for each in versions if each.model == default.model and not each.is_default]
    also = f"; version {', '.join(others)} if asked for" if others else ""
    return f"version {default.version} answers{also}"


def _completed(path: str, found: dict[str, Any], first: Served | None) -> dict[str, Any]:
    """An operation of FastAPI's without 422, which this service never answers."""
    answers = {status: answer for status, answer in found["responses"].items() if status != "422"}
    if path.endswith(("load", "rollback")):
        answers |= errors("400", "403", "404", "413")
    elif "{model}" in path:
        answers |= errors("404", "503")
    elif path.endswith("index"):
        answers |= errors("400", "413")
    elif path == "/v2/health/ready":
        answers |= {
            "503": {"description": "A model has no version that answers, or the service is going down."}
        }
    changed = {"tags": [TAGS[tag][0] for tag in found["tags"]], "responses": answers}
    if "parameters" in found:
        changed["parameters"] = _parameters([each["name"] for each in found["parameters"]], first)
    return found | changed


def _any_paths(first: Served | None) -> dict[str, Any]:
    """The paths with `{model}` in them; their example is the first model's."""
    infer: dict[str, Any] = {"schema": ref("InferRequest")}
    predict: dict[str, Any] = {"schema": ref("PredictRequest")}
    if first is not None:
        row = example_row(first.path, first.signature)
        if not is_large(row):
            infer["example"] = infer_example(row)
            predict["example"] = predict_example(row, first.signature)
    paths = {}
    for version, names in (("", ["model"]), ("/versions/{version}", ["model", "version"])):
        parameters = _parameters(names, first)
        suffix = "_version" if version else ""
        paths[f"/v2/models/{{model}}{version}/infer"] = {
            "post": operation(
                TAGS["v2"][0],
                f"v2_run{suffix}",
                "Run a model",
                {JSON: infer, OCTETS: {"schema": OCTETS_SCHEMA}},
                ref("InferResponse"),
                parameters=parameters,
            )
        }
        paths[f"/v1/models/{{model}}{version}:predict"] = {
            "post": operation(
                TAGS["v1"][0],
                f"v1_run{suffix}",
                "Run a model, TF-Serving style",
                {JSON: predict},
                ref("PredictResponse"),
                parameters=parameters,
            )
        }
    return paths


def _parameters(names: Sequence[str], first: Served | None) -> list[dict[str, Any]]:
    """Parameters of a path, all strings; their examples name a version that answers."""
    values = {} if first is None else {"model": first.model, "version": str(first.version)}
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        | ({"example": values[name]} if name in values else {})
        for name in names
    ]


# FastAPI's tags, and what a page calls them: no model can be called so.
TAGS = {
    "v2": ("any model, v2", "Open Inference Protocol v2"),
    "v1": ("any model, v1", "as TF-Serving speaks"),
    "repository": ("the repository", "what there is, load and unload"),
    "health": ("the service", "health and metrics"),
}
TENSOR: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": sorted(DATATYPES.values())},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}, "description": "Row-major, flat or nested."},
    },
}
# Schemas that hold for every model; the names of a model's own have a dot in them.
COMMON: dict[str, Schema] = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 256},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": TENSOR},
            "outputs": {
                "type": "array",
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            },
        },
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": TENSOR},
        },
    },
    "PredictRequest": {
        "type": "object",
        "description": "Exactly one of both.",
        "properties": {
            "instances": {"type": "array", "items": {}, "description": "Rows."},
            "inputs": {"description": "Columns: an array, or one by name of each input."},
        },
    },
    "PredictResponse": {
        "type": "object",
        "description": "Rows are answered with rows, columns with columns.",
        "properties": {"predictions": {}, "outputs": {}},
    },
}
