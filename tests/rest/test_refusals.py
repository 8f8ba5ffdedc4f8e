"""Refusals by reason: every error has one, each is counted once, and nobody can grow the labels."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from starlette.types import Message

from infold.errors import (
    InfoldError,
    InvalidInputError,
    ModelNotReadyError,
    QueueFullError,
    RequestError,
    SessionError,
    UnsupportedMediaError,
)
from infold.rest.app import App, create_app
from infold.rest.bounds import REFUSED as CUT
from infold.rest.bounds import Bounds
from infold.rest.metrics import Metrics
from infold.serving import Servable
from infold.settings import Settings

DOUBLE = "double (float[batch, 2] x) => (float[batch, 2] y) { y = Add(x, x) }"
LOOKUP = """lookup (int64[batch] index) => (float[batch] value)
    <float[3] table = {10, 20, 30}> { value = Gather(table, index) }"""
Counted = dict[tuple[str, str, str], float]


def subclasses(of: type[InfoldError]) -> Iterator[type[InfoldError]]:
    """All of them, however far down."""
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_of_a_request_has_its_reason() -> None:
    """A plain word, none of them left to the root's; a kind of an error may share that error's."""
    found = {each.__name__: each.reason for each in subclasses(RequestError)}
    assert len(found) >= 18
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", reason) for reason in found.values())
    assert [name for name, reason in found.items() if reason == InfoldError.reason] == []
    assert SessionError.reason == "session_failed"
    own = [each for each in subclasses(RequestError) if "reason" in vars(each)]
    assert len({each.reason for each in own}) == len(own), "two errors, one word"
    assert {each.reason for each in subclasses(InvalidInputError)} == {"invalid_input"}
    assert {each.reason for each in subclasses(UnsupportedMediaError)} == {"unsupported_media"}


def test_every_reason_is_in_the_documentation() -> None:
    """And what is there is one."""
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    section = page.partition("## Reasons")[2].partition("\n## ")[0]
    told = {
        word for row in re.findall(r"^\| (`[^|]*) \|", section, re.M) for word in re.findall(r"`(\w+)`", row)
    }
    errors = {each.reason for each in subclasses(RequestError)}
    assert told == errors | {SessionError.reason, InfoldError.reason, *CUT}


def test_what_names_nobody_counts_for_nobody() -> None:
    """Also what is no error of ours; a model that is there may have no version that is."""
    metrics = Metrics()
    for _ in range(2):
        metrics.refused(RequestError("x"))
    metrics.refused(UnicodeDecodeError("utf-8", b"", 0, 0, "what any client may bring about"))
    metrics.refused(ModelNotReadyError("m", None, "failed"))
    metrics.refused(ModelNotReadyError("m", 3, "loading"))
    assert counted(metrics) == {
        ("", "", "internal"): 3,
        ("m", "", "not_ready"): 1,
        ("m", "3", "not_ready"): 1,
    }


def counted(metrics: Metrics) -> Counted:
    """Refusals by model, version and reason."""
    rows = metrics.snapshot()["counters"]["infold_refusals_total"]
    return {(model, version, reason): count for (model, version, reason), count in rows}


# -- by the service --------------------------------------------------------------------------------


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    for name, text in (("double", DOUBLE), ("lookup", LOOKUP)):
        folder = tmp_path / "models" / name / "1"
        folder.mkdir(parents=True)
        graph = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
        onnx.save(graph, str(folder / "model.onnx"))
    settings = Settings(
        repository=tmp_path / "models",
        cache_dir=tmp_path / "cache",
        max_body_bytes=2000,
        body_timeout_s=0.05,
    )
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        yield made


def body_of(name: str, datatype: str, shape: list[int], *data: float) -> bytes:
    return json.dumps(
        {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}
    ).encode()


GOOD = body_of("x", "FP32", [1, 2], 1, 2)
INFER = "/v2/models/double/infer"
MINE = ("double", "1")
NOBODY = ("", "")
REFUSED: dict[str, tuple[str, bytes, dict[str, str], int, tuple[str, str], str]] = {
    "no JSON": (INFER, b"{", {}, 400, MINE, "malformed"),
    "no number": (INFER, GOOD, {"inference-header-content-length": "x"}, 400, NOBODY, "malformed"),
    "a wrong shape": (INFER, body_of("x", "FP32", [1, 3], 1, 2, 3), {}, 400, MINE, "invalid_input"),
    "a wrong type": (INFER, body_of("x", "INT8", [1, 2], 1, 2), {}, 400, MINE, "invalid_input"),
    "predict, a wrong shape": (
        "/v1/models/double:predict", b'{"instances": [[1]]}', {}, 400, MINE, "invalid_input",
    ),
    "an index out of range": (
        "/v2/models/lookup/infer", body_of("index", "INT64", [1], 3), {}, 400,
        ("lookup", "1"), "session_failed",
    ),
    "a stranger": ("/v2/models/stranger/infer", GOOD, {}, 404, NOBODY, "not_found"),
    "a strange version": ("/v2/models/double/versions/7/infer", GOOD, {}, 404, NOBODY, "not_found"),
    "a strange label": ("/v1/models/double/labels/odd:predict", GOOD, {}, 404, NOBODY, "not_found"),
    "no version": ("/v2/models/double/versions/x/infer", GOOD, {}, 404, NOBODY, "not_found"),
    "too long": (INFER, b" " * 3000, {}, 413, MINE, "body_too_large"),
    "too long, inflated": (
        INFER, gzip.compress(b" " * 3000), {"content-encoding": "gzip"}, 413, MINE, "body_too_large",
    ),
    "another coding": (INFER, GOOD, {"content-encoding": "br"}, 415, MINE, "unsupported_media"),
    "another type": (INFER, GOOD, {"content-type": "video/mp4"}, 415, NOBODY, "unsupported_media"),
    "a picture": (INFER, GOOD, {"content-type": "image/png"}, 415, MINE, "unsupported_media"),
    "too late": (
        INFER, GOOD[:-1] + b', "parameters": {"timeout": 1}}', {"x-way": "runner"}, 504, MINE, "deadline",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_counts_once_for_its_reason(app: App, case: str) -> None:
    """For the version that it was meant for, as soon as that is known to be there."""
    path, body, headers, status, version, reason = REFUSED[case]
    if headers.pop("x-way", None):
        app.state.service.models.find("double")._batcher._inline._rows = 0  # or it would not wait at all
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        answer = await client.post(path, content=body, headers={"content-type": "application/json"} | headers)
    assert answer.status_code == status, answer.text
    assert counted(app.state.service.metrics) == {(*version, reason): 1}


async def test_an_answer_is_no_refusal(app: App) -> None:
    """However it is asked for."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        for path, body in ((INFER, GOOD), ("/v1/models/double:predict", b'{"instances": [[1, 2]]}')):
            assert (await client.post(path, content=body)).status_code == 200
        assert (await client.get("/v2/models/stranger")).status_code == 404
    assert counted(app.state.service.metrics) == {}, "routes without tensors are not counted"


