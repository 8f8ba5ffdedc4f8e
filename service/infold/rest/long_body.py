"""A long body on its way from the socket straight into memory of its own."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from infold.rest.room import room_for

__all__ = ["KEY", "ClientGone", "LongBody", "long_body"]

KEY = "infold.long_body"
NOTHING = memoryview(b"")


class Reader(Protocol):
    """The connection that a long body comes over."""

    def read_long(self, body: LongBody) -> None:
        """Put what has come of a long body into it, and all that follows as it comes."""

    def stop_long(self) -> None:
        """Read no more of a long body."""

    def take_back(self) -> None:
        """Go on with the next request."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""

    def pause_writing(self) -> None:
        """See asyncio."""

    def resume_writing(self) -> None:
        """See asyncio."""


class ClientGone(Exception):  # noqa: N818 - nobody's error
    """The client closed the connection before its request was answered."""

    asked_of: tuple[str, int | None] | None = None


class LongBody(asyncio.BufferedProtocol):
    """A body on its way from the socket into memory, which it takes only once somebody reads it.

    Until then it comes the usual way, as far as that takes in before somebody reads.

    Args:
        connection: Whose body it is, and who reads on after it.
        size: Its length in bytes.
        tensors_at: Where in it tensors begin.
    """

    cycle: RequestResponseCycle  # of its request

    def __init__(self, connection: Reader, size: int, tensors_at: int) -> None:
        self.size = size
        self._connection = connection
        self._tensors_at = tensors_at
        self._view = NOTHING
        self._filled = 0
        self._done: asyncio.Future[None] | None = None

    @property
    def is_complete(self) -> bool:
        """All of it is there."""
        return self._filled == self.size

    async def read(self) -> memoryview:
        """The body, once all of it is there; to be asked for once, and nobody else keeps it.

        Raises:
            ClientGone: The client left before.
        """
        self._view = room_for(self.size, self._tensors_at)
        self._done = asyncio.get_running_loop().create_future()
        try:
            self._connection.read_long(self)
            if not self.is_complete:
                await asyncio.shield(self._done)
        finally:
            if not self.is_complete:
                self._connection.stop_long()
                self.lose()
        if not self.is_complete:
            raise ClientGone
        view, self._view = self._view, NOTHING
        return view

    def add(self, part: bytes | bytearray) -> None:
        """Take in what the parser has read already."""
        end = self._filled + len(part)
        self._view[self._filled : end] = part
        self._filled = end

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio: exactly what is missing, so that the next request stays in the socket."""
        del sizehint
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._filled += nbytes
        if self.is_complete:
            self._connection.take_back()
            self._tell()

    def lose(self) -> None:
        """Nobody will read it; what has come of it takes memory."""
        if not self.is_complete:
            self._view = NOTHING
        self._tell()

    def _tell(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._connection.resume_writing()


def long_body(scope: Scope) -> LongBody | None:
    """The long body of a request, if it has one."""
    return scope.get(KEY)
