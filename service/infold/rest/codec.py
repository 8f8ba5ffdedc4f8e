"""JSON values to numpy and back, with the strict typing the protocol wants.

1.7, true and "3" are no integers, 300 is no UINT8, and every refusal names the
element: `inputs[0].data[7]`. Floats take integers; `null` is NaN, for floats only.

Long arrays of numbers are read by simdjson, straight into a buffer. Whatever is
not plain for it, and whatever is wrong, is read again by msgspec, which is strict.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, NoReturn

import ml_dtypes
import msgspec
import numpy as np
import orjson
import simdjson

from infold.errors import InvalidInputError
from infold.rest.span import Span
from infold.tensors import BFLOAT16, Array, kind_of

__all__ = [
    "DATATYPES",
    "DTYPES",
    "MAX_ELEMENTS",
    "MAX_RANK",
    "TOO_DEEP",
    "count_nulls",
    "decode_array",
    "encode_json",
    "json_ready",
]

# Names of the protocol for numpy's types; strings are objects.
DATATYPES: dict[np.dtype[np.generic], str] = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint16): "UINT16",
    np.dtype(np.uint32): "UINT32",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    BFLOAT16: "BF16",
    np.dtype(np.object_): "BYTES",
}
DTYPES = {name: dtype for dtype, name in DATATYPES.items()}

MAX_RANK = 32
MAX_ELEMENTS = 2**31
# Where a reader of JSON gave up on its nesting, whichever that was.
TOO_DEEP = "JSON nesting depth exceeds maximum allowed limit (100)"
# Below this all readers are equally fast.
LONG_BYTES = 2048
# Below this a text is searched sooner than an array is looked at.
SHORT_BYTES = 4096
# A parser takes several times its longest text.
USUAL_BYTES = 2**23
# simdjson counts no further.
MOST_COUNTED = 0xFFFFFF
# Of a 64-bit integer, sign included.
MOST_DIGITS = 20
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")

_parsers = threading.local()
_decoders: dict[tuple[str, int], msgspec.json.Decoder[Any]] = {}


def decode_array(raw: bytes | Span, dtype: np.dtype[np.generic], place: str) -> Array:
    """An array from its JSON text, nested as it is written.

    Args:
        raw: JSON of an array, nested at most 32 deep, or of one value.
        dtype: Type of the elements; object for strings.
        place: What to call it in an error.

    Raises:
        InvalidInputError: Not JSON, ragged, or an element that is not of this type.
    """
    depth = _depth(raw, place)
    array = _read_long(raw, dtype, depth) if len(raw) >= LONG_BYTES else None
    if array is None:
        raw = bytes(raw)
        try:
            values = _decoder(dtype, depth).decode(raw)
            array = _to_array(values, dtype, depth)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            raise _explained(raw, dtype, place) from None
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype.name)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise _explained(bytes(raw), dtype, place)
    with np.errstate(over="ignore"):
        result = to_bfloat16(array) if dtype == BFLOAT16 else array.astype(dtype)
    if kind_of(dtype) == "f" and np.isinf(result).any():
        raise _explained(bytes(raw), dtype, place)
    return result


def _read_long(raw: bytes | Span, dtype: np.dtype[np.generic], depth: int) -> Array | None:
    """Numbers as 64-bit ones in the shape they are nested in, or None where that is not plain."""
    kinds = {"f": ("d", np.float64), "i": ("i", np.int64), "u": ("u", np.uint64)}
    if kind_of(dtype) not in kinds or not depth:
        return None
    code, wide = kinds[kind_of(dtype)]
    try:
        array = _parser(len(raw)).parse(raw.view if isinstance(raw, Span) else raw)
        shape = _regular_shape(raw, array, depth)
        flat = None if shape is None else np.frombuffer(array.as_buffer(of_type=code), wide)
    except (ValueError, TypeError, RuntimeError):
        return None
    return None if flat is None or flat.size != math.prod(shape or ()) else flat.reshape(shape)


def _parser(size: int) -> Any:
    """This thread's own, which keeps its memory from one request to the next; what few need is given back."""
    if size > USUAL_BYTES:
        return simdjson.Parser()
    if not hasattr(_parsers, "own"):
        _parsers.own = simdjson.Parser()
    return _parsers.own


