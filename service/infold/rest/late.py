"""An app that takes long to import, made while the service answers already.

A service begins with what carries tensors. FastAPI, which serves what is small and
described, takes longer to import than a model takes to load, so a service does not
wait for it; a request that needs it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["LateApp"]

log = logging.getLogger(__name__)


class LateApp:
    """An ASGI app that is made in a thread; if that fails so does who waits, and the next one tries again.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: asyncio.Future[ASGIApp] | None = None

    def begin(self) -> None:
        """Make it from now on; called on the event loop, once."""
        self._made = asyncio.ensure_future(asyncio.to_thread(self._make))
        self._made.add_done_callback(_tell)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI; waits until the app is there, and raises what kept it from being made."""
        if self._made is None or (self._made.done() and self._made.exception() is not None):
            self.begin()  # again: it may have been files that were not to be had for a moment
        assert self._made is not None
        app = await asyncio.shield(self._made)
        await app(scope, receive, send)


def _tell(made: asyncio.Future[ASGIApp]) -> None:
    """Nobody may ask for a while, and what is wrong is wrong from the start."""
    if not made.cancelled() and (failure := made.exception()) is not None:
        log.error("app not made", exc_info=failure)
