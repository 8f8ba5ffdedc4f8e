"""Large arrays of numbers taken out of a JSON body before it is read.

The rest is then a few hundred bytes, and each array is read once, by the
fastest reader there is, where otherwise a reader of the whole would have to
walk over millions of digits first to find out where an array ends.

What is cut out holds no quotes and no braces, so it is brackets, numbers and
literals only; whether it is one well-formed array, its reader says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

__all__ = ["SMALL_BYTES", "Body", "cut"]

# Below this there is nothing to win.
SMALL_BYTES = 8192
# What stands in the place of an array; no other text of a request can be taken for it by accident.
PLACE = b'"\\u0000cut %d"'
PLACED = re.compile(rb'"\\u0000cut (\d+)"')


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A JSON body, its large arrays apart.

    Attributes:
        text: What is left of it.
        arrays: The JSON text of each that was cut out.
    """

    text: bytes
    arrays: Sequence[bytes] = ()

    def raw(self, value: msgspec.Raw) -> bytes:
        """The JSON text of a value, in `text` or cut out of it."""
        text = bytes(value)
        placed = PLACED.fullmatch(text)
        if placed is None or int(placed[1]) >= len(self.arrays):
            return text
        return self.arrays[int(placed[1])]


def cut(body: bytes, keys: re.Pattern[bytes]) -> Body:
    """A body without its large arrays.

    Args:
        body: JSON text.
        keys: Finds a key whose value is an array, up to its opening bracket.
    """
    if len(body) < SMALL_BYTES:
        return Body(body)
    kept: list[bytes] = []
    arrays: list[bytes] = []
    done = 0
    while found := keys.search(body, done):
        start = found.end() - 1
        end = body.rfind(b"]", start, _stop(body, start)) + 1
        if end - start < SMALL_BYTES:
            kept.append(body[done : found.end()])
            done = found.end()
            continue
        kept.append(body[done:start] + PLACE % len(arrays))
        arrays.append(body[start:end])
        done = end
    if not arrays:
        return Body(body)
    return Body(b"".join((*kept, body[done:])), arrays)


def _stop(body: bytes, start: int) -> int:
    """Where the next quote or brace is; an array of numbers has none."""
    stop = len(body)
    for each in (b'"', b"}", b"{"):
        found = body.find(each, start, stop)
        stop = stop if found < 0 else found
    return stop
