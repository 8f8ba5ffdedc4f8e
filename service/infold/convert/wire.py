"""Takes a model's file apart into a small skeleton and its large weights, and puts it together again.

protobuf copies every weight when it parses a file, and again each time a message is copied, checked
or written. So the large initializers are cut out of the bytes of a file before it is parsed, and a
file is written piece by piece around them. This knows how protobuf lays messages out and which
fields lead to a weight; it judges nothing: whatever looks unusual stays where it is.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message

from infold.fold.linear import Sink

__all__ = ["LARGE_BYTES", "Weight", "split", "write"]

# What is smaller costs nothing to copy.
LARGE_BYTES = 4096
# A protobuf message ends here; larger files are for protobuf to refuse.
PROTOBUF_LIMIT_BYTES = 2**31

DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # fields of a TensorProto
INITIALIZER = 5  # of a GraphProto
GRAPH = 7  # of a ModelProto
DELIMITED = 2  # the wire type of what has a length in front

ITEM_BYTES: Mapping[int, int] = {
    dtype.value: dtype.bitwidth // 8
    for dtype in (
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    )
}


class Weight(Protocol):
    """What is written in place of an initializer's raw data."""

    @property
    def nbytes(self) -> int:
        """How many bytes `tofile` is going to write."""

    def tofile(self, file: Sink) -> None:
        """Write them."""


def split(content: bytes) -> tuple[bytes, dict[str, memoryview]]:
    """A model's file without the data of its large initializers, and that data by their names.

    Only initializers of the main graph whose data has just the length that their shape and type
    ask for are cut. A file that is no model comes back whole.
    """
    try:
        graphs = [each for each in _fields(content, 0, len(content)) if each.is_message(GRAPH)]
        if len(graphs) != 1 or len(content) >= PROTOBUF_LIMIT_BYTES:
            return content, {}
        (graph,) = graphs
        weights: dict[str, memoryview] = {}
        parts = []
        for field in _fields(content, graph.payload, graph.stop):
            cut = _cut(content, field) if field.is_message(INITIALIZER) else None
            if cut is None or cut[0].name in weights:
                parts.append(content[field.start : field.stop])
            else:
                weights[cut[0].name] = cut[1]
                parts += _delimited(INITIALIZER, cut[0].SerializeToString())
    except (IndexError, ValueError, DecodeError):  # broken: the parser finds the words for it
        return content, {}
    middle = _delimited(GRAPH, b"".join(parts))
    return b"".join((content[: graph.start], *middle, content[graph.stop :])), weights


def write(skeleton: onnx.ModelProto, weights: Mapping[str, Weight], file: Sink) -> None:
    """Write a model, byte for byte as protobuf would write it in one piece.

    Args:
        skeleton: The model; initializers named in `weights` without their data.
        weights: By name of an initializer of the main graph.
        file: Where it goes.
    """
    pieces: list[bytes | Weight] = []
    for tensor in skeleton.graph.initializer:
        weight = weights.get(tensor.name)
        if weight is None:
            pieces += _delimited(INITIALIZER, tensor.SerializeToString(deterministic=True))
            continue
        before, after = _around(tensor, RAW_DATA)
        before += _head(RAW_DATA, weight.nbytes)
        pieces += (_head(INITIALIZER, len(before) + weight.nbytes + len(after)), before, weight, after)
    before, after = _around(skeleton.graph, INITIALIZER)
    size = sum(len(each) if isinstance(each, bytes) else each.nbytes for each in pieces)
    pieces = [_head(GRAPH, len(before) + size + len(after)), before, *pieces, after]
    before, after = _around(skeleton, GRAPH)
    pieces = [before, *pieces, after]
    for piece in pieces:
        if isinstance(piece, bytes):
            file.write(piece)
        else:
            piece.tofile(file)


class _Field(NamedTuple):
    """Where a field lies: its tag begins at `start`, its content at `payload`; both end at `stop`."""

    tag: int
    start: int
    payload: int
    stop: int

    @property
    def number(self) -> int:
        return self.tag >> 3

    def is_message(self, number: int) -> bool:
        """It has this number and a length in front, as messages and bytes do."""
        return self.tag == number << 3 | DELIMITED


def _fields(content: bytes, start: int, stop: int) -> Iterator[_Field]:
    """The fields of the message that lies between two places.

    Raises:
        IndexError, ValueError: It is broken.
    """
    while start < stop:
        tag, payload = _varint(content, start)
        match tag & 7:
            case 0:
                _, end = _varint(content, payload)
            case 1:
                end = payload + 8
            case 2:
                length, payload = _varint(content, payload)
                end = payload + length
            case 5:
                end = payload + 4
            case _:
                raise ValueError("a wire type that ONNX does not use")
        if end > stop:
            raise ValueError("a field reaches beyond its message")
        yield _Field(tag, start, payload, end)
        start = end


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number that is written here, and where it ends."""
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _cut(content: bytes, field: _Field) -> tuple[onnx.TensorProto, memoryview] | None:
    """A tensor without its raw data, and the data; None where it had better stay whole."""
    if field.stop - field.payload < LARGE_BYTES:
        return None
    inside = list(_fields(content, field.payload, field.stop))
    if not {each.number for each in inside} <= {DIMS, DATA_TYPE, NAME, RAW_DATA}:
        return None
    raw = [each for each in inside if each.is_message(RAW_DATA)]
    if len(raw) != 1:
        return None
    header = onnx.TensorProto.FromString(
        content[field.payload : raw[0].start] + content[raw[0].stop : field.stop]
    )
    if not header.name or header.data_type not in ITEM_BYTES or min(header.dims, default=0) < 0:
        return None
    if raw[0].stop - raw[0].payload != math.prod(header.dims) * ITEM_BYTES[header.data_type]:
        return None
    return header, memoryview(content)[raw[0].payload : raw[0].stop]


def _head(number: int, length: int) -> bytes:
    """What stands in front of a message or of bytes."""
    written = bytearray()
    for value in (number << 3 | DELIMITED, length):
        while value > 0x7F:
            written.append(value & 0x7F | 0x80)
            value >>= 7
        written.append(value)
    return bytes(written)


def _delimited(number: int, payload: bytes) -> tuple[bytes, bytes]:
    return _head(number, len(payload)), payload


def _around(message: Message, number: int) -> tuple[bytes, bytes]:
    """What is written before a field and after it: fields go in the order of their numbers."""
    before, after = type(message)(), type(message)()
    before.CopyFrom(message)
    after.CopyFrom(message)
    for field, _ in message.ListFields():
        if field.number >= number:
            before.ClearField(field.name)
        if field.number <= number:
            after.ClearField(field.name)
    return before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True)
