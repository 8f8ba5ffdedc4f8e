"""Ray's proxies say what they say in infold's words."""

from __future__ import annotations

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from infold.cluster.proxies import InOurWords, middlewares


async def ask(*messages: Message, path: str = "/v2/models/m/infer") -> httpx.Response:
    """What a caller gets of a proxy that sends this."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))

    transport = httpx.ASGITransport(InOurWords(proxy))
    async with httpx.AsyncClient(transport=transport, base_url="http://there") as caller:
        return await caller.post(path)


def start(status: int, kind: bytes = b"text/plain", *more: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *more]}


def body(content: bytes, more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more_body}


async def test_a_request_that_nobody_has_answered_is_to_be_sent_again() -> None:
    """Ray leaves it to the server when an ingress dies, which would say 500."""
    answer = await ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"error": "the ingress that had the request is gone"}


@pytest.mark.parametrize(("rays", "ours"), [(503, 503), (404, 404), (408, 504)])
async def test_plain_words_become_an_error(rays: int, ours: int) -> None:
    """With the status that infold gives to the same."""
    answer = await ask(start(rays), body(b"too ", more_body=True), body(b"many"))
    assert (answer.status_code, answer.json()) == (ours, {"error": "too many"})


async def test_when_to_ask_again_is_kept() -> None:
    """Where Ray says it."""
    answer = await ask(start(503, b"text/plain", (b"retry-after", b"7")), body(b"full"))
    assert answer.headers.get_list("retry-after") == ["7"]


async def test_what_infold_says_is_left_alone() -> None:
    """Errors and answers, whatever they are."""
    refused = await ask(start(400, b"application/json"), body(b'{"error":"x"}'))
    assert (refused.status_code, refused.json()) == (400, {"error": "x"})
    page = await ask(start(200), body(b"infold_x ", more_body=True), body(b"1"))
    assert page.text == "infold_x 1"


async def test_what_is_rays_own_is_left_alone() -> None:
    """Its probes read its words."""
    answer = await ask(start(503), body(b"starting"), path="/-/healthz")
    assert answer.text == "starting"


def test_ray_is_given_a_list() -> None:
    """Of starlette's middlewares, and nothing else."""
    assert [each.cls for each in middlewares()] == [InOurWords]
