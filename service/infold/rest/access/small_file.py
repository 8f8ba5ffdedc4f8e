"""Files of secrets as they lie on disk: read in one go, and judged by who else may."""

from __future__ import annotations

import stat
from pathlib import Path

from infold.errors import ConfigError

__all__ = ["others_of", "read_small"]

LONGEST_BYTES = 2**20


def read_small(path: Path) -> bytes:
    """All of a file.

    Raises:
        ConfigError: It cannot be read, is none, or is longer than anybody means it to be.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for somebody to write
            raise ConfigError(str(path), "is no file")
        with path.open("rb") as file:
            content = file.read(LONGEST_BYTES + 1)
    except OSError as failure:
        raise ConfigError(str(path), f"cannot be read: {failure.strerror or failure}") from failure
    if len(content) > LONGEST_BYTES:
        raise ConfigError(str(path), f"is longer than {LONGEST_BYTES} bytes")
    return content


def others_of(path: Path) -> str | None:
    """What others than its owner may do with a file, in words; None where that is nothing."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    able = [what for what, bits in (("read", 0o044), ("written", 0o022)) if mode & bits]
    return " and ".join(able) or None
