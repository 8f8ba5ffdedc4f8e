"""Bytes inside JSON: base64 in a string, or TF-Serving's `{"b64": "..."}`.

Source: TensorFlow Serving RESTful API, "Encoding binary values".
"""

from __future__ import annotations

import binascii
import re
from typing import Any

import numpy as np
import orjson

from infold.errors import InvalidInputError
from infold.rest.codec import MAX_RANK
from infold.tensors import Array

__all__ = ["OBJECT", "decoded", "pictures_of", "strings_of"]

# How a value in base64 begins.
OBJECT = re.compile(rb'\s*\{\s*"b64"\s*:')


def decoded(text: str, place: str) -> bytes:
    """The bytes of a text in base64.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError(place, "is no base64") from None


def pictures_of(raw: bytes, place: str) -> dict[str, bytes]:
    """The files in a JSON array of values in base64, or in one such value, each by its own place.

    Raises:
        InvalidInputError: Another value is among them.
    """
    values = _parsed(raw, place)
    if not isinstance(values, list):
        return {place: _picture(values, place)}
    pictures = {}
    for index, value in enumerate(values):
        at = f"{place}[{index}]"
        for _ in range(MAX_RANK):  # a row of one value
            if isinstance(value, list) and len(value) == 1:
                value, at = value[0], f"{at}[0]"
        pictures[at] = _picture(value, at)
    return pictures


def _picture(value: Any, place: str) -> bytes:
    content = _content(value, place)
    if content is None:
        raise InvalidInputError(place, 'a picture comes as {"b64": "..."}')
    return content


def strings_of(raw: bytes, place: str) -> Array:
    """The strings in a regular JSON array of strings, of which some may be in base64.

    Raises:
        InvalidInputError: Another value is among them, or is no UTF-8.
    """
    values = _parsed(raw, place)
    shape: list[int] = []
    inner = values
    while isinstance(inner, list) and len(shape) < MAX_RANK:
        shape.append(len(inner))
        inner = inner[0] if inner else None
    leaves: list[str] = []
    _collect(values, shape, place, leaves)
    array = np.empty(len(leaves), np.object_)
    array[:] = leaves
    return array.reshape(shape)


def _collect(value: Any, shape: list[int], place: str, leaves: list[str]) -> None:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise InvalidInputError(place, "rows differ in length")
        for index, each in enumerate(value):
            _collect(each, shape[1:], f"{place}[{index}]", leaves)
        return
    content = _content(value, place)
    try:
        leaves.append(value if isinstance(value, str) else (content or b"").decode())
    except UnicodeDecodeError:
        raise InvalidInputError(place, "is no UTF-8, which is what models take") from None
    if content is None and not isinstance(value, str):
        raise InvalidInputError(place, "is no BYTES, nor in base64")


def _parsed(raw: bytes, place: str) -> Any:
    try:
        return orjson.loads(raw)
    except (orjson.JSONDecodeError, RecursionError):
        raise InvalidInputError(place, "not valid JSON") from None


def _content(value: Any, place: str) -> bytes | None:
    """What is in base64; None if nothing is."""
    if isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str):
        return decoded(value["b64"], place)
    return None
