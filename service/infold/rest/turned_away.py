"""A connection above the limit: told so, and closed."""

from __future__ import annotations

import asyncio

from infold.rest.bounds import Bounds

__all__ = ["TurnedAway"]

# A socket that is closed with something unread in it takes its answer back, so what comes is read.
LINGER_S = 1.0
MOST_LINGERING = 64


class TurnedAway(asyncio.Protocol):
    """What becomes of a connection that there is no room for.

    Args:
        transport: To the client.
        answer: All that it is told.
        bounds: Of this process.
    """

    def __init__(self, transport: asyncio.Transport, answer: bytes, bounds: Bounds) -> None:
        self._transport = transport
        self._bounds = bounds
        self._timer: asyncio.TimerHandle | None = None
        bounds.lingering += 1
        transport.set_protocol(self)
        transport.write(answer)
        if bounds.lingering > MOST_LINGERING or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """See asyncio; nobody wants it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._bounds.lingering -= 1
        if self._timer is not None:
            self._timer.cancel()
