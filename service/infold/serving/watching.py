"""When to look at the repository again: once something has changed in it, and from time to time.

Not every file system tells of changes (NFS does not tell of those made elsewhere),
so an event only shortens the wait.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

__all__ = ["Watch"]

log = logging.getLogger(__name__)

RETRY_S = 30.0
# Changes that follow each other so closely are one; in milliseconds.
DEBOUNCE_MS = 500


class Watch:
    """Events of a folder and of all that lies in it.

    Args:
        root: The folder; may come later, or go and come again.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._has_changed = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Return after so long, or once something has changed since the last time."""
        try:
            async with asyncio.timeout(seconds):
                await self._has_changed.wait()
        except TimeoutError:
            return
        self._has_changed.clear()

    async def run(self) -> None:
        """Listen to events until cancelled; where there are none to be had, try again now and then."""
        from watchfiles import awatch  # only who follows a repository needs it

        while True:
            try:
                async for _ in awatch(self._root, watch_filter=None, debounce=DEBOUNCE_MS, step=50):
                    self._has_changed.set()
            except (OSError, RuntimeError) as failure:  # it is gone, or there are no more watches to be had
                log.warning("repository not watched", extra={"reason": str(failure)})
            await asyncio.sleep(RETRY_S)
            self._has_changed.set()
