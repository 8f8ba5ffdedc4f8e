"""Files that a model names for its weights, read from its bytes as protobuf has them.

Nothing is taken on trust: the file comes from a stranger, and what is missed here onnxruntime would
open. So the way to every tensor is walked, in whatever order fields come, and bytes that are no
protobuf are refused. No message is built; between tensors only lengths are read.

Source: onnx.proto, ModelProto and what it holds; protobuf's encoding.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

__all__ = ["weight_files"]

# Messages that may hold a tensor: the kind of message in each of their fields that leads to one.
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
KEY, VALUE, LOCATION = 1, 2, b"location"
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
LONGEST_VARINT = 10


def _tags(wire: int) -> bytes:
    """A set of all one-byte tags of a wire type, for a regular expression."""
    return b"[" + b"".join(re.escape(bytes([field << 3 | wire])) for field in range(1, 16)) + b"]"


# Numbers one after another, however many: trees of a forest come as millions of them.
NUMBERS = re.compile(
    rb"(?s:%b[\x80-\xff]{0,9}+[\x00-\x7f]|%b.{8}|%b.{4})++"
    % (_tags(VARINT), _tags(EIGHT_BYTES), _tags(FOUR_BYTES))
)


def weight_files(model: Path) -> tuple[str, ...]:
    """Names of files that tensors of a model say their weights lie in, sorted, as they stand there.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no model.
    """
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found: set[str] = set()
        above: list[tuple[str, int, int]] = []  # messages begun: their kind, where to go on, their end
        kind, at, end = "model", 0, len(content)
        while True:
            if at == end:
                if not above:
                    return tuple(sorted(found))
                kind, at, end = above.pop()
                continue
            field, start, stop = _field(content, at, end)
            inner = INSIDE[kind].get(field)
            if inner == "entry":
                if (name := _location(content[start:stop])) is not None:
                    found.add(name)
            elif inner is not None:
                above.append((kind, stop, end))
                kind, stop, end = inner, start, stop
            at = stop


def _field(content: mmap.mmap | bytes, at: int, end: int) -> tuple[int, int, int]:
    """The next field that has a length: its number, and where its content begins and ends.

    Numbers before it are passed over; 0 and the end twice where there is nothing else.
    """
    while at < end:
        if numbers := NUMBERS.match(content, at, end):
            at = numbers.end()
            continue
        tag, after = _varint(content, at, end)
        wire, field = tag & 7, (tag & 0xFFFFFFFF) >> 3
        if wire == VARINT:
            _, at = _varint(content, after, end)
            continue
        if wire not in (EIGHT_BYTES, LENGTH, FOUR_BYTES):
            raise ValueError(f"byte {at} is no part of a model")
        length = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(wire, 0)
        if wire == LENGTH:
            length, after = _varint(content, after, end)
        if length > end - after:
            raise ValueError(f"byte {at} announces {length} bytes, of which {end - after} are there")
        at = after + length
        if wire == LENGTH:
            return field, after, at
    return 0, end, end


def _varint(content: mmap.mmap | bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for index in range(min(LONGEST_VARINT, end - at)):
        byte = content[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(f"byte {at} is no part of a model")


def _location(entry: bytes) -> str | None:
    """The file that an entry of external data names; None if it says something else.

    As protobuf reads it: the last key and the last value count.
    """
    said = {KEY: b"", VALUE: b""}
    at = 0
    while at < len(entry):
        field, start, stop = _field(entry, at, len(entry))
        if field in said:
            said[field] = entry[start:stop]
        at = stop
    return said[VALUE].decode("utf-8", "surrogateescape") if said[KEY] == LOCATION else None
