"""Ray's HTTP proxies in infold's words: what they say themselves, and where nobody has said anything.

Ray calls `middlewares` in each proxy where `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` is
`infold.cluster.proxies:middlewares` in the environment that its nodes are started with.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infold.rest.problems import error_body

__all__ = ["InOurWords", "middlewares"]

# Of Ray itself: its health and its routes.
OWN = "/-/"
LOST = "the ingress that had the request is gone"


class InOurWords:
    """A proxy whose errors look as all others do.

    Args:
        app: The proxy, or what is left of it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"].startswith(OWN):
            await self._app(scope, receive, send)
            return
        reply = _Reply(send)
        await self._app(scope, receive, reply.send)
        if not reply.has_begun:  # Ray leaves it to the server then, which says 500
            await reply.say(503, LOST)


class _Reply:
    """What the proxy sends, with its plain words put into ours."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._plain: Message | None = None
        self._words = b""
        self.has_begun = False

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            if message["status"] >= 400 and _is_plain(message):
                self._plain = message
                return
        if self._plain is None:
            await self._send(message)
            return
        self._words += message.get("body", b"")
        if not message.get("more_body", False):
            kept = [each for each in self._plain["headers"] if each[0] == b"retry-after"]
            status = 504 if self._plain["status"] == 408 else self._plain["status"]
            await self.say(status, self._words.decode("utf-8", "replace"), *kept)

    async def say(self, status: int, words: str, *kept: tuple[bytes, bytes]) -> None:
        """Send an error that is whole."""
        body = error_body(words)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *kept]
        if status == 503 and not kept:
            headers.append((b"retry-after", b"1"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _is_plain(message: Message) -> bool:
    return any(
        key == b"content-type" and value.startswith(b"text/plain") for key, value in message["headers"]
    )


def middlewares() -> list[Middleware]:
    """What Ray is to put around each of its proxies."""
    return [Middleware(InOurWords)]
