"""A part of a long text, without a copy of it."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Span"]


class Span:
    """A stretch of bytes that is read where it lies; as much like bytes as its readers need.

    Args:
        whole: What it is a part of.
        start: Where it begins.
        end: Where it ends.
    """

    __slots__ = ("_end", "_start", "_whole")

    def __init__(self, whole: bytes, start: int, end: int) -> None:
        self._whole, self._start, self._end = whole, start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __iter__(self) -> Iterator[int]:
        return iter(self.view)

    def __bytes__(self) -> bytes:
        return self._whole[self._start : self._end]

    @property
    def view(self) -> memoryview:
        """The bytes where they lie."""
        return memoryview(self._whole)[self._start : self._end]

    def count(self, part: bytes) -> int:
        """As `bytes.count`."""
        return self._whole.count(part, self._start, self._end)

    def find(self, part: bytes, start: int = 0) -> int:
        """As `bytes.find`."""
        found = self._whole.find(part, self._start + start, self._end)
        return found if found < 0 else found - self._start
