"""TF-Serving's REST dialect: `:predict` in rows (`instances`) or columns (`inputs`).

Source: TensorFlow Serving RESTful API, "Predict API" and "Model status API".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from infold.errors import InvalidInputError, MalformedBodyError
from infold.rest.codec import DATATYPES, TOO_DEEP, decode_array, encode_json, json_ready
from infold.rest.cutting import Body, read_cut
from infold.rest.encoded import OBJECT, pictures_of, strings_of
from infold.serving import ModelState, Reading, State
from infold.tensors import Array, Signature, Tensors, TensorSpec

__all__ = ["KEY", "decode_predict", "encode_classes", "encode_predict", "model_metadata", "model_status"]


class _Predict(msgspec.Struct):
    instances: msgspec.Raw = msgspec.Raw(b"")
    inputs: msgspec.Raw = msgspec.Raw(b"")
    signature_name: str | None = None


_requests = msgspec.json.Decoder(_Predict)
_columns = msgspec.json.Decoder(dict[str, msgspec.Raw])
_rows = msgspec.json.Decoder(list[msgspec.Raw])


SIGNATURE = "serving_default"
# What a value in base64 has for a key.
KEY = b'"b64"'
DATA_KEY = re.compile(rb'"(?:instances|inputs)"\s*:\s*\[')


def decode_predict(
    body: bytes, signature: Signature, reading: Reading | None = None
) -> tuple[dict[str, Array], bool]:
    """Read a predict request for a model.

    Args:
        body: JSON.
        signature: The model's.
        reading: How an input takes pictures, which then come in base64.

    Returns:
        The tensors, and whether they came in rows.

    Raises:
        MalformedBodyError: The body is no such request.
        InvalidInputError: A tensor does not fit; names the place.
    """
    try:
        return read_cut(body, DATA_KEY, lambda text: _decode(text, signature, reading or Reading()))
    except RecursionError:
        raise MalformedBodyError(TOO_DEEP) from None


def _decode(text: Body, signature: Signature, reading: Reading) -> tuple[dict[str, Array], bool]:
    try:
        request = _requests.decode(text.text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as broken:
        raise MalformedBodyError(f"not a predict request: {broken}") from None
    if request.signature_name not in (None, "", SIGNATURE):
        raise InvalidInputError("signature_name", f"'{request.signature_name}' is not '{SIGNATURE}'")
    instances, inputs = text.raw(request.instances), text.raw(request.inputs)
    if bool(instances) == bool(inputs):
        raise MalformedBodyError("exactly one of 'instances' and 'inputs' must be given")
    tensors = (
        _from_rows(instances, text, signature, reading)
        if instances
        else _from_columns(inputs, text, signature, reading)
    )
    for name, array in tensors.items():
        spec = signature.input(name)
        assert spec is not None
        if problem := spec.mismatch(array):
            place = "instances" if instances else "inputs"
            raise InvalidInputError(f"{place}.{name}", problem)
    return tensors, bool(instances)


def _value(raw: bytes, spec: TensorSpec, place: str, reading: Reading) -> Array:
    """An input, or one row of it; what is in base64 is a string, or a picture where the input takes some."""
    if reading.takes_pictures(spec) and KEY in raw:
        return _pictures(pictures_of(raw, place), reading)
    if spec.dtype.kind == "O" and KEY in raw:
        return strings_of(raw, place)
    return decode_array(raw, spec.dtype, place)


def _pictures(files: Mapping[str, bytes], reading: Reading) -> Array:
    return reading.tensor_of(list(files.values()), list(files).__getitem__)


def _from_columns(raw: bytes, text: Body, signature: Signature, reading: Reading) -> dict[str, Array]:
    if raw.lstrip()[:1] != b"{" or OBJECT.match(raw):
        spec = _only_input(signature, "inputs")
        return {spec.name: _value(raw, spec, "inputs", reading)}
    columns = _named(raw, "inputs")
    _check_names(list(columns), signature, "inputs")
    return {
        spec.name: _value(text.raw(columns[spec.name]), spec, f"inputs.{spec.name}", reading)
        for spec in signature.inputs
    }


def _from_rows(raw: bytes, text: Body, signature: Signature, reading: Reading) -> dict[str, Array]:
    if b"{" not in raw and raw.lstrip()[:1] == b"[":
        spec = _only_input(signature, "instances")
        return {spec.name: decode_array(raw, spec.dtype, "instances")}
    try:
        rows = _rows.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise MalformedBodyError("instances: must be a list of rows") from None
    named = [bytes(row).lstrip()[:1] == b"{" and not OBJECT.match(bytes(row)) for row in rows]
    if not any(named):
        spec = _only_input(signature, "instances")
        return {spec.name: _value(raw, spec, "instances", reading)}
    if not all(named):
        raise MalformedBodyError("instances: rows with and without names are mixed")
    cells = []
    for index, row in enumerate(rows):
        cells.append(_named(bytes(row), f"instances[{index}]"))
        _check_names(list(cells[-1]), signature, f"instances[{index}]")
    return {
        spec.name: _column([text.raw(row[spec.name]) for row in cells], spec, reading)
        for spec in signature.inputs
    }


def _column(cells: list[bytes], spec: TensorSpec, reading: Reading) -> Array:
    """An input of which every row has one value."""
    places = [f"instances[{index}].{spec.name}" for index in range(len(cells))]
    if not (reading.takes_pictures(spec) and any(KEY in raw for raw in cells)):
        rows = zip(cells, places, strict=True)
        return _stacked(spec.name, [_value(raw, spec, place, reading) for raw, place in rows])
    files: dict[str, bytes] = {}
    for raw, place in zip(cells, places, strict=True):
        found = pictures_of(raw, place)
        if len(found) != 1:
            raise InvalidInputError(place, f"{len(found)} pictures given, a row takes one")
        files |= found
    return _pictures(files, reading)


def _named(raw: bytes, place: str) -> dict[str, msgspec.Raw]:
    try:
        return _columns.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as broken:
        raise MalformedBodyError(f"{place}: {broken}") from None


def _stacked(name: str, arrays: list[Array]) -> Array:
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            detail = f"shape {list(array.shape)}, but the first row has {list(arrays[0].shape)}"
            raise InvalidInputError(f"instances[{index}].{name}", detail)
    return np.stack(arrays)


def _only_input(signature: Signature, place: str) -> TensorSpec:
    if len(signature.inputs) != 1:
        known = ", ".join(f"'{spec.name}'" for spec in signature.inputs)
        raise InvalidInputError(place, f"the model has several inputs, name them: {known}")
    return signature.inputs[0]


def _check_names(names: list[str], signature: Signature, place: str) -> None:
    wanted = [spec.name for spec in signature.inputs]
    for name in names:
        if name not in wanted:
            raise InvalidInputError(place, f"the model has no input '{name}'; it has {', '.join(wanted)}")
    for name in wanted:
        if name not in names:
            raise InvalidInputError(place, f"'{name}' is missing")


def encode_predict(results: Tensors, signature: Signature, *, in_rows: bool) -> bytes:
    """The response body in the shape of the request: rows as `predictions`, columns as `outputs`.

    Raises:
        InvalidInputError: Rows were asked for, but an output has no row for each.
    """
    if len(results) == 1:
        only = json_ready(next(iter(results.values())))
        return encode_json({"predictions" if in_rows else "outputs": only})
    if not in_rows:
        return encode_json({"outputs": {name: json_ready(array) for name, array in results.items()}})
    lengths = {array.shape[:1] for array in results.values()}
    if len(lengths) != 1 or lengths == {()}:
        raise InvalidInputError("instances", "the outputs have no common rows; ask with 'inputs' instead")
    rows = [
        {spec.name: json_ready(results[spec.name][i, ...]) for spec in signature.outputs}
        for i in range(lengths.pop()[0])
    ]
    return encode_json({"predictions": rows})


TF_TYPES = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BF16": "DT_BFLOAT16",
    "BYTES": "DT_STRING",
}


def encode_classes(rows: Sequence[Sequence[tuple[float, int, str | None]]]) -> bytes:
    """The response body of pictures: for each the classes found, the likeliest first."""
    predictions = [
        {
            "classes": [
                {"index": index, "score": value} | ({} if label is None else {"label": label})
                for value, index, label in row
            ]
        }
        for row in rows
    ]
    return encode_json({"predictions": predictions})


WIRE_STATES = {
    State.LOADING: "LOADING",
    State.READY: "AVAILABLE",
    State.DRAINING: "UNLOADING",
    State.UNLOADED: "END",
    State.FAILED: "END",
}


def model_status(name: str, states: Sequence[ModelState]) -> dict[str, Any]:
    """The status object, newest version first; `name` and `ready` are KServe's additions."""
    return {
        "name": name,
        "ready": any(each.state is State.READY for each in states),
        "model_version_status": [
            {
                "version": str(each.version or 0),
                "state": WIRE_STATES[each.state or State.UNLOADED],
                "status": {
                    "error_code": "UNKNOWN" if each.state is State.FAILED else "OK",
                    "error_message": each.reason,
                },
            }
            for each in reversed(states)
        ],
    }


def model_metadata(name: str, version: int, signature: Signature) -> dict[str, Any]:
    """The metadata object: TensorFlow's words for the one signature that an ONNX model has."""

    def described(specs: Sequence[TensorSpec]) -> dict[str, Any]:
        return {
            spec.name: {
                "dtype": TF_TYPES[DATATYPES[spec.dtype]],
                "tensor_shape": {
                    "dim": [{"size": str(length), "name": ""} for length in spec.wire_shape()],
                    "unknown_rank": spec.shape is None,
                },
                "name": f"{spec.name}:0",
            }
            for spec in specs
        }

    signatures = {
        SIGNATURE: {
            "inputs": described(signature.inputs),
            "outputs": described(signature.outputs),
            "method_name": "tensorflow/serving/predict",
        }
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }
