"""uvicorn's HTTP connection, with a shorter way for what carries tensors.

A long body goes from the socket straight into the memory that the tensors will
be views of: its parser would copy every byte four times, 64 KiB a turn of the
event loop. A short answer leaves in one piece. And a client is waited for only so
long, whatever it is to do: below the app nobody else sees that it does not.

Everything else is uvicorn's own. This is the one module that knows its insides,
so the versions of it that are allowed are bounded in pyproject.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import httptools
from starlette.types import Receive, Send
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from infold.rest.at_once import ShortWay
from infold.rest.bounds import Bounds
from infold.rest.long_body import KEY, ClientGone, LongBody, long_body
from infold.rest.patience import Late, Patience
from infold.rest.problems import last_words
from infold.rest.reply import Headers, whole
from infold.rest.turned_away import TurnedAway
from infold.rest.unread import cut_off, unread_bytes

__all__ = ["ClientGone", "Connection", "LongBody", "come_body", "long_body", "tensors_at", "written_at_once"]

# A body of this length is worth a buffer of its own.
LONG_BYTES = 2**16
# Of one request, before its body or behind it.
MAX_HEAD_BYTES = 2**16
# Of a request whose beginning is known: the rest of it comes within this, or the usual way is as good.
HOLD_S = 0.05
END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(HttpToolsProtocol):
    """uvicorn's connection that reads long bodies into a `LongBody`, and waits for nobody for ever.

    Attributes:
        bounds: What this process may hold, and for how long.
        short_way: Of requests that are answered before more is read; None where there is none.
        long_body: On its way into memory, past the parser.
    """

    bounds: Bounds
    short_way: ShortWay | None = None
    long_body: LongBody | None = None
    _head_bytes = 0
    _before: Sequence[RequestResponseCycle] = ()  # requests before the last one, while they wait
    _patience: Patience
    _timer: asyncio.TimerHandle | None = None
    _look_at = 0.0
    _last_at_once = -math.inf  # when a request was answered so
    _held = b""  # of a request that is likely to be, and has not come whole
    _held_since = 0.0
    _release: asyncio.TimerHandle | None = None
    _first = b""  # of a request, if it was its head and nothing else

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take a connection, or turn it away."""
        bounds = self.bounds
        if not bounds.has_room(len(self.connections), lambda: transport.get_extra_info("sockname")[1]):
            bounds.refuse("connections")
            text = f"too many connections: the maximum allowed is {bounds.max_connections}"
            TurnedAway(transport, last_words(503, text, (b"retry-after", b"1")), bounds)
            return
        super().connection_made(transport)
        self._patience = Patience(bounds.header_timeout_s, self.timeout_keep_alive, bounds.write_timeout_s)
        self._patience.head_since = self.loop.time()
        self._look_in_time()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, as all else is refused, and close the connection."""
        what = "cannot be parsed" if msg.startswith("Invalid") else msg  # uvicorn says no more
        self._refuse(400, f"HTTP request: {what}")

    def on_headers_complete(self) -> None:
        """Tell the app of a long body that it may take room for it."""
        self._head_bytes = 0
        patience = self._patience
        patience.head_since = patience.rest_since = None
        before: RequestResponseCycle | None = self.cycle
        if before is not None and not before.response_complete:
            self._before = [*(each for each in self._before if not each.response_complete), before]
        found = dict(self.headers)
        size = found.get(b"content-length", b"")
        body = None
        if len(size) > 4 and size.isdigit() and LONG_BYTES <= int(size) <= self.bounds.max_body_bytes:
            earlier: RequestResponseCycle | None = self.cycle
            is_first = earlier is None or earlier.response_complete  # and not behind another one
            if is_first and b"transfer-encoding" not in found and not self.parser.should_upgrade():
                body = LongBody(self, int(size), tensors_at(found))
                self.scope[KEY] = body  # type: ignore[literal-required]  # uvicorn types the scope's keys
        super().on_headers_complete()
        if self.bounds.is_leaving:  # so that whoever asks over it looks elsewhere before it ends
            self.cycle.keep_alive = False
        if body is not None:
            body.cycle = self.cycle

    def on_body(self, body: bytes) -> None:
        """Bytes of a body are none of a header."""
        self._head_bytes = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Parse, and see to it that headers which have begun are ended in time."""
        if self.short_way is None or not self._is_between:
            first, self._first = self._first, b""
            self._parse(data)
            if first and self.short_way is not None:
                self._learn(first + data)
            return
        waited_s = time.perf_counter() - self._held_since if self._held else 0.0
        data = self._taken() + data
        if self._answer_at_once(data, waited_s):
            return
        if self.short_way.is_begun(data) and not self.bounds.is_leaving:
            self._hold(data, waited_s)
            return
        self._parse(data)
        if not self._learn(data) and data.endswith(END):
            self._first = data

    def _parse(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        # Of a path, a header or a trailer the parser keeps all until it ends; bytes of a body are none.
        if self._head_bytes > MAX_HEAD_BYTES + len(data) and not self.transport.is_closing():
            self.send_400_response(f"more than {MAX_HEAD_BYTES} bytes before or behind its body")
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or cycle.scope is not self.scope:
            self._wait_for_head(cycle)

    def read_long(self, body: LongBody) -> None:
        """Put what has come of a long body into it, and all that follows as it comes."""
        cycle = body.cycle
        come, cycle.body = cycle.body, bytearray()
        body.add(come)
        if body.is_complete:
            cycle.waiting_for_100_continue = False
        elif not cycle.disconnected and not self.transport.is_closing():
            if cycle.waiting_for_100_continue:
                self.transport.write(CONTINUE)
            cycle.waiting_for_100_continue = False
            self.long_body = body
            self._read_by(body)
        else:
            body.lose()

    def stop_long(self) -> None:
        """Read no more of a long body that nobody waits for; the connection ends with its answer."""
        if not self.transport.is_closing():
            self.flow.pause_reading()

    def take_back(self) -> None:
        """Go on with the next request: the parser never sees how the last one ended."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.long_body = None
        self._read_by(self)
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on with what was sent behind this request, and read no more before that is answered."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()
        cycle = self.cycle
        if cycle.body or cycle.more_body or not cycle.keep_alive:
            self._leave_behind(cycle)

    def pause_writing(self) -> None:
        """See asyncio; the client is to read before anything more is written."""
        super().pause_writing()
        self._wait_for_reading()

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._patience.reading_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing was asked for long."""
        if self._held:
            self._let_go()
            return
        left_s = self._last_at_once + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()
        self._wait_for_reading()

    def shutdown(self) -> None:
        """See uvicorn: close what is idle."""
        self._let_go()
        super().shutdown()
        if self.transport.is_closing():
            self._wait_for_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for a body, and all requests that are not answered yet, not the last alone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._taken()
        if self.long_body is not None:
            self.long_body.lose()
        for cycle in self._before:
            cycle.disconnected = True
            cycle.message_event.set()
        self._before = ()
        self.pipeline.clear()
        super().connection_lost(exc)

    @property
    def _is_between(self) -> bool:
        """All that was asked is answered, and nothing has come yet of what is next."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None:
            return self.scope is None
        return cycle.response_complete and not cycle.more_body and cycle.scope is self.scope

    def _learn(self, data: bytes) -> bool:
        """True if the data, which are parsed, were a whole request; its head is known from now on."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.scope is not self.scope or cycle.more_body or cycle.response_complete:
            return False
        if cycle.keep_alive and self.short_way is not None:
            self.short_way.learn(data, self.scope)  # type: ignore[arg-type]  # uvicorn types it
        return True

    def _hold(self, data: bytes, waited_s: float) -> None:
        """Wait a moment for the rest of a request: clients often send its head and its body apart."""
        self._held = data
        self._held_since = time.perf_counter() - waited_s
        self._release = self.loop.call_later(HOLD_S, self._let_go)

    def _taken(self) -> bytes:
        """What was held; it is held no longer."""
        if self._release is not None:
            self._release.cancel()
            self._release = None
        held, self._held = self._held, b""
        return held

    def _let_go(self) -> None:
        """The rest may take its time: what is here goes the usual way."""
        if (held := self._taken()) and not self.transport.is_closing():
            self._parse(held)

    def _answer_at_once(self, data: bytes, waited_s: float) -> bool:
        """True if the data were a request that is answered now; the parser has not seen them."""
        if self.bounds.is_leaving or self.flow.write_paused or self.transport.is_closing():
            return False
        assert self.short_way is not None
        if not self.short_way.answer(data, self._write, waited_s):
            return False
        self.server_state.total_requests += 1
        self._head_bytes = 0
        self._patience.head_since = None
        self._last_at_once = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_handler()  # which looks again in time
        return True

    def _write(self, status: int, headers: Headers, body: bytes) -> None:
        """Write an answer that no app has sent."""
        self.transport.write(whole(status, (*self.server_state.default_headers, *headers), body))

    def _refuse(self, status: int, text: str) -> None:
        """Answer below the app, and close the connection."""
        self.transport.write(last_words(status, text))
        self.transport.close()
        self._wait_for_reading()

    def _leave_behind(self, cycle: RequestResponseCycle) -> None:
        """See to what is left of the request that came last, if it is answered."""
        if self.long_body is not None:
            self.transport.close()  # in the middle of it: nobody knows where the next request begins
        if self.transport.is_closing():
            self._wait_for_reading()
        elif cycle.response_complete:
            cycle.body = bytearray()
            if cycle.more_body:  # no timer of uvicorn's runs while the rest of it comes, nor after that
                self._patience.rest_since = self.loop.time()
                self._look_in_time()

    def _wait_for_head(self, cycle: RequestResponseCycle | None) -> None:
        """What has come is no request yet: uvicorn's timer has stopped, so another one must run."""
        if cycle is not None and cycle.scope is self.scope and cycle.more_body:
            return  # the rest of a request that is answered
        self._patience.rest_since = None
        if self._patience.head_since is None and not self.transport.is_closing():
            self._patience.head_since = self.loop.time()
            self._look_in_time()

    def _wait_for_reading(self) -> None:
        """The client has something to read, if it has not read all of it."""
        if unread := unread_bytes(self.transport):
            self._patience.wait_for_reading(self.loop.time(), unread)
            self._look_in_time()

    @property
    def _is_answering(self) -> bool:
        """A request before the one that is not here yet waits for its answer."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _look_in_time(self) -> None:
        """Look at the clock when the next thing is due; often it has happened by then."""
        due = self._patience.due()
        if due is None or (self._timer is not None and self._look_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = due
        self._timer = self.loop.call_later(max(0.0, due - self.loop.time()), self._look)

    def _look(self) -> None:
        self._timer = None
        patience, now = self._patience, self.loop.time()
        if self.transport.is_closing():  # nothing more is read
            patience.head_since = patience.rest_since = None
        match patience.late(now, unread_bytes(self.transport)):
            case Late.READING:
                self.bounds.refuse("write_timeout")
                cut_off(self.transport)
                return
            case Late.HEAD if self._is_answering:
                patience.head_since = now  # an earlier request comes first
            case Late.HEAD:
                patience.head_since = patience.rest_since = None
                self.bounds.refuse("header_timeout")
                self._refuse(408, f"the request's headers did not come within {patience.head_s:g} s")
            case Late.REST:
                patience.head_since = patience.rest_since = None
                self.transport.close()
                self._wait_for_reading()
        self._look_in_time()

    def _read_by(self, protocol: Any) -> None:
        # uvloop asks how to read only when it begins to.
        self.flow.pause_reading()
        self.transport.set_protocol(protocol)
        self.flow.resume_reading()


def tensors_at(headers: dict[bytes, bytes]) -> int:
    """Where in a body tensors begin, if it holds any."""
    text = headers.get(b"inference-header-content-length", b"")
    return int(text) if text.isdigit() and len(text) < 10 else 0


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
    cycle.waiting_for_100_continue = False
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(whole(status, (*cycle.default_headers, *headers), body))
    cycle.message_event.set()
    cycle.on_response()
    return True
