"""Heads of requests that have come before, byte for byte.

Whoever asks again over the same connection sends the same head, but for the length of the body. Its
lines were parsed once, to the last byte, so what they say need not be found out again: the bytes are
looked up, and what follows them is the body. Pure: no socket and no clock.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["KnownHeads"]

Meaning = TypeVar("Meaning")

END = b"\r\n\r\n"
# Longer ones carry cookies and the like, and are parsed.
LONGEST_BYTES = 2**11
# Of each client and each length of its bodies there is one.
MOST = 512


class KnownHeads(Generic[Meaning]):
    """The last of them that were learned, each with what it says.

    Args:
        most: Kept at a time; the oldest goes first.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[bytes, tuple[int, Meaning]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, data: bytes) -> tuple[Meaning, bytes] | None:
        """What the head of a request says, and its body; None unless the data are one whose head is known.

        Args:
            data: What came when nothing else was on its way.
        """
        end = data.find(END, 0, LONGEST_BYTES) + len(END)
        known = self._kept.get(data[:end])
        if known is None or len(data) - end != known[0]:
            return None
        return known[1], data[end:]

    def begun(self, data: bytes) -> Meaning | None:
        """What the head says of a request that is not all here; None unless its head is, and is known."""
        end = data.find(END, 0, LONGEST_BYTES) + len(END)
        known = self._kept.get(data[:end])
        return None if known is None or len(data) - end >= known[0] else known[1]

    def learn(self, data: bytes, body_bytes: int, meaning: Meaning) -> None:
        """Know the head of a request from now on, if it is short.

        Args:
            data: All of the request, as it came and was parsed.
            body_bytes: How many of them its head says are its body.
            meaning: What else it says.
        """
        end = len(data) - body_bytes
        if end > LONGEST_BYTES or data.find(END) + len(END) != end:
            return
        if len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[data[:end]] = body_bytes, meaning
