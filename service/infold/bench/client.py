"""One connection to a server that carries one request at a time, with as little work as can be.

Requests are ready-made bytes; answers are parsed by httptools. It does not know what a load
is: whoever owns the connection is told what happens and decides what is sent next.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

from infold.bench.answers import Answer

__all__ = ["Caller", "Owner"]

BINARY_HEADER = b"inference-header-content-length"


class Owner(Protocol):
    """Who decides what a connection is used for."""

    def answered(self, caller: Caller, status: int, answer: Answer) -> None:
        """The request that was under way has its whole answer; the caller may be used again."""

    def lost(self, caller: Caller) -> None:
        """The connection is no more."""

    def broke(self, failure: BaseException) -> None:
        """Something of ours failed while an answer was read."""


class Caller(asyncio.Protocol):
    """One keep-alive connection.

    Attributes:
        request: Index of the request under way.
        due: When it was due.
        is_busy: An answer is awaited.
        is_open: Requests may be sent.
    """

    def __init__(self, owner: Owner) -> None:
        self.request = 0
        self.due = 0.0
        self.is_busy = False
        self.is_open = False
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._json_bytes: int | None = None

    def send(self, wire: bytes, request: int, due: float) -> None:
        """Send a request; only on an open connection that is not busy."""
        assert self._transport is not None
        self.request, self.due, self.is_busy = request, due, True
        self._transport.write(wire)

    def abort(self) -> None:
        """Close at once."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as failure:
            self._owner.broke(failure.__context__ or failure)
        except httptools.HttpParserError:  # no HTTP, or more than was asked for
            self.abort()

    def connection_lost(self, failure: Exception | None) -> None:
        """See asyncio."""
        del failure
        self.is_open = False
        self._owner.lost(self)

    # -- httptools' side

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        # Lengths first: this is called for every header of every answer.
        if len(name) == len(BINARY_HEADER) and name.lower() == BINARY_HEADER and value.isdigit():
            self._json_bytes = int(value)

    def on_body(self, part: bytes) -> None:
        """See httptools."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """See httptools."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        answer = (self._json_bytes, body)
        self._parts, self._json_bytes = [], None
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue: the answer is still to come
            return
        self.is_busy = False
        if not self._parser.should_keep_alive():
            self.abort()
        self._owner.answered(self, status, answer)
