"""A tensor from a `.npy` file, as numpy's `save` writes it.

The header is a literal of Python, read here by a pattern: numpy's own reader evaluates it, and
warns or fails in more ways than can be named of what a stranger may write there.

Source: numpy's NEP 1, "A simple file format for NumPy arrays".
"""

from __future__ import annotations

import math
import re

import numpy as np

from infold.errors import InvalidInputError
from infold.rest.codec import DATATYPES, MAX_ELEMENTS, MAX_RANK
from infold.tensors import BFLOAT16, Array, TensorSpec

__all__ = ["LONGEST_HEADER", "read_npy"]

LONGEST_HEADER = 10_000
MAGIC = b"\x93NUMPY"
# How many bytes tell the length of the header, by the first number of the version.
LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
ITEM = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>\w+)(?P=quote)\s*:\s*
    (?P<value> '[^'\\]*' | "[^"\\]*" | True | False | \([\d,L\s]*\) | \[.*\])
    \s*(?:,|$)""",
    re.VERBOSE | re.DOTALL,
)
KEYS = {"descr", "fortran_order", "shape"}
NUMBER = re.compile(r"(?P<order>[<>|=]?)(?P<type>[biuf]\d{1,2})")
# What numpy, which knows no such type by itself, makes of bfloat16.
PAIRS_OF_BYTES = ("<V2", "|V2")


def read_npy(file: memoryview, spec: TensorSpec, place: str) -> Array:
    """The array in a file, row-major and in native order; not copied where it lies so already.

    Args:
        file: All of it.
        spec: The input that it is for; its type is wanted, its shape is not looked at.
        place: What to call it in an error.

    Raises:
        InvalidInputError: It is no such file, holds another type, or too many bytes or too few.
    """
    descr, is_fortran, shape, start = _header(file, place)
    dtype = _dtype(descr, spec)
    if dtype is None:
        raise InvalidInputError(place, f"holds '{descr[:100]}', which is no type of tensors")
    if dtype.newbyteorder("=") != spec.dtype:
        detail = f"holds {dtype.newbyteorder('=')}, the model takes {spec.dtype} ({DATATYPES[spec.dtype]})"
        raise InvalidInputError(place, detail)
    data, wanted = file[start:], math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        detail = f"{len(data)} bytes behind the header, shape {list(shape)} of {spec.dtype} takes {wanted}"
        raise InvalidInputError(place, detail)
    if dtype == np.bool_ and (np.frombuffer(data, np.uint8) > 1).any():
        raise InvalidInputError(place, "a BOOL is a byte of 0 or 1")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    return np.require(array, spec.dtype, ("C", "A"))


def _dtype(descr: str, spec: TensorSpec) -> np.dtype[np.generic] | None:
    """The type, in the order of its bytes, or None where it holds no numbers."""
    if spec.dtype == BFLOAT16 and descr in PAIRS_OF_BYTES:
        return spec.dtype
    found = NUMBER.fullmatch(descr)
    if found is None:
        return None
    try:
        dtype = np.dtype(found["type"])
    except TypeError:  # numbers of that length there are none
        return None
    return dtype.newbyteorder(">" if found["order"] == ">" else "<")


def _header(file: memoryview, place: str) -> tuple[str, bool, tuple[int, ...], int]:
    """Type, whether it is column-major, shape, and where the data begins."""
    first = bytes(file[:8])
    count = LENGTH_BYTES.get(first[6], 0) if first.startswith(MAGIC) and len(first) == 8 else 0
    if not count:
        raise InvalidInputError(place, "is no .npy file" if len(file) else "is empty")
    begin = 8 + count
    end = begin + int.from_bytes(file[8:begin], "little")
    if end - begin > LONGEST_HEADER:
        raise InvalidInputError(place, f"is a .npy file with a header of more than {LONGEST_HEADER} bytes")
    if end > len(file):
        raise InvalidInputError(place, "is a .npy file that ends before its header does")
    items = _items(str(file[begin:end], "latin-1").strip())
    shape = _shape(items.get("shape", ""))
    descr, order = items.get("descr", ""), items.get("fortran_order", "")
    if shape is None or not descr or order not in ("True", "False"):
        raise InvalidInputError(place, "is a .npy file whose header makes no sense")
    if len(shape) > MAX_RANK:
        raise InvalidInputError(place, f"{len(shape)} axes are too many")
    if math.prod(max(1, length) for length in shape) >= MAX_ELEMENTS:
        raise InvalidInputError(place, "has too many elements")
    return descr if descr[0] == "[" else descr[1:-1], order == "True", shape, end


def _items(text: str) -> dict[str, str]:
    """Values by their keys, as they are written; of anything but such a literal, nothing."""
    inside, at, items = text[1:-1].strip(), 0, dict[str, str]()
    while at < len(inside):
        found = ITEM.match(inside, at)
        if found is None or found["key"] in items:
            return {}
        items[found["key"]] = found["value"]
        at = found.end()
    return items if text[:1] + text[-1:] == "{}" and items.keys() == KEYS else {}


def _shape(text: str) -> tuple[int, ...] | None:
    """The lengths in a tuple of whole numbers; None where it is none. Too long a number is the largest."""
    parts = [each.strip().removesuffix("L") for each in text[1:-1].split(",")]  # L: from Python 2
    if parts[-1] == "":
        parts.pop()
    elif len(parts) == 1:
        return None
    if text[:1] != "(" or not all(each.isdecimal() for each in parts):
        return None
    return tuple(int(each) if len(each) < 19 else MAX_ELEMENTS for each in parts)