def _regular_shape(raw: bytes | Span, array: Any, depth: int) -> tuple[int, ...] | None:
    """The shape of an array whose rows are all of one length, or None.

    simdjson gives the numbers without their nesting, so the lengths of all rows
    are compared, and brackets counted: deeper ones are found by their number.
    """
    shape: list[int] = []
    rows = [array]
    for level in range(depth):
        lengths = {len(row) for row in rows}
        if len(lengths) != 1 or max(lengths) >= MOST_COUNTED:
            return None
        shape.append(lengths.pop())
        if level + 1 == depth:
            break
        if math.prod(shape) * 16 > len(raw):  # so many short rows are quicker read as lists
            return None
        rows = [inner for row in rows for inner in row]
    if depth == 1:
        is_regular = raw.find(b"[", raw.find(b"[") + 1) < 0
    else:
        is_regular = raw.count(b"[") == sum(math.prod(shape[:level]) for level in range(depth))
    return tuple(shape) if is_regular else None


def _depth(raw: bytes | Span, place: str) -> int:
    depth = 0
    for byte in raw:
        if byte == 0x5B:
            depth += 1
            if depth > MAX_RANK:
                raise InvalidInputError(place, f"nested more than {MAX_RANK} deep")
        elif byte not in b" \t\r\n":
            return depth
    return depth


def _decoder(dtype: np.dtype[np.generic], depth: int) -> msgspec.json.Decoder[Any]:
    key = (kind_of(dtype), depth)
    if key not in _decoders:
        element: Any = {"b": bool, "f": float | None, "O": str}.get(kind_of(dtype), int)
        for _ in range(depth):
            element = list[element]
        _decoders[key] = msgspec.json.Decoder(element)
    return _decoders[key]


def _to_array(values: Any, dtype: np.dtype[np.generic], depth: int) -> Array:
    if dtype.kind == "O":
        if depth == 1:
            array = np.empty(len(values), np.object_)
            array[:] = values
            return array
        shape = _shape(values, depth)
        array = np.empty(shape, np.object_)
        array.reshape(-1)[:] = list(_leaves(values, depth))
        return array
    if dtype.kind == "b" and depth == 1:  # far quicker than numpy looks at a list
        return np.frombuffer(bytes(values), np.bool_)
    wide = {"b": np.bool_, "f": np.float64, "u": np.uint64}.get(kind_of(dtype), np.int64)
    return np.array(values, wide)


def to_bfloat16(array: Array) -> Array:
    """float64 rounded to the nearest bfloat16, ties to even.

    By way of float32 that would be rounded twice, so the first step rounds to odd instead: towards
    zero, and the last bit set where something was lost (Boldo and Melquiond, 2005).
    """
    near = array.astype(np.float32)
    is_inexact = (near != array) & np.isfinite(near)
    bits = near.view(np.uint32)
    bits -= (np.abs(near) > np.abs(array)) & is_inexact
    bits |= is_inexact
    return near.astype(BFLOAT16)


def _shape(values: Any, depth: int) -> tuple[int, ...]:
    if depth == 0:
        return ()
    inner = {_shape(value, depth - 1) for value in values}
    if len(inner) > 1:
        raise ValueError("ragged")
    return (len(values), *(inner.pop() if inner else (0,) * (depth - 1)))


