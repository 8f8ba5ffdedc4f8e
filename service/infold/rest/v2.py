"""Open Inference Protocol v2: an infer request in JSON to tensors, and tensors to its response.

Source: open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infold.errors import InvalidInputError, MalformedBodyError
from infold.rest.codec import DATATYPES, DTYPES, decode_array, encode_json, json_ready
from infold.tensors import Array, Signature, Tensors, TensorSpec

__all__ = ["InferRequest", "decode_infer", "encode_infer", "metadata"]

MAX_TENSORS = 64
MAX_ELEMENTS = 2**31
MAX_ID_BYTES = 256


class _Envelope(msgspec.Struct):
    inputs: list[msgspec.Raw]
    outputs: list[msgspec.Raw] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


class _Input(msgspec.Struct):
    name: str
    shape: list[Any]
    datatype: str
    data: msgspec.Raw
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


_envelopes = msgspec.json.Decoder(_Envelope)
_inputs = msgspec.json.Decoder(_Input)
_outputs = msgspec.json.Decoder(_Output)


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A decoded infer request.

    Attributes:
        tensors: Inputs by name, of the model's dtypes.
        outputs: Names wanted, in order; None means all.
        id: The caller's own id of it.
    """

    tensors: Tensors
    outputs: tuple[str, ...] | None = None
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def decode_infer(body: bytes, signature: Signature) -> InferRequest:
    """Read an infer request for a model.

    Raises:
        MalformedBodyError: The body is no such request.
        InvalidInputError: A tensor does not fit; names the place.
    """
    envelope = _decode(_envelopes, body, "request")
    if len(envelope.inputs) > MAX_TENSORS or len(envelope.outputs or ()) > MAX_TENSORS:
        raise MalformedBodyError(f"more than {MAX_TENSORS} inputs or outputs")
    if envelope.id is not None and len(envelope.id.encode()) > MAX_ID_BYTES:
        raise MalformedBodyError(f"id: longer than {MAX_ID_BYTES} bytes")
    tensors: dict[str, Array] = {}
    for index, raw in enumerate(envelope.inputs):
        place = f"inputs[{index}]"
        tensor = _decode(_inputs, bytes(raw), place)
        spec = signature.input(tensor.name)
        if spec is None:
            known = ", ".join(f"'{each.name}'" for each in signature.inputs)
            raise InvalidInputError(
                f"{place}.name", f"the model has no input '{tensor.name}'; it has {known}"
            )
        if tensor.name in tensors:
            raise InvalidInputError(f"{place}.name", f"'{tensor.name}' is given twice")
        tensors[tensor.name] = _decode_tensor(tensor, spec, place)
    for spec in signature.inputs:
        if spec.name not in tensors:
            raise InvalidInputError("inputs", f"'{spec.name}' is missing")
    outputs = None
    if envelope.outputs:
        outputs = _wanted(envelope.outputs, signature)
    return InferRequest(tensors, outputs, envelope.id, envelope.parameters or {})


def _wanted(raws: list[msgspec.Raw], signature: Signature) -> tuple[str, ...]:
    names: list[str] = []
    for index, raw in enumerate(raws):
        place = f"outputs[{index}]"
        output = _decode(_outputs, bytes(raw), place)
        if signature.output(output.name) is None:
            known = ", ".join(f"'{each.name}'" for each in signature.outputs)
            raise InvalidInputError(
                f"{place}.name", f"the model has no output '{output.name}'; it has {known}"
            )
        if output.name in names:
            raise InvalidInputError(f"{place}.name", f"'{output.name}' is asked for twice")
        names.append(output.name)
    return tuple(names)


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes, place: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as invalid:
        text, _, path = str(invalid).partition(" - at ")
        where = path.strip("`").removeprefix("$").removeprefix(".")
        at = ".".join(part for part in (place, where) if part and part != "request")
        raise MalformedBodyError(f"{at}: {text}" if at else text) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        raise MalformedBodyError(f"{place}: not valid JSON: {broken}") from None
    except RecursionError:
        raise MalformedBodyError("JSON nesting depth exceeds maximum allowed limit (100)") from None


def _decode_tensor(tensor: _Input, spec: TensorSpec, place: str) -> Array:
    if tensor.datatype not in DTYPES:
        raise InvalidInputError(f"{place}.datatype", f"'{tensor.datatype}' is none of {', '.join(DTYPES)}")
    dtype = DTYPES[tensor.datatype]
    if dtype != spec.dtype:
        raise InvalidInputError(
            f"{place}.datatype", f"{tensor.datatype} given, the model takes {DATATYPES[spec.dtype]}"
        )
    for axis, length in enumerate(tensor.shape):
        if type(length) is not int:
            raise InvalidInputError(f"{place}.shape[{axis}]", f"{length!r} is no integer")
        if length < 0:
            raise InvalidInputError(f"{place}.shape[{axis}]", f"{length} is negative")
    elements = math.prod(tensor.shape)
    if elements >= MAX_ELEMENTS:
        raise InvalidInputError(f"{place}.shape", f"{elements} elements are too many")
    array = decode_array(bytes(tensor.data), dtype, f"{place}.data")
    if array.size != elements:
        raise InvalidInputError(
            f"{place}.data", f"{array.size} values given, shape {tensor.shape} takes {elements}"
        )
    nested = list(array.shape)
    if array.ndim > 1 and array.size and nested != tensor.shape:
        raise InvalidInputError(f"{place}.data", f"nested as {nested}, but shape is {tensor.shape}")
    shaped = array.reshape(tensor.shape)
    if problem := spec.mismatch(shaped):
        raise InvalidInputError(f"{place}.shape", problem)
    return shaped


def encode_infer(model: str, version: int, request: InferRequest, results: Tensors) -> bytes:
    """The response body, outputs in the order asked, data flat and row-major."""
    content: dict[str, Any] = {"model_name": model, "model_version": str(version)}
    if request.id is not None:
        content["id"] = request.id
    content["outputs"] = [
        {
            "name": name,
            "datatype": DATATYPES[array.dtype],
            "shape": list(array.shape),
            "data": json_ready(array.reshape(-1)),
        }
        for name, array in results.items()
    ]
    return encode_json(content)


def metadata(model: str, versions: list[int], signature: Signature) -> dict[str, Any]:
    """The model metadata object."""

    def described(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [
            {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": spec.wire_shape()}
            for spec in specs
        ]

    return {
        "name": model,
        "versions": [str(version) for version in versions],
        "platform": "onnxruntime_onnx",
        "inputs": described(signature.inputs),
        "outputs": described(signature.outputs),
    }
