"""Large arrays of numbers taken out of a JSON body before it is read.

The rest is then a few hundred bytes, and each array is read once, by the
fastest reader there is, where otherwise a reader of the whole would have to
walk over millions of digits first to find out where an array ends.

What is cut out holds no quotes and no braces, so it is brackets, numbers and
literals only; whether it is one well-formed array, its reader says. Where it
says no, or an array is one that nobody reads, the body is read again in one
piece: what comes of it never depends on cutting.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from infold.errors import RequestError
from infold.rest.span import Span

__all__ = ["SMALL_BYTES", "Body", "cut", "read_cut"]

Read = TypeVar("Read")

# Below this there is nothing to win.
SMALL_BYTES = 8192
# What stands in the place of an array.
PLACE = b'"\\u0000cut %d"'
PLACES = PLACE.partition(b"%")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A JSON body, its large arrays apart.

    Attributes:
        text: What is left of it.
        arrays: The JSON text of each that was cut out, by what stands in its place.
        unread: Places of those that `raw` was not asked for.
    """

    text: bytes
    arrays: Mapping[bytes, Span] = field(default_factory=dict)
    unread: set[bytes] = field(default_factory=set)

    def raw(self, value: msgspec.Raw) -> bytes:
        """The JSON text of a value, in `text` or cut out of it."""
        return bytes(self.span(value))

    def span(self, value: msgspec.Raw) -> bytes | Span:
        """As `raw`, without a copy of what was cut out."""
        text = bytes(value)
        array = self.arrays.get(text)
        if array is None:
            return text
        self.unread.discard(text)
        return array


def read_cut(body: bytes, keys: re.Pattern[bytes], read: Callable[[Body], Read]) -> Read:
    """What a reader makes of a body, its large arrays cut out where that makes no difference.

    Args:
        body: JSON text.
        keys: As `cut`.
        read: Asks the body for every array it reads.

    Raises:
        RequestError, RecursionError: The reader's own, of the body as it came.
    """
    parted = cut(body, keys)
    if parted.arrays:
        with contextlib.suppress(RequestError, RecursionError):
            found = read(parted)
            if not parted.unread:
                return found
    return read(Body(body))


def cut(body: bytes, keys: re.Pattern[bytes]) -> Body:
    """A body without its large arrays.

    Args:
        body: JSON text.
        keys: Finds a key whose value is an array, up to its opening bracket.
    """
    if len(body) < SMALL_BYTES:
        return Body(body)
    kept: list[bytes] = []
    arrays: dict[bytes, Span] = {}
    done = 0
    while found := keys.search(body, done):
        start = found.end() - 1
        end = body.rfind(b"]", start, _stop(body, start)) + 1
        if end - start < SMALL_BYTES:
            kept.append(body[done : found.end()])
            done = found.end()
            continue
        place = PLACE % len(arrays)
        kept.append(body[done:start] + place)
        arrays[place] = Span(body, start, end)
        done = end
    if not arrays:
        return Body(body)
    text = b"".join((*kept, body[done:]))
    if text.count(PLACES) != len(arrays):  # whoever wrote such a text means it
        return Body(body)
    return Body(text, arrays, set(arrays))


def _stop(body: bytes, start: int) -> int:
    """Where the next quote or brace is; an array of numbers has none."""
    stop = len(body)
    for each in (b'"', b"}", b"{"):
        found = body.find(each, start, stop)
        stop = stop if found < 0 else found
    return stop