def _leaves(values: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        yield values
        return
    for value in values:
        yield from _leaves(value, depth - 1)


# -- explaining: the slow path, taken only for what is wrong ---------------------------------------


def _explained(raw: bytes, dtype: np.dtype[np.generic], place: str) -> InvalidInputError:
    """Find the first thing that is wrong with JSON that has failed to decode."""
    try:
        values = _loaded(raw)
    except (ValueError, RecursionError):
        return InvalidInputError(place, "not valid JSON")
    name = DATATYPES[dtype]
    found = _first_problem(values, place, _element_problem(dtype, name))
    return found or InvalidInputError(place, f"not a regular array of {name}")


class _Huge(float):
    """A number beyond all floats: infinite, and shown as it is written."""

    text = ""


def _loaded(raw: bytes) -> Any:
    """JSON, with a `_Huge` for every number that no float holds, where orjson reads nothing at all.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as broken:
        number = NUMBER.match(broken.doc, broken.pos)
        if number is None or math.isfinite(float(number[0])):
            raise
    return json.loads(raw.decode(), parse_int=_whole, parse_float=_real, parse_constant=_refused)


def _real(text: str) -> float:
    value = float(text)
    if math.isfinite(value):
        return value
    huge = _Huge(value)
    huge.text = text
    return huge


def _whole(text: str) -> int | float:
    """As orjson has it: what 64 bits do not hold is a float."""
    if len(text) > MOST_DIGITS or not -(2**63) <= (value := int(text)) < 2**64:
        return _real(text)
    return value


def _refused(name: str) -> NoReturn:
    raise ValueError(name)


def _first_problem(
    values: Any,
    place: str,
    problem: Callable[[Any], str | None],
) -> InvalidInputError | None:
    if not isinstance(values, list):
        text = problem(values)
        return InvalidInputError(place, text) if text else None
    lengths = {len(value) if isinstance(value, list) else -1 for value in values}
    for index, value in enumerate(values):
        if found := _first_problem(value, f"{place}[{index}]", problem):
            return found
        if len(lengths) > 1 and (len(value) if isinstance(value, list) else -1) != _length(values[0]):
            return InvalidInputError(f"{place}[{index}]", "rows differ in length")
    return None


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else -1


def _element_problem(dtype: np.dtype[np.generic], name: str) -> Callable[[Any], str | None]:
    too_large = _too_large(dtype) if kind_of(dtype) == "f" else 0.0

    def check(value: Any) -> str | None:
        shown = _shown(value)
        if dtype.kind == "b":
            return None if isinstance(value, bool) else f"{shown} is no {name}"
        if dtype.kind == "O":
            return None if isinstance(value, str) else f"{shown} is no {name}"
        if kind_of(dtype) == "f":
            if value is None:
                return None
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{shown} is no {name}"
            return None if abs(value) < too_large else f"{shown} does not fit {name}"
        if isinstance(value, bool) or not isinstance(value, int):
            whole = isinstance(value, float) and abs(value) >= 2**63
            return f"{shown} does not fit {name}" if whole else f"{shown} is no {name}"
        limits = np.iinfo(dtype.name)
        return None if limits.min <= value <= limits.max else f"{shown} does not fit {name}"

    return check


def _too_large(dtype: np.dtype[np.generic]) -> float:
    """From where on a number becomes infinite: half a step above the largest of its type."""
    if dtype == np.float64:
        return math.inf
    about = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # its own gap
    return math.ldexp(1 - 2.0 ** -(about.nmant + 2), about.maxexp)


def _shown(value: Any) -> str:
    """The beginning of a value, as JSON."""
    if isinstance(value, _Huge):
        return value.text[:40]
    try:
        return orjson.dumps(value, default=attrgetter("text")).decode()[:40]
    except TypeError:  # orjson reads deeper than it writes
        return "what is nested so deep"


# -- out ------------------------------------------------------------------------------------------


def json_ready(array: Array) -> Any:
    """An array as orjson writes it: numbers natively, strings as a list; NaN and Inf become null."""
    if array.dtype.kind == "O":
        texts = array.reshape(-1).tolist()
        if not all(type(each) is str for each in texts):
            texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in texts]
        return _nested(texts, array.shape)
    wide = array.astype(np.float32) if array.dtype == BFLOAT16 else array
    if array.ndim:
        return np.ascontiguousarray(wide)
    # As an array it would become a list of one; a float32 would get the digits of a float64.
    return float(str(wide[()])) if wide.dtype.kind == "f" else wide.item()


def count_nulls(text: bytes, arrays: Iterable[Array]) -> int:
    """How many values of the arrays are NaN or infinite, and so null in their JSON."""
    if len(text) < SHORT_BYTES and b"null" not in text:  # numpy is slow to begin
        return 0
    floats = (array for array in arrays if kind_of(array.dtype) == "f")
    return sum(array.size - int(np.count_nonzero(np.isfinite(array))) for array in floats)


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    if len(shape) == 0:
        return values[0]
    if len(shape) == 1:
        return values
    step = len(values) // shape[0] if shape[0] else 0
    return [_nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def encode_json(content: Any) -> bytes:
    """JSON text; numpy arrays are written in the fewest digits that round-trip."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
