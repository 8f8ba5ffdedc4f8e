"""Below the routes, plain ASGI: bodies in, answers out."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from starlette.types import Message, Receive, Scope, Send

from infold.errors import (
    AbandonedError,
    BodyTimeoutError,
    BodyTooLargeError,
    InfoldError,
)
from infold.rest.at_once import AtOnce, Known
from infold.rest.compression import Coding, Wish, coding_of, compress, inflate, inflate_at_once, wish_of
from infold.rest.connection import ClientGone, come_body, long_body, tensors_at, written_at_once
from infold.rest.in_flight import InFlight
from infold.rest.problems import Problems, error_body, headers_of, our_words
from infold.rest.reply import JSON, Answer, Headers, Reply, of_body

__all__ = ["LABEL", "Endpoint", "header", "headers_by_name", "left", "read_body", "respond"]

log = logging.getLogger(__name__)

# Parts of an answer that are smaller than this together are sent as one.
JOINED_BYTES = 2**16
# What is shorter is not worth compressing.
LEAST_BYTES = 2**10
# Compressed, or inflated, in about the time it takes to wake another thread.
AT_ONCE_BYTES = 2**14

HEADERS = "infold.headers"
UNREAD = "infold.unread"
# Before a label, where a version is meant.
LABEL = "@"


def headers_by_name(scope: Scope) -> dict[bytes, bytes]:
    """The last header of each name, in lower case; always the same object for a request."""
    headers: dict[bytes, bytes] | None = scope.get(HEADERS)
    if headers is None:
        headers = scope[HEADERS] = dict(scope["headers"])
    return headers


def header(scope: Scope, name: bytes) -> str | None:
    """The last header of that name (lower case), or None."""
    value = headers_by_name(scope).get(name)
    return None if value is None else str(value, "latin-1")


def _all_of(scope: Scope, name: bytes) -> str:
    """All headers of that name as the one list that they stand for."""
    return ",".join(str(value, "latin-1") for each, value in scope["headers"] if each == name)


async def read_body(
    scope: Scope, receive: Receive, limit_bytes: int, timeout_s: float, in_flight: InFlight | None = None
) -> bytes | memoryview:
    """The whole body of a request, as it was before it was compressed; a view where it is long.

    Args:
        scope: See ASGI.
        receive: See ASGI.
        limit_bytes: Most it may have, compressed or not.
        timeout_s: Longest it may take to come.
        in_flight: Holds its bytes until they are given back; None where nobody counts them.

    Raises:
        BodyTooLargeError: It is, or says it is, above the limit; nothing more is read.
        BodyTimeoutError: It did not come in time; nothing more is read.
        OverloadedError: There is no room for it; nothing more is read.
        UnsupportedCodingError: It is compressed in a way that is not served.
        MalformedBodyError: It is not compressed as it says.
        ClientGone: The client left.
    """
    headers = headers_by_name(scope)
    coding = None
    if b"content-encoding" in headers:
        coding = coding_of(_all_of(scope, b"content-encoding"))
    body = long_body(scope)
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit_bytes:
        raise BodyTooLargeError(limit_bytes)
    whole: bytes | memoryview | None = come_body(receive) if body is None else None
    if whole is None:
        if in_flight is not None and declared is not None and declared.isdigit():
            in_flight.hold(scope, int(declared))
        scope[UNREAD] = True
        try:
            async with asyncio.timeout(timeout_s):
                whole = await (
                    _read_parts(scope, receive, limit_bytes, in_flight) if body is None else body.read()
                )
        except TimeoutError as late:
            raise BodyTimeoutError(timeout_s) from late
        del scope[UNREAD]
    if len(whole) > limit_bytes:  # it came in chunks, without a length
        raise BodyTooLargeError(limit_bytes)
    if in_flight is not None:
        in_flight.hold(scope, len(whole))
    return whole if coding is None else await _inflated(whole, coding, limit_bytes, scope, in_flight)


async def _inflated(
    body: bytes | memoryview, coding: Coding, limit_bytes: int, scope: Scope, in_flight: InFlight | None
) -> bytes | memoryview:
    """What a body was before; others are served while a long one is inflated."""
    if len(body) <= AT_ONCE_BYTES:
        found = inflate_at_once(body, coding, limit_bytes)
        if found is not None:
            if in_flight is not None:
                in_flight.hold(scope, len(found))
            return found
    known = body, coding, limit_bytes, tensors_at(scope[HEADERS])
    if in_flight is None:
        return await asyncio.to_thread(inflate, *known)

    def counted() -> memoryview:
        try:
            return inflate(*known, partial(in_flight.hold, scope))
        finally:
            in_flight.end_growth()

    in_flight.begin_growth()
    return await asyncio.to_thread(counted)


async def _read_parts(scope: Scope, receive: Receive, limit_bytes: int, in_flight: InFlight | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(_part(message))
        size += len(parts[-1])
        if size > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        if in_flight is not None:
            in_flight.hold(scope, size)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    part: bytes = message.get("body", b"")
    return part


async def left(receive: Receive) -> None:
    """Return once the client has closed the connection; for a request whose body is read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _compressed(reply: Reply, accepted: str) -> Reply:
    """The reply as its caller would have it; others are served while a long one is compressed."""
    size = sum(map(len, reply.parts))
    wish = wish_of(accepted) if size >= LEAST_BYTES else None
    if wish is None:
        return reply
    if size <= AT_ONCE_BYTES:
        return _compressed_at_once(reply, wish)
    return _coded(reply, wish, await asyncio.to_thread(compress, reply.parts, wish))


