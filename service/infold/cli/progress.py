"""One line that says what is going on, where a person is watching."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_line"]


@contextmanager
def progress_line(quiet: bool) -> Iterator[Callable[[str, float], None] | None]:
    """Give what a long job reports to; the line is gone when the job is done.

    Without a terminal nothing is written: a log wants no half-second ticks.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    shown = 0

    def show(what: str, seconds: float) -> None:
        nonlocal shown
        line = f"{what} … {seconds:.0f} s"
        print(f"\r{line.ljust(shown)}", end="", file=sys.stderr, flush=True)
        shown = max(shown, len(line))

    try:
        yield show
    finally:
        if shown:
            print(f"\r{' ' * shown}\r", end="", file=sys.stderr, flush=True)
