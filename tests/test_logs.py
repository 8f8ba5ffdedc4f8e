"""Lines of the log: JSON, one each, whoever writes them and whatever they hold."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold import logs
from infold.logs import ATOMIC_BYTES, AccessLog, configure, request_id, trace_id

ODD_PATHS = [
    "/",
    '/a"b',
    "/a\\b",
    "/zwölf/\U0001f600",
    "/\x00\x1f\x7f\n\r\t",
    "/\u2028",
    "/" + "x" * 9000,
]


class Pieces(io.TextIOBase):
    """What was written, flush by flush."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.pending = ""

    def write(self, text: str) -> int:
        self.pending += text
        return len(text)

    def flush(self) -> None:
        if self.pending:
            self.pieces.append(self.pending)
        self.pending = ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        assert not self.pending
        return [json.loads(line) for line in "".join(self.pieces).split("\n")[:-1]]


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pieces]:
    """The log as configured for worker 3, written here."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = Pieces()
    monkeypatch.setattr("sys.stderr", stream)
    configure("info", worker=3)
    yield stream
    root.handlers[:], root.level = handlers, level
    root.setLevel(level)


@pytest.mark.parametrize("trace", ["", "0af7651916cd43dd8448eb211c80319c"])
@pytest.mark.parametrize("path", ODD_PATHS)
def test_an_access_line_has_the_form_of_every_other_line(stream: Pieces, path: str, trace: str) -> None:
    """The same keys and kinds of values that `logging` writes, whatever the path holds."""

    async def answer() -> None:
        AccessLog("infold.access").line("POST", path, 200, 0.0123456789, 17, "id-1", trace)

    asyncio.run(answer())
    token, other = request_id.set("id-1"), trace_id.set(trace)
    facts = {"method": "POST", "path": path if len(path) <= 512 else f"{path[:512]}..."}
    logging.getLogger("infold.access").info(
        "request answered", extra={**facts, "status": 200, "seconds": 0.012346, "sent_bytes": 17}
    )
    request_id.reset(token)
    trace_id.reset(other)
    own, usual = stream.lines
    assert own.get("trace_id", "") == trace
    assert own.keys() == usual.keys()
    assert {**own, "time": ""} == {**usual, "time": ""}
    assert len(own["time"]) == len(usual["time"]) == len("2026-01-01T00:00:00.000Z")
    assert own["time"] <= usual["time"]
    assert own["worker"] == 3


@given(path=st.text(), status=st.sampled_from([200, 404, 499]), seconds=st.floats(0, 1e6))
def test_any_path_makes_one_line(path: str, status: int, seconds: float) -> None:
    """Of JSON."""
    written = Pieces()

    async def answer() -> None:
        AccessLog("infold.access").line("GET", path, status, seconds, 0, "id")

    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonFormatter())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel("INFO")
    try:
        asyncio.run(answer())
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    (piece,) = written.pieces
    assert piece.count("\n") == 1
    assert json.loads(piece)["event"] == ("client left" if status == 499 else "request answered")


def test_lines_of_one_turn_are_written_together_in_order_and_never_torn(stream: Pieces) -> None:
    """In pieces that a pipe takes whole, counted in bytes."""

    async def answer() -> None:
        log = AccessLog("infold.access")
        for number in range(200):
            log.line("GET", "/" + "ü" * (number % 50), 200, 0.1, number, f"id-{number}")
        assert stream.pieces == []
        await asyncio.sleep(0)
        assert len(stream.lines) == 200
        log.line("GET", "/last", 200, 0.1, 200, "id-200")

    asyncio.run(answer())
    assert [line["sent_bytes"] for line in stream.lines] == list(range(201))
    assert all(len(piece.encode()) <= ATOMIC_BYTES for piece in stream.pieces)
    assert all(piece.endswith("\n") for piece in stream.pieces)
    assert len(stream.pieces) < 40


def test_the_last_lines_are_written_as_the_loop_ends(stream: Pieces) -> None:
    """Also those of requests that are cancelled with it."""

    async def cancelled(log: AccessLog) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.line("GET", "/late", 499, 0.1, 0, "id-2")

    async def serve() -> None:
        log = AccessLog("infold.access")
        late = asyncio.create_task(cancelled(log))
        await asyncio.sleep(0)
        log.line("GET", "/", 200, 0.1, 0, "id-1")
        assert not late.done()

    asyncio.run(serve())
    assert [line["path"] for line in stream.lines] == ["/", "/late"]


def test_a_level_that_hides_it_hides_the_access_line(stream: Pieces) -> None:
    """As with any logger."""

    async def answer() -> None:
        AccessLog("infold.access").line("GET", "/", 200, 0.1, 0, "id")

    configure("warning")
    asyncio.run(answer())
    assert stream.lines == []