def _compressed_at_once(reply: Reply, wish: Wish) -> Reply:
    """As `_compressed`, while nobody else is served."""
    if sum(map(len, reply.parts)) < LEAST_BYTES:
        return reply
    return _coded(reply, wish, compress(reply.parts, wish))


def _coded(reply: Reply, wish: Wish, parts: Sequence[bytes] | None) -> Reply:
    """The reply in these parts, if it was worth compressing."""
    if parts is None:
        return reply
    coding = (b"content-encoding", wish.coding.encode())
    return Reply(parts, reply.content_type, (*reply.headers, coding, (b"vary", b"accept-encoding")))


async def respond(
    send: Send,
    status: int,
    parts: Sequence[bytes | memoryview],
    content_type: bytes = JSON,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> int:
    """Send a whole answer and return the length of its body."""
    size = sum(map(len, parts))
    if len(parts) > 1 and size <= JOINED_BYTES:
        parts = (b"".join(parts),)
    all_headers = [*of_body(content_type, size), *headers]
    if len(parts) == 1 and size <= JOINED_BYTES and written_at_once(send, status, all_headers, parts[0]):
        return size
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    last = len(parts) - 1
    for index, part in enumerate(parts):
        await send({"type": "http.response.body", "body": part, "more_body": index < last})
    return size


class Endpoint:
    """An endpoint from a function that returns a reply; known errors become their answers.

    Args:
        route: Its pattern, for metrics.
        path: Matches the paths it serves; its groups are the function's first arguments.
        answer: Returns the reply, or raises.
        problems: What a caller is told of what went wrong.
        compresses: Replies are compressed for whoever accepts that.
        in_flight: Holds what requests hold until they are answered; None where nobody counts it.
        refused: Told of each error that is answered, or that nobody is left to be told.
        at_once: What can be done at once for requests with the same head.
    """

    def __init__(
        self,
        route: str,
        path: re.Pattern[str],
        answer: Callable[[str, str | None, Scope, Receive], Awaitable[Reply]],
        problems: Problems = our_words,
        compresses: bool = True,
        in_flight: InFlight | None = None,
        refused: Callable[[BaseException], None] = lambda failure: None,
        at_once: Callable[[str, str | None, Scope], AtOnce | None] = lambda model, version, scope: None,
    ) -> None:
        self._at_once = at_once
        self._problems = problems
        self._in_flight = in_flight
        self._refused = refused
        self.route = route
        self.path = path
        self._answer = answer
        self._compresses = compresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI; for a router, where this app is mounted below another one."""
        found = scope["path_params"]
        version = LABEL + found["label"] if "label" in found else found.get("version")
        await self.serve(found["model"], version, scope, receive, send, [])

    async def serve(
        self, model: str, version: str | None, scope: Scope, receive: Receive, send: Send, headers: Headers
    ) -> tuple[int, int]:
        """Answer, and return status and length of the body; 499 where nobody was left to answer."""
        try:
            reply = await self._answer(model, version, scope, receive)
        except (ClientGone, AbandonedError) as gone:
            abandoned = AbandonedError()
            abandoned.asked_of = gone.asked_of
            self._refused(abandoned)
            return 499, 0
        except InfoldError as failure:
            status, reply = self._refusal(failure, model)
            if UNREAD in scope or _is_unread(failure):
                headers.append((b"connection", b"close"))
            return status, await respond(send, status, reply.parts, headers=(*headers, *reply.headers))
        finally:
            if self._in_flight is not None:
                self._in_flight.give_back(scope)
        if self._compresses and b"accept-encoding" in headers_by_name(scope):
            reply = await _compressed(reply, _all_of(scope, b"accept-encoding"))
        return 200, await respond(send, 200, reply.parts, reply.content_type, (*headers, *reply.headers))

    def known(self, model: str, version: str | None, scope: Scope) -> Known | None:
        """What can be done at once for requests with this head; None if nothing can.

        Nothing is done, and nothing counted, for those that take longer or would be refused for want of
        room: these are served.
        """
        try:
            at_once = self._at_once(model, version, scope)
        except InfoldError:
            return None
        if at_once is None:
            return None
        in_flight, wish, is_long = self._in_flight, None, False
        if self._compresses and b"accept-encoding" in headers_by_name(scope):
            wish = wish_of(_all_of(scope, b"accept-encoding"))

        def serve(body: bytes, waited_s: float) -> Answer | None:
            nonlocal is_long
            is_full = in_flight is not None and in_flight.held_bytes + len(body) > in_flight.limit_bytes
            if is_full or is_long:
                return None
            try:
                reply = at_once.reply(body, waited_s)
            except InfoldError as failure:
                return self._refusal(failure, model)
            if reply is not None and wish is not None:
                is_long = sum(map(len, reply.parts)) > AT_ONCE_BYTES  # and so will be those that follow
                reply = _compressed_at_once(reply, wish)
            return None if reply is None else (200, reply)

        return Known(self.route, scope["path"], serve, at_once.is_likely)

    def _refusal(self, failure: InfoldError, model: str) -> Answer:
        """The answer to a request that failed."""
        self._refused(failure)
        status, text = self._problems(failure, model)
        if status >= 500 and status not in (501, 503, 504):
            log.error("request failed", exc_info=failure)
        return status, Reply((error_body(text),), headers=headers_of(failure))


def _is_unread(failure: InfoldError) -> bool:
    """There may be more of the request's body, which nobody will read."""
    if isinstance(failure, BodyTooLargeError):
        return not failure.is_decompressed
    return isinstance(failure, BodyTimeoutError)
