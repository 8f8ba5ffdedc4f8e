"""An app that is asked in its own process meets what it would meet behind a server."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from infold.cluster.inside import NOBODY, ask_inside
from infold.cluster.questions import Question

QUESTION = Question("POST", "/v2/models/ä/infer", b"a=b", [(b"x-one", b"1"), (b"x-one", b"2")])


async def test_a_question_is_a_request_and_what_is_sent_an_answer() -> None:
    """Path, query, every header, and parts of a body, which may be views."""
    seen: Scope = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope)
        message = await receive()
        assert not message["more_body"]
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-two", b"3")]})
        await send({"type": "http.response.body", "body": memoryview(message["body"]), "more_body": True})
        await send({"type": "http.response.body", "body": b"!"})

    answer = await ask_inside(app, QUESTION, b"hello")
    assert answer == (201, [(b"x-two", b"3")], b"hello!")
    assert (seen["path"], seen["query_string"]) == ("/v2/models/ä/infer", b"a=b")
    assert seen["headers"] == [(b"x-one", b"1"), (b"x-one", b"2")]


async def test_who_leaves_is_told_of_and_the_app_ends_by_itself() -> None:
    """A run that has begun is not torn out of its thread."""
    has_begun, has_ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        has_begun.set()
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.sleep(0)
        has_ended.set()
        raise KeyError("nobody waits for this, and nobody is warned of it")

    asking = asyncio.create_task(ask_inside(app, QUESTION, b""))
    await has_begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await has_ended.wait()


async def test_an_app_that_says_nothing_has_nobody_to_say_it_to() -> None:
    """As infold ends where its caller has left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    assert (await ask_inside(app, QUESTION, b"")).status == NOBODY
