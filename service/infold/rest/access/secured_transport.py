"""A transport over TLS that its connection can treat as one without.

uvloop's own encrypts whatever it is given at once, hands it to the socket below, and then says
that it holds nothing; and from its close on it gives a client so many seconds, and then cuts off what
is left of the answer. So here a long answer waits as it is and goes in by pieces, as the socket takes them:
others are served between them, what a client has not read is known, and the end comes when
everything has arrived.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from infold.rest.unread import sent_and_unread

__all__ = ["SecuredTransport"]

PIECE_BYTES = 2**16
# As much may wait before the connection is asked to pause, and as little before it may go on.
HIGH_BYTES, LOW_BYTES = 2**16, 2**14
# How often it is looked, after the close, whether everything has arrived: a farewell is not waited for.
LOOK_S = 1.0
# That a client may take none of it.
STANDSTILL_S = 30.0


class SecuredTransport:
    """What is not here is the transport's own.

    Args:
        transport: Of uvloop, after the handshake.
        pause: Called when more is written than is taken.
        resume: Called when it may go on.
    """

    def __init__(
        self, transport: asyncio.Transport, pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._pause = pause
        self._resume = resume
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._is_blocked = self._is_paused = self._is_closing = False
        self._least_left: int | None = None
        self._least_at = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def begin(self) -> None:
        """Be told by `block` and `unblock`, from now on, as soon as the socket has enough."""
        self._transport.set_write_buffer_limits(1, 0)
        self._is_blocked = False  # what is left of the handshake goes out with the first answer, or before

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._is_closing or self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """See asyncio."""
        return self._waiting_bytes + self._transport.get_write_buffer_size()

    def write(self, data: bytes | memoryview) -> None:
        """See asyncio."""
        if self._is_closing or not len(data):
            return
        if not self._is_blocked and len(data) <= PIECE_BYTES:
            self._transport.write(data)
            return
        view = memoryview(data)
        self._waiting.extend(view[start : start + PIECE_BYTES] for start in range(0, len(view), PIECE_BYTES))
        self._waiting_bytes += len(view)
        self._go_on()
        if self._waiting_bytes > HIGH_BYTES and not self._is_paused:
            self._is_paused = True
            self._pause()

    def block(self) -> None:
        """The socket takes nothing more for now."""
        self._is_blocked = True

    def unblock(self) -> None:
        """It does again."""
        self._is_blocked = False
        self._go_on()
        if self._is_closing:
            if not self._waiting and not self._transport.is_closing():
                self._transport.close()
        elif self._is_paused and self._waiting_bytes <= LOW_BYTES:
            self._is_paused = False
            self._resume()

    def resume_reading(self) -> None:
        """See asyncio; nothing is read after the close."""
        if not self._is_closing:
            self._transport.resume_reading()

    def close(self) -> None:
        """See asyncio."""
        if self.is_closing():
            return
        self._is_closing = True
        self._transport.pause_reading()
        if not self._waiting:
            self._transport.close()
        self._loop.call_later(LOOK_S, self._look)

    def abort(self) -> None:
        """See asyncio."""
        self.lose()
        self._transport.abort()

    def lose(self) -> None:
        """The connection is no more: nothing waits for it."""
        self._is_closing = True
        self._waiting.clear()
        self._waiting_bytes = 0

    def _go_on(self) -> None:
        while self._waiting and not self._is_blocked:
            piece = self._waiting.popleft()
            self._waiting_bytes -= len(piece)
            self._transport.write(piece)

    def _look(self) -> None:
        """Leave when everything has arrived, or nothing has for long."""
        left, now = self.get_write_buffer_size() + sent_and_unread(self._transport), self._loop.time()
        if self._least_left is None or left < self._least_left:
            self._least_left, self._least_at = left, now
        if not left or now >= self._least_at + STANDSTILL_S:
            self.abort()
        else:
            self._loop.call_later(LOOK_S, self._look)
