"""The inputs and outputs of an infer request, one by one: every form they may have, every mistake named.

Source: open-inference-protocol, specification/protocol/inference_rest.md; Triton's
docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from infold.errors import (
    DatatypeError,
    HalfInJsonError,
    InvalidInputError,
    MalformedBodyError,
    MissingInputError,
    ShapeError,
    UnknownTensorError,
)
from infold.rest.binary import parted_strings, read_blob
from infold.rest.codec import DATATYPES, DTYPES, MAX_ELEMENTS, MAX_RANK, decode_array
from infold.rest.cutting import Body
from infold.rest.encoded import decoded
from infold.rest.parameters import OutputParameters, binary_size, output_parameters
from infold.rest.span import Span
from infold.serving import Reading
from infold.tensors import Array, Signature, TensorSpec, kind_of

__all__ = ["HALVES", "AskedModel", "has_halves", "read_inputs", "read_json", "read_outputs"]

MAX_LENGTH = 2**64
HALVES = ("FP16", "BF16")


class _Input(msgspec.Struct):
    name: str
    shape: list[Any]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AskedModel:
    """What a request is for.

    Attributes:
        signature: Its inputs and outputs.
        reading: How an input takes pictures.
        halves: 16-bit floats may come as JSON.
    """

    signature: Signature
    reading: Reading
    halves: bool


_inputs = msgspec.json.Decoder(_Input)
_outputs = msgspec.json.Decoder(_Output)


def has_halves(signature: Signature) -> bool:
    """A model takes 16-bit floats."""
    return any(DATATYPES[spec.dtype] in HALVES for spec in signature.inputs)


def read_inputs(
    raws: list[msgspec.Raw], text: Body, blobs: memoryview, model: AskedModel
) -> tuple[dict[str, Array], int]:
    """All inputs by name, and how many bytes are left behind them."""
    tensors: dict[str, Array] = {}
    signature = model.signature
    for index, raw in enumerate(raws):
        place = f"inputs[{index}]"
        tensor = read_json(_inputs, bytes(raw), place)
        spec = signature.input(tensor.name)
        if spec is None:
            raise UnknownTensorError(place, "input", tensor.name, [each.name for each in signature.inputs])
        if tensor.name in tensors:
            raise InvalidInputError(f"{place}.name", f"'{tensor.name}' is given twice")
        array, size = _read(tensor, spec, text, blobs, model, place)
        if spec.mismatch(array):
            raise ShapeError(place, tensor.name, spec.wire_shape(), array.shape)
        tensors[tensor.name] = array
        blobs = blobs[size:]
    if len(tensors) < len(signature.inputs):
        raise MissingInputError([spec.name for spec in signature.inputs], list(tensors))
    return tensors, len(blobs)


def _read(
    tensor: _Input, spec: TensorSpec, text: Body, blobs: memoryview, model: AskedModel, place: str
) -> tuple[Array, int]:
    """One input, and how many bytes of it stood behind the JSON."""
    is_picture = tensor.datatype == "BYTES" and model.reading.takes_pictures(spec)
    if not is_picture:
        _check_datatype(tensor, spec, place)
    elements = _checked_shape(tensor, place)
    size = binary_size(tensor.parameters, place)
    if is_picture:
        files = _pictures(tensor, text, elements, blobs, size, place)
        return model.reading.tensor_of(files, _at(f"{place}.data")), size or 0
    if size is not None:
        return read_blob(_taken(tensor, blobs, size, place), spec.dtype, tensor.shape, place), size
    if not model.halves and tensor.datatype in HALVES:
        raise HalfInJsonError(f"{place}.data", "input", tensor.name, tensor.datatype)
    return _from_json(text.span(tensor.data), tensor.shape, elements, spec, place), 0


def _taken(tensor: _Input, blobs: memoryview, size: int, place: str) -> memoryview:
    if bytes(tensor.data) not in (b"", b"null"):  # null is how some clients leave it out
        raise InvalidInputError(place, "has both 'data' and 'binary_data_size'")
    if size > len(blobs):
        at = f"{place}.parameters.binary_data_size"
        raise InvalidInputError(at, f"{size}, but the body has {len(blobs)} bytes left")
    return blobs[:size]


def read_outputs(raws: list[msgspec.Raw], signature: Signature) -> dict[str, OutputParameters]:
    """Outputs that are asked for, in that order, and how."""
    wishes: dict[str, OutputParameters] = {}
    for index, raw in enumerate(raws):
        place = f"outputs[{index}]"
        output = read_json(_outputs, bytes(raw), place)
        spec = signature.output(output.name)
        if spec is None:
            raise UnknownTensorError(place, "output", output.name, [each.name for each in signature.outputs])
        if output.name in wishes:
            raise InvalidInputError(f"{place}.name", f"'{output.name}' is asked for twice")
        wish = output_parameters(output.parameters, place)
        if wish.classes and kind_of(spec.dtype) in "bO":
            at = f"{place}.parameters.classification"
            raise InvalidInputError(at, f"'{output.name}' holds no numbers to rank")
        wishes[output.name] = wish
    return wishes


def read_json(decoder: msgspec.json.Decoder[Any], raw: bytes, place: str) -> Any:
    """What a decoder makes of a JSON text.

    Raises:
        MalformedBodyError: It makes nothing of it; names the place.
        RecursionError: It is nested too deep.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as invalid:
        text, _, path = str(invalid).partition(" - at ")
        where = path.strip("`").removeprefix("$").removeprefix(".")
        at = ".".join(part for part in (place, where) if part and part != "request")
        raise MalformedBodyError(f"{at}: {text}" if at else text) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        raise MalformedBodyError(f"{place}: not valid JSON: {broken}") from None


