"""What PyTorch says over many lines, said in one."""

from __future__ import annotations

import re
import traceback

__all__ = ["in_brief", "where_raised"]

LENGTH = 300
COLOUR = re.compile(r"\x1b\[[0-9;]*m|\[\d+m")


def in_brief(failure: BaseException) -> str:
    """The class and first paragraph of an exception, on one line."""
    text = COLOUR.sub("", str(failure)).strip()
    first = " ".join(text.split("\n\n")[0].split())
    return f"{type(failure).__name__}: {first[:LENGTH]}" if first else type(failure).__name__


def where_raised(failure: BaseException) -> str:
    """File and line of the user's own code that an exception passed through last, or nothing."""
    frames = traceback.extract_tb(failure.__traceback__)
    own = [
        frame for frame in frames if not re.search(r"[/\\](torch|infold|importlib)[/\\]|^<", frame.filename)
    ]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
