"""Below the routes, plain ASGI: bodies in, answers out, one access line and one id a request."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infold.errors import BodyTooLargeError, InfoldError, UnsupportedMediaError
from infold.logs import request_id
from infold.rest.metrics import Metrics
from infold.rest.problems import error_body, headers_of, status_of

__all__ = ["ClientGone", "Edge", "Endpoint", "header", "read_body", "respond"]

log = logging.getLogger("infold.access")

SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class ClientGone(Exception):  # noqa: N818 - nobody's error
    """The client closed the connection before its request was complete."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name (lower case), or None."""
    value = next((value for key, value in scope["headers"] if key == name), None)
    return None if value is None else value.decode("latin-1")


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body of a request.

    Raises:
        BodyTooLargeError: It is, or says it is, above the limit; nothing more is read.
        UnsupportedMediaError: It is compressed.
        ClientGone: The client left.
    """
    encoding = header(scope, b"content-encoding")
    if encoding not in (None, "", "identity"):
        raise UnsupportedMediaError(f"content-encoding '{encoding}' is not served")
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit_bytes:
        raise BodyTooLargeError(limit_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def respond(
    send: Send,
    status: int,
    body: bytes,
    *,
    content_type: bytes = b"application/json",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Send a whole answer."""
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
            *(headers or ()),
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})


class Endpoint:
    """An ASGI endpoint from a function that returns a body; known errors become their answers.

    Args:
        path: The route's pattern, for metrics.
        answer: Returns the body of a 200, or raises.
    """

    def __init__(self, path: str, answer: Callable[[Scope, Receive], Awaitable[bytes]]) -> None:
        self._path = path
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        scope["infold.route"] = self._path
        try:
            body = await self._answer(scope, receive)
        except InfoldError as failure:
            status = status_of(failure)
            if status >= 500 and status not in (503, 504):
                log.error("request failed", exc_info=failure)
            headers = headers_of(failure)
            if isinstance(failure, BodyTooLargeError):
                headers.append((b"connection", b"close"))  # the rest of the body is not read
            await respond(send, status, error_body(str(failure)), headers=headers)
        except ClientGone:
            return
        else:
            await respond(send, 200, body)


class Edge:
    """The outermost layer: request id, access line, metrics, and an answer to what nobody caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = header(scope, b"x-request-id")
        identity = given if given and SANE_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(identity)
        status, sent_bytes = 0, 0

        async def send_on(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            log.exception("request failed")
            if status == 0:
                text = f"internal error; the server's log has it under request id {identity}"
                await respond(send_on, 500, error_body(text))
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            self._metrics.answered(route, scope["method"], status or 499, seconds)
            log.info(
                "request answered" if status else "client left",
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status or 499,
                    "seconds": round(seconds, 6),
                    "sent_bytes": sent_bytes,
                },
            )
            request_id.reset(token)


def _route(scope: Scope) -> str:
    """The route's pattern, so that labels stay few whatever paths are asked for."""
    return str(scope.get("infold.route") or getattr(scope.get("route"), "path", "unmatched"))