def _at(place: str) -> Callable[[int], str]:
    return lambda index: f"{place}[{index}]"


def _pictures(
    tensor: _Input, text: Body, elements: int, blobs: memoryview, size: int | None, place: str
) -> list[bytes]:
    """The files that stand where the model takes pictures."""
    if size is not None:
        return parted_strings(_taken(tensor, blobs, size, place), elements, place)
    raw = text.raw(tensor.data)
    if raw in (b"", b"null"):
        raise MalformedBodyError(f"{place}: Object missing required field `data`")
    strings = decode_array(raw, np.dtype(np.object_), f"{place}.data").reshape(-1)
    if len(strings) != elements:
        detail = f"{len(strings)} values given, shape {tensor.shape} takes {elements}"
        raise InvalidInputError(f"{place}.data", detail)
    return [decoded(str(each), f"{place}.data[{index}]") for index, each in enumerate(strings)]


def _check_datatype(tensor: _Input, spec: TensorSpec, place: str) -> None:
    if tensor.datatype not in DTYPES:
        raise InvalidInputError(f"{place}.datatype", f"'{tensor.datatype}' is none of {', '.join(DTYPES)}")
    if DTYPES[tensor.datatype] != spec.dtype:
        raise DatatypeError(place, tensor.name, DATATYPES[spec.dtype], tensor.datatype)


def _checked_shape(tensor: _Input, place: str) -> int:
    """Number of elements of an input whose shape makes sense."""
    if len(tensor.shape) > MAX_RANK:
        raise InvalidInputError(f"{place}.shape", f"{len(tensor.shape)} axes are too many")
    for axis, length in enumerate(tensor.shape):
        if type(length) is not int:
            raise InvalidInputError(f"{place}.shape[{axis}]", f"{length!r} is no integer")
        if not -MAX_ELEMENTS < length < MAX_LENGTH:  # it may have too many digits to be written
            raise InvalidInputError(f"{place}.shape[{axis}]", "is out of all proportion")
        if length < 0:
            raise InvalidInputError(f"{place}.shape[{axis}]", f"{length} is negative")
    # Where an axis has length 0 the others count all the same: there is no array of 0 x 2**63.
    elements = math.prod(max(1, length) for length in tensor.shape)
    if elements >= MAX_ELEMENTS:
        raise InvalidInputError(f"{place}.shape", f"{elements} elements are too many")
    return elements if all(tensor.shape) else 0


def _from_json(raw: bytes | Span, shape: list[int], elements: int, spec: TensorSpec, place: str) -> Array:
    if raw in (b"", b"null") and spec.shape != ():  # of a scalar null is NaN
        raise MalformedBodyError(f"{place}: Object missing required field `data`")
    array = decode_array(raw, spec.dtype, f"{place}.data")
    if array.size != elements:
        raise InvalidInputError(f"{place}.data", f"{array.size} values given, shape {shape} takes {elements}")
    nested = list(array.shape)
    if array.ndim > 1 and array.size and nested != shape:
        raise InvalidInputError(f"{place}.data", f"nested as {nested}, but shape is {shape}")
    return array.reshape(shape)
