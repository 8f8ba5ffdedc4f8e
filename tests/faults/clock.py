"""A wall clock that jumps: a server is started so that its `time.time` can be moved while it runs.

Python looks for a module `sitecustomize` wherever it starts. The one written here adds to the time of
day what stands in a page of memory that the server and its tests share.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

__all__ = ["Clock"]

VARIABLE = "FAULTS_CLOCK"
SITE = f'''
import mmap, os, time

if "{VARIABLE}" in os.environ:
    with open(os.environ["{VARIABLE}"], "rb") as file:
        shift = memoryview(mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)).cast("d")
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + shift[0]
    time.time_ns = lambda: nanoseconds() + int(shift[0] * 1e9)
'''


class Clock:
    """The wall clock of a server.

    Args:
        folder: For the page, and for what makes a server look there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
        page = folder / "page"
        page.write_bytes(bytes(8))
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 8)
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {VARIABLE: str(page), "PYTHONPATH": os.pathsep.join(paths)}

    def jump(self, seconds: float) -> None:
        """From now on it is so much later than it is, or earlier."""
        self._page[:8] = struct.pack("d", seconds)
