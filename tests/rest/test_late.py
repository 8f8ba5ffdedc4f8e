"""An app that is made while requests come already."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from infold.rest.edge import Edge
from infold.rest.late import LateApp
from infold.rest.metrics import Metrics
from infold.rest.server import described_late
from infold.rest.service import Service, edge_of
from infold.runtime import Device, Placement
from infold.settings import Settings


class Made:
    """An app that is made when it is told to.

    Attributes:
        times: How often it was made.
        on_loop: It was made where the event loop runs.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        self.may = threading.Event()
        self.times = 0
        self.on_loop = False
        self._failure = failure
        self._loop = threading.get_ident()

    def __call__(self) -> ASGIApp:
        assert self.may.wait(20)
        self.times += 1
        self.on_loop = threading.get_ident() == self._loop
        if self._failure is not None:
            raise self._failure

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse(scope["path"])(scope, receive, send)

        return app


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def turns(condition: Callable[[], bool] = lambda: False, most: int = 20) -> None:
    """Let others go on for a while."""
    for _ in range(most):
        if not condition():
            await asyncio.sleep(0)


async def started(*asked: Awaitable[httpx.Response]) -> list[asyncio.Task[httpx.Response]]:
    tasks = [asyncio.ensure_future(each) for each in asked]
    await turns()
    return tasks  # type: ignore[return-value]


async def test_requests_that_come_before_the_app_wait_for_it() -> None:
    """All of them for the same one, which another thread makes; later ones find it there."""
    made = Made()
    app = LateApp(made)
    app.begin()
    async with client(app) as asking:
        waiting = await started(asking.get("/a"), asking.get("/b"))
        assert not any(each.done() for each in waiting)
        made.may.set()
        assert [(await each).text for each in waiting] == ["/a", "/b"]
        assert (await asking.get("/c")).text == "/c"
    assert (made.times, made.on_loop) == (1, False)


async def test_a_request_makes_the_app_where_nobody_has_begun() -> None:
    """As where it is used without a server."""
    made = Made()
    made.may.set()
    async with client(LateApp(made)) as asking:
        answers = await asyncio.gather(*(asking.get(f"/{index}") for index in range(5)))
    assert [each.text for each in answers] == [f"/{index}" for index in range(5)]
    assert made.times == 1


async def test_one_that_leaves_meanwhile_takes_nothing_with_it() -> None:
    """The app is made all the same, for whoever stays and whoever comes."""
    made = Made()
    app = LateApp(made)
    async with client(app) as asking:
        gone, stays = await started(asking.get("/gone"), asking.get("/stays"))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        made.may.set()
        assert (await stays).text == "/stays"
        assert (await asking.get("/later")).text == "/later"
    assert made.times == 1


async def test_an_app_that_cannot_be_made_is_told_and_tried_again_by_the_next_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """500 to those who wait and those who come, each with a line in the log, beside one of its own."""
    made = Made(ImportError("no such module"))
    late = LateApp(made)
    late.begin()
    app = Edge(late, Metrics())
    async with client(app) as asking:
        (waiting,) = await started(asking.get("/a"))
        made.may.set()
        answers = [await waiting, await asking.get("/b"), await asking.get("/b")]
    assert [each.status_code for each in answers] == [500] * 3
    for each in answers:
        assert each.headers["x-request-id"] in each.json()["error"]
        assert "module" not in each.text
    lines = [
        (record.name, record.message, str(record.exc_info[1])) for record in caplog.records if record.exc_info
    ]
    assert lines.count(("infold.rest.late", "app not made", "no such module")) == 3
    assert lines.count(("infold.rest.edge", "request failed", "no such module")) == 3
    assert made.times == 3
    made._failure = None
    async with client(app) as asking:
        assert (await asking.get("/c")).text == "/c"


async def test_a_failure_is_told_though_nobody_asks(caplog: pytest.LogCaptureFixture) -> None:
    """And nothing else is: no complaint of asyncio's about it."""
    made = Made(ImportError("no such module"))
    app = LateApp(made)
    with caplog.at_level(logging.INFO):
        app.begin()
        made.may.set()
        while not caplog.records:
            await asyncio.sleep(0)
        del app
        await turns()
    assert [record.message for record in caplog.records] == ["app not made"]


# -- FastAPI ---------------------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """One that has no models."""
    monkeypatch.setattr(gc, "freeze", lambda: None)  # what these tests leave behind is not for ever
    settings = Settings(repository=tmp_path, cache_dir=tmp_path / "cache", load_trial=False)
    return Service(settings, Placement(Device.CPU, "asked for"))


async def test_what_fastapi_serves_is_there_for_whoever_asks(service: Service) -> None:
    """Behind the same edge as what carries tensors."""
    async with client(edge_of(service, described_late(service))) as asking:
        answer = await asking.get("/v2/health/live")
        assert (answer.status_code, answer.json()) == (200, {"live": True})
        assert answer.headers["x-request-id"]
    await service.close()


async def test_without_fastapi_tensors_are_answered_all_the_same(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be imported fails only what needs it."""
    monkeypatch.setitem(sys.modules, "infold.rest.app", None)
    async with client(edge_of(service, described_late(service))) as asking:
        for _ in range(2):
            assert (await asking.get("/v2/health/live")).status_code == 500
            answer = await asking.post("/v2/models/nobody/infer", json={})
            assert (answer.status_code, "nobody" in answer.text) == (404, True)
    await service.close()
