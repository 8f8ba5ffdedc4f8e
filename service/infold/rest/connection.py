"""uvicorn's HTTP connection, with a shorter way for what carries tensors.

A long body goes from the socket straight into the memory that the tensors will
be views of: its parser would copy every byte four times, 64 KiB a turn of the
event loop. A short answer leaves in one piece.

Everything else is uvicorn's own. This is the one module that knows its insides,
so the versions of it that are allowed are bounded in pyproject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from infold.rest.problems import error_body
from infold.rest.room import room_for

__all__ = ["ClientGone", "Connection", "LongBody", "come_body", "long_body", "tensors_at", "written_at_once"]

# A body of this length is worth a buffer of its own.
LONG_BYTES = 2**16
KEY = "infold.long_body"
# Of one request, before its body or behind it.
MAX_HEAD_BYTES = 2**16
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientGone(Exception):  # noqa: N818 - nobody's error
    """The client closed the connection before its request was answered."""


class LongBody(asyncio.BufferedProtocol):
    """A body on its way from the socket into memory.

    Args:
        connection: Whose body it is, and who reads on after it.
        size: Its length in bytes.
        tensors_at: Where in it tensors begin.
    """

    def __init__(self, connection: Connection, size: int, tensors_at: int) -> None:
        self.size = size
        self._connection = connection
        self._view = room_for(size, tensors_at)
        self._filled = 0
        self._done = asyncio.get_running_loop().create_future()

    @property
    def is_complete(self) -> bool:
        """All of it is there."""
        return self._filled == self.size

    async def read(self) -> memoryview:
        """The body, once all of it is there.

        Raises:
            ClientGone: The client left before.
        """
        if not self.is_complete:
            self._connection.ask_for_body()
            await asyncio.shield(self._done)
        if not self.is_complete:
            raise ClientGone
        return self._view

    def add(self, part: bytes) -> None:
        """Take in what the parser has read already."""
        end = self._filled + len(part)
        self._view[self._filled : end] = part
        self._filled = end
        if self.is_complete and not self._done.done():
            self._done.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio: exactly what is missing, so that the next request stays in the socket."""
        del sizehint
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._filled += nbytes
        if self.is_complete:
            self._connection.take_back()
            if not self._done.done():
                self._done.set_result(None)

    def lose(self) -> None:
        """The client has gone; what has come of it is of no use, and takes memory."""
        if not self.is_complete:
            self._view = memoryview(b"")
        if not self._done.done():
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


class Connection(HttpToolsProtocol):
    """uvicorn's connection that reads long bodies into a `LongBody`.

    Attributes:
        max_body_bytes: Longer ones go the usual way, which refuses them.
    """

    max_body_bytes = 2**26
    long_body: LongBody | None = None
    _head_bytes = 0
    _before: Sequence[RequestResponseCycle] = ()  # requests before the last one, while they wait

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, as all else is refused, and close the connection."""
        what = "cannot be parsed" if msg.startswith("Invalid") else msg  # uvicorn says no more
        body = error_body(f"HTTP request: {what}")
        head = b"content-type: application/json\r\nconnection: close\r\n"
        size = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[400] + head + size + body)
        self.transport.close()

    def on_headers_complete(self) -> None:
        """Make room for a long body before the app is told of the request."""
        self._head_bytes = 0
        self.long_body = None
        before: RequestResponseCycle | None = self.cycle
        if before is not None and not before.response_complete:
            self._before = [*(each for each in self._before if not each.response_complete), before]
        found = dict(self.headers)
        size = found.get(b"content-length", b"")
        if len(size) > 4 and size.isdigit() and LONG_BYTES <= int(size) <= self.max_body_bytes:
            earlier: RequestResponseCycle | None = self.cycle
            is_first = earlier is None or earlier.response_complete  # and not behind another one
            if is_first and b"transfer-encoding" not in found and not self.parser.should_upgrade():
                self.long_body = LongBody(self, int(size), tensors_at(found))
                self.scope[KEY] = self.long_body  # type: ignore[literal-required]  # uvicorn types the scope's keys
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Put what came with the headers where the rest will go."""
        self._head_bytes = 0
        if self.long_body is None:
            super().on_body(body)
        else:
            self.long_body.add(body)

    def data_received(self, data: bytes) -> None:
        """Parse, and leave the rest of a long body to itself."""
        self._head_bytes += len(data)
        super().data_received(data)
        # Of a path, a header or a trailer the parser keeps all until it ends; bytes of a body are none.
        if self._head_bytes > MAX_HEAD_BYTES + len(data) and not self.transport.is_closing():
            self.send_400_response(f"more than {MAX_HEAD_BYTES} bytes before or behind its body")
        body = self.long_body
        if body is not None and not body.is_complete and not self.transport.is_closing():
            self._read_by(body)

    def take_back(self) -> None:
        """Go on with the next request: the parser never sees how the last one ended."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.long_body = None
        self._read_by(self)
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def ask_for_body(self) -> None:
        """Tell a client that waits for it to send its body."""
        if self.cycle.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(CONTINUE)
        self.cycle.waiting_for_100_continue = False

    def on_response_complete(self) -> None:
        """Go on with what was sent behind this request, and read no more before that is answered."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for a body, and all requests that are not answered yet, not the last alone."""
        if self.long_body is not None:
            self.long_body.lose()
        for cycle in self._before:
            cycle.disconnected = True
            cycle.message_event.set()
        self._before = ()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _read_by(self, protocol: Any) -> None:
        # uvloop asks how to read only when it begins to.
        self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        self.transport.resume_reading()


def tensors_at(headers: dict[bytes, bytes]) -> int:
    """Where in a body tensors begin, if it holds any."""
    text = headers.get(b"inference-header-content-length", b"")
    return int(text) if text.isdigit() and len(text) < 10 else 0


def long_body(scope: Scope) -> LongBody | None:
    """The long body of a request, if it has one."""
    return scope.get(KEY)


def come_body(receive: Receive) -> bytes | None:
    """The whole of a short body that is here already; None where it takes the usual way."""
    cycle = getattr(receive, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.more_body or cycle.disconnected:
        return None
    body = bytes(cycle.body)
    cycle.body = bytearray()
    cycle.waiting_for_100_continue = False
    cycle.message_event.clear()
    return body


def written_at_once(
    send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | memoryview
) -> bool:
    """True if the whole answer has been written; False where that takes the usual way.

    Args:
        send: As the app was given it.
        status: Of the answer.
        headers: All of them, in lower case, their values clean.
        body: All of it.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.response_started:
        return False
    if cycle.flow.write_paused or cycle.disconnected or not cycle.keep_alive:
        return False
    if any(name == b"connection" for name, _ in headers):
        return False
    parts: list[bytes | memoryview] = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", body)
    cycle.waiting_for_100_continue = False
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    cycle.on_response()
    return True