async def test_names_that_strangers_make_up_are_no_labels(app: App) -> None:
    """However many; the page stays as long as it was."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        for number in range(50):
            for path in (
                f"/v2/models/stranger{number}/infer",
                f"/v2/models/double/versions/{number + 2}/infer",
                f"/v2/models/double/versions/stranger{number}/infer",
                f"/v1/models/double/labels/stranger{number}:predict",
            ):
                assert (await client.post(path, content=GOOD)).status_code == 404
        page = (await client.get("/metrics")).text
    assert counted(app.state.service.metrics) == {("", "", "not_found"): 200}
    assert "stranger" not in page


async def test_a_model_that_is_not_ready_is_named(app: App) -> None:
    """It is one of ours, whatever became of it."""
    servable = app.state.service.models.find("double")
    servable.state = "draining"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        assert (await client.post(INFER, content=GOOD)).status_code == 503
    servable.state = "ready"
    assert counted(app.state.service.metrics) == {("double", "1", "not_ready"): 1}


async def test_a_full_queue_is_the_model_s(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before the body is read."""

    def refuse(servable: Servable, deadline: float) -> None:
        raise QueueFullError(0)

    monkeypatch.setattr(Servable, "check_room", refuse)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        assert (await client.post(INFER, content=GOOD)).status_code == 503
    assert counted(app.state.service.metrics) == {("double", "1", "queue_full"): 1}


async def test_a_body_that_does_not_come_and_a_caller_who_leaves(app: App) -> None:
    """Both are told apart; nobody is there to be told of the second."""

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    for receive in (never, gone, gone):
        await post(app, receive)
    assert counted(app.state.service.metrics) == {
        ("double", "1", "body_timeout"): 1,
        ("double", "1", "abandoned"): 2,
    }


async def test_a_mistake_of_ours_is_counted_as_one(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model that it happened to."""

    def broken(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("infold.rest.v2.decode_infer", broken)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        assert (await client.post(INFER, content=GOOD)).status_code == 500
    assert counted(app.state.service.metrics) == {("double", "1", "internal"): 1}


async def post(app: App, receive: Any) -> list[Message]:
    """What is sent to a caller."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return sent


def test_connections_that_are_refused_are_counted_for_nobody() -> None:
    """By whoever refuses them, and shown beside the others."""
    bounds = Bounds.of(Settings())
    metrics = Metrics(bounds.refused)
    for _ in range(2):
        bounds.refuse("connections")
    metrics.refused(QueueFullError(1))
    assert counted(metrics) == {("", "", "connections"): 2, ("", "", "queue_full"): 1}
