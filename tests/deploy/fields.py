"""A small language for what an object may hold: which fields, of which type, and which must be there.

Custom resources have no schema in any package, so each kind gets a table in these words
(custom_kinds.py). What Kubernetes itself defines inside them (containers, volumes, pods) is asked
of its own schemas instead (conformity.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Fields", "ListOf", "MapOf", "Number", "OneOf", "Own", "Shape", "Text", "check"]


@dataclass(frozen=True, slots=True)
class Text:
    """A string, all of which fits the pattern."""

    pattern: str = r"[\s\S]+"


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number, from `least` to `most`."""

    least: int = 0
    most: int = 2**31 - 1


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list, each item of this shape."""

    item: Shape
    least: int = 1


@dataclass(frozen=True, slots=True)
class MapOf:
    """Keys that are strings, and values of this shape."""

    value: Shape


@dataclass(frozen=True, slots=True)
class Fields:
    """An object with these fields and no others; those in `required` must be there."""

    shapes: Mapping[str, Shape]
    required: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Own:
    """What Kubernetes itself defines: asked of its schema, which says what is wrong, and where."""

    ask: Callable[[object], Iterator[str]]


Shape = Text | Number | OneOf | ListOf | MapOf | Fields | Own | type[bool]


def check(value: object, shape: Shape, place: str) -> Iterator[str]:
    """What is wrong with a value, each with its place; nothing for one that has the shape."""
    match shape:
        case Fields():
            yield from _check_fields(value, shape, place)
        case ListOf(item, least):
            if not isinstance(value, list) or len(value) < least:
                yield f"{place}: not a list of {least} or more"
            else:
                for index, each in enumerate(value):
                    yield from check(each, item, f"{place}[{index}]")
        case MapOf(each_value):
            if not isinstance(value, dict):
                yield f"{place}: not a map"
            else:
                for key, each in value.items():
                    yield from check(key, Text(), f"{place}: key {key!r}")
                    yield from check(each, each_value, f"{place}.{key}")
        case Own(ask):
            yield from (f"{place}{problem}" for problem in ask(value))
        case _:
            if not _is_leaf(value, shape):
                yield f"{place}: {value!r} is not {shape}"


def _check_fields(value: object, shape: Fields, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: not an object"
        return
    for name in shape.required:
        if name not in value:
            yield f"{place}.{name}: missing"
    for name, each in value.items():
        if name not in shape.shapes:
            yield f"{place}.{name}: no such field, or none that the table of this kind knows"
        else:
            yield from check(each, shape.shapes[name], f"{place}.{name}")


def _is_leaf(value: object, shape: Shape) -> bool:
    match shape:
        case Text(pattern):
            return isinstance(value, str) and re.fullmatch(pattern, value) is not None
        case Number(least, most):
            return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        case OneOf(words):
            return value in words
        case _:
            return isinstance(value, bool)
