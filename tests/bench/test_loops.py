"""Closed and open loop against a server that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
import uvloop

from infold.bench.answers import Judge
from infold.bench.loops import ClosedLoad, OpenLoad, Timing, Work
from infold.bench.outcomes import Load
from infold.bench.requests import framed, json_body
from infold.bench.target import address_of
from infold.errors import ServerError
from stub_server import Reply, Respond, doubled, stub

TIMING = Timing(0.4, 0.1)


def work(url: str) -> Work:
    """Two requests with their right answers."""
    inputs = [np.array([[n, 3.0]], np.float32) for n in (1, 2)]
    address = address_of(url)
    wires = [framed(address, "/v2/models/double/infer", json_body({"x": each}), []) for each in inputs]
    return Work(address.host, address.port, wires, Judge([{"y": 2 * each} for each in inputs]))


def run(load: ClosedLoad | OpenLoad) -> Load:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load.run())


def closed(respond: Respond, callers: int = 2) -> tuple[Load, ClosedLoad]:
    with stub(respond) as url:
        load = ClosedLoad(work(url), TIMING, callers)
        return run(load), load


def opened(respond: Respond, rate: float = 150, timing: Timing = TIMING) -> Load:
    with stub(respond) as url:
        return run(OpenLoad(work(url), timing, rate))


def test_right_answers_are_right() -> None:
    """Of a closed loop: something was answered, and nothing else happened."""
    row, load = closed(doubled)
    assert row.answers_per_s > 10 and (row.refused, row.failed, row.wrong) == (0, 0, 0)
    assert 0 < row.latencies.p50_ms <= row.latencies.max_ms and load.first_failure is None


def test_an_open_loop_asks_at_the_rate_that_was_asked_for() -> None:
    """Not as fast as the server answers."""
    row = opened(doubled)
    # 60 arrivals are expected; five standard deviations either way.
    assert 20 / 0.4 < row.answers_per_s < 100 / 0.4
    assert (row.refused, row.failed, row.wrong) == (0, 0, 0)


@pytest.mark.parametrize("which", ["closed", "open"])
def test_wrong_answers_are_found(which: str) -> None:
    """One in four answers is another one's."""

    def mixed_up(number: int, body: bytes, headers: dict[str, str]) -> Reply:
        status, right, more = doubled(number, body, headers)
        return status, right.replace(b"6.0", b"7.0") if number % 4 == 0 else right, more

    row = closed(mixed_up)[0] if which == "closed" else opened(mixed_up)
    assert row.wrong > 0 and row.failed == 0


@pytest.mark.parametrize("status", [503, 429])
def test_refusals_are_counted_apart(status: int) -> None:
    """A server that says no does not fail, and its quick no is no quick answer."""

    def refuse(number: int, body: bytes, headers: dict[str, str]) -> Reply:
        return (status, b"{}", {"Retry-After": "1"}) if number % 2 else doubled(number, body, headers)

    row, load = closed(refuse)
    assert row.refused > 0 and row.failed == 0 and row.answers_per_s > 0
    assert load.first_failure is None


def test_other_statuses_are_failures_that_are_told() -> None:
    """With what the server said."""
    row, load = closed(lambda number, body, headers: (500, b'{"error": "boom"}', {}))
    assert row.failed > 0 and row.answers_per_s == 0 and np.isnan(row.latencies.p50_ms)
    assert load.first_failure == 'status 500: {"error": "boom"}'


def test_a_caller_whose_connection_is_closed_comes_back() -> None:
    """A server may close after every answer."""

    def closing(number: int, body: bytes, headers: dict[str, str]) -> Reply:
        status, right, more = doubled(number, body, headers)
        return status, right, {**more, "Connection": "close"}

    row, _ = closed(closing)
    assert row.answers_per_s > 10 and row.failed == 0


def test_something_else_than_http_is_a_failure() -> None:
    """No end of the load waits for it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"SSH-2.0-hello\r\n\r\n")
        await writer.drain()
        writer.close()

    async def both() -> tuple[Load, str | None]:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        load = ClosedLoad(work(f"http://127.0.0.1:{port}"), TIMING, 2)
        try:
            return await load.run(), load.first_failure
        finally:
            server.close()

    row, failure = asyncio.run(both())
    assert row.failed > 0 and failure == "the connection was lost before the answer"


def test_nobody_there_is_an_error() -> None:
    """At the start of a load, in one line."""
    with stub(doubled) as url:
        pass
    with pytest.raises(ServerError, match="cannot connect"):
        run(ClosedLoad(work(url), TIMING, 1))


def stalling(seconds: float) -> Respond:
    """All answers wait while one of them takes long."""
    lock, stall_at = threading.Lock(), 0.0

    def respond(number: int, body: bytes, headers: dict[str, str]) -> Reply:
        nonlocal stall_at
        with lock:
            stall_at = stall_at or time.monotonic() + 0.3
            if time.monotonic() > stall_at:
                stall_at = float("inf")
                time.sleep(seconds)
        return doubled(number, body, headers)

    return respond


def test_a_stall_is_seen_by_all_who_would_have_come_meanwhile() -> None:
    """Latency of an open loop counts from the schedule; a closed loop hardly notices."""
    row = opened(stalling(0.4), timing=Timing(0.8, 0.1))
    # Half of the time nothing is answered, so a quarter of all waits longer than half of that.
    assert row.latencies.p90_ms > 200 and row.latencies.max_ms > 350
    with stub(stalling(0.4)) as url:
        load = run(ClosedLoad(work(url), Timing(0.8, 0.1), 1))
    assert load.latencies.max_ms > 350 and load.latencies.p90_ms < 100


def test_due_requests_wait_for_a_connection_and_their_latency_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one connection to a server that takes 20 ms, 200 a second cannot be had."""
    monkeypatch.setattr("infold.bench.loops.MOST_CONNECTIONS", 1)

    def slow(number: int, body: bytes, headers: dict[str, str]) -> Reply:
        time.sleep(0.02)
        return doubled(number, body, headers)

    row = opened(slow, rate=200)
    assert row.answers_per_s < 52 and row.latencies.p99_ms > 200
