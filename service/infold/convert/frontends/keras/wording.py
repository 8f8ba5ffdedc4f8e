"""Frameworks explain themselves at length; this is what fits on one line."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["chain", "one_line"]

LENGTH = 240
# Terminal colours, and paragraphs that say only where something went wrong.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WHERE = re.compile(
    r"Exception encountered when calling|The error above occurred|Arguments received by|Next steps"
)


def chain(failure: BaseException | None) -> Iterator[BaseException]:
    """An exception, what caused it, what caused that."""
    while failure is not None:
        yield failure
        failure = failure.__cause__


def one_line(failure: BaseException) -> str:
    """The first telling paragraph of what went wrong at the bottom of it."""
    *_, root = chain(failure)
    text = COLOURS.sub("", str(root)).rpartition("Exception encountered: ")[2]
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        if words and not WHERE.match(words):
            return words[:LENGTH]
    return type(root).__name__
