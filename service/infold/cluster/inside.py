"""An ASGI app asked within its own process: a question in, an answer out, no socket between."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message

from infold.cluster.questions import Answer, Headers, Question

__all__ = ["ask_inside"]

# What an app that ends without a word has met: its caller left.
NOBODY = 499


async def ask_inside(app: ASGIApp, question: Question, body: bytes) -> Answer:
    """The app's answer; one whose asker leaves is told so, as by a server.

    Args:
        app: Answers.
        question: The request.
        body: Of the request.
    """
    gone = asyncio.Event()
    asking = asyncio.ensure_future(_ask(app, question, body, gone))
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        gone.set()  # what it has begun it ends by itself: a run, a lease, its counts
        asking.add_done_callback(_forget)
        raise


async def _ask(app: ASGIApp, question: Question, body: bytes, gone: asyncio.Event) -> Answer:
    status, headers, parts = NOBODY, Headers(), list[bytes]()
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], [(bytes(k), bytes(v)) for k, v in message["headers"]]
        else:
            parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": question.method,
        "path": question.path,
        "raw_path": question.path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": question.query,
        "headers": list(question.headers),
        "client": None,
        "server": None,
    }
    await app(scope, receive, send)
    return Answer(status, headers, bytes(parts[0]) if len(parts) == 1 else b"".join(parts))


def _forget(asked: asyncio.Future[Answer]) -> None:
    """Nobody waits for it; what went wrong is in the app's own log."""
    if not asked.cancelled():
        asked.exception()
