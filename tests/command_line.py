"""`infold` run as a user runs it, and what a refusal of it looks like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def infold(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with more in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "infold", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        env=os.environ | environment,
    )


def assert_error(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on standard error that starts with the program's name and holds the words; nothing else."""
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("infold: ") and done.stdout == ""
    for word in words:
        assert word in line
