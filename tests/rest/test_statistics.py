"""The protocol's statistics object: what was counted, in its words, of one process and of several."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest.app import App, create_app
from infold.rest.counting import Snapshot
from infold.rest.metrics import MOST_SIZES, Metrics
from infold.rest.statistics import statistics
from infold.serving import Spent
from infold.settings import Settings
from servers import slow_model

M = ("m", 1)


def of(*snapshots: Snapshot, version: tuple[str, int] = M) -> dict[str, Any]:
    """The statistics of one version."""
    (found,) = statistics(snapshots, [version])["model_stats"]
    assert isinstance(found, dict)
    return found


def joined_run(metrics: Metrics, spent: Spent | None = None) -> None:
    """Three requests of eight rows in all share a run."""
    for wait, took in ((0.5, 1.0), (0.25, 0.75), (0.125, 0.5)):
        metrics.waited(*M, wait)
        metrics.of_model(*M).answered.add(took)
    metrics.batch_ran(*M, 3, 8, spent or Spent(0.001, 0.02, 0.3))


def test_a_joined_run_of_three_requests_and_eight_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are of requests, inferences of rows, executions of runs; a run counts for each request."""
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.1239)
    metrics = Metrics()
    joined_run(metrics)
    nothing = {"count": 0, "ns": 0}
    assert of(metrics.snapshot()) == {
        "name": "m",
        "version": "1",
        "last_inference": 1_700_000_000_123,
        "inference_count": 8,
        "execution_count": 1,
        "inference_stats": {
            "success": {"count": 3, "ns": 2_250_000_000},
            "fail": nothing,
            "queue": {"count": 3, "ns": 875_000_000},
            "compute_input": {"count": 3, "ns": 3_000_000},
            "compute_infer": {"count": 3, "ns": 60_000_000},
            "compute_output": {"count": 3, "ns": 900_000_000},
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": 8,
                "compute_input": {"count": 1, "ns": 1_000_000},
                "compute_infer": {"count": 1, "ns": 20_000_000},
                "compute_output": {"count": 1, "ns": 300_000_000},
            }
        ],
        "memory_usage": [],
    }


def test_every_number_is_a_whole_one() -> None:
    """Clients in other languages read them as such."""
    metrics = Metrics()
    joined_run(metrics)

    def check(value: object) -> None:
        if isinstance(value, dict):
            for each in value.values():
                check(each)
        elif isinstance(value, list):
            for each in value:
                check(each)
        else:
            assert isinstance(value, str) or type(value) is int

    check(of(metrics.snapshot()))


def test_what_failed_is_no_success() -> None:
    """And ran nothing."""
    metrics = Metrics()
    metrics.of_model(*M).refused.add(0.5)
    metrics.of_model(*M).refused.add(1.0)
    found = of(metrics.snapshot())
    stats = found["inference_stats"]
    assert stats["fail"] == {"count": 2, "ns": 1_500_000_000}
    assert stats["success"] == stats["queue"] == stats["compute_infer"] == {"count": 0, "ns": 0}
    assert (found["inference_count"], found["execution_count"], found["last_inference"]) == (0, 0, 0)
    assert found["batch_stats"] == []


def test_runs_of_each_size_are_told_the_smallest_first() -> None:
    """By number: 2 comes before 10."""
    metrics = Metrics()
    for rows, times in ((10, 1), (2, 3), (1, 2), (300, 1)):
        for _ in range(times):
            metrics.batch_ran(*M, 1, rows, Spent(0.0, rows / 1000, 0.0))
    batches = of(metrics.snapshot())["batch_stats"]
    assert [(each["batch_size"], each["compute_infer"]) for each in batches] == [
        (1, {"count": 2, "ns": 2_000_000}),
        (2, {"count": 3, "ns": 6_000_000}),
        (10, {"count": 1, "ns": 10_000_000}),
        (300, {"count": 1, "ns": 300_000_000}),
    ]


def test_runs_of_very_many_sizes_are_not_all_told_apart() -> None:
    """Callers who may send any number of rows must not fill the memory with numbers; all of them count."""
    metrics = Metrics()
    for rows in range(3000):
        metrics.batch_ran(*M, 1, rows, Spent())
    found = of(metrics.snapshot())
    assert [each["batch_size"] for each in found["batch_stats"]] == list(range(MOST_SIZES))
    assert (found["execution_count"], found["inference_count"]) == (3000, sum(range(3000)))


def test_versions_and_models_are_told_apart_in_the_order_asked() -> None:
    """One that was never asked anything is told with zeros."""
    metrics = Metrics()
    for name, version, rows in (("m", 1, 1), ("m", 2, 2), ("m", 12, 3), ("other", 1, 4)):
        metrics.batch_ran(name, version, 1, rows, Spent())
    asked = [("m", 12), ("other", 1), ("m", 1), ("idle", 7)]
    found = statistics([metrics.snapshot()], asked)["model_stats"]
    told = [(each["name"], each["version"], each["inference_count"]) for each in found]
    assert told == [("m", "12", 3), ("other", "1", 4), ("m", "1", 1), ("idle", "7", 0)]
    assert [[batch["batch_size"] for batch in each["batch_stats"]] for each in found] == [[3], [4], [1], []]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(0, 9)), max_size=30))
def test_processes_together_tell_what_one_would(runs: list[tuple[int, int, int]]) -> None:
    """Wherever a run was; times in sixteenths of a second, so that sums are exact."""
    together, apart = Metrics(), [Metrics(), Metrics(), Metrics()]
    for process, requests, rows in runs:
        for each in (together, apart[process]):
            each.batch_ran(*M, requests, rows, Spent(rows / 16, requests / 16, 0.25))
            each.waited(*M, rows / 16)
            each.of_model(*M).answered.add(requests / 16)
            if rows == 0:
                each.of_model(*M).refused.add(0.5)
    told, alone = of(*(each.snapshot() for each in apart)), of(together.snapshot())
    told["last_inference"] = alone["last_inference"] = 0  # a clock's
    assert told == alone


def test_the_last_run_is_the_latest_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not their sum, whichever is told first; one that has run nothing says nothing."""
    processes = [Metrics(), Metrics(), Metrics()]
    for metrics, at in zip(processes, (2000.5, 3000.25), strict=False):
        monkeypatch.setattr("time.time", lambda at=at: at)
        joined_run(metrics)
    snapshots = [each.snapshot() for each in processes]
    assert of(*snapshots)["last_inference"] == of(*reversed(snapshots))["last_inference"] == 3_000_250


def test_the_numbers_of_a_worker_that_was_started_again_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By way of JSON, as they come; also those of versions that it has not run yet."""
    first, second = Metrics(), Metrics()
    monkeypatch.setattr("time.time", lambda: 1000.0)
    joined_run(first)
    first.batch_ran("gone", 3, 1, 5, Spent(0.0, 0.5, 0.0))
    second.go_on_from(json.loads(json.dumps(first.snapshot())))
    assert of(second.snapshot()) == of(first.snapshot())
    assert of(second.snapshot(), version=("gone", 3))["batch_stats"][0]["batch_size"] == 5
    monkeypatch.setattr("time.time", lambda: 2000.0)
    joined_run(second)
    second.batch_ran(*M, 1, 1, Spent())
    found = of(second.snapshot())
    assert (found["inference_count"], found["execution_count"]) == (17, 3)
    assert found["last_inference"] == 2_000_000
    assert found["inference_stats"]["success"]["count"] == 6
    assert found["inference_stats"]["compute_infer"] == {"count": 7, "ns": 120_000_000}
    assert [(each["batch_size"], each["compute_infer"]["count"]) for each in found["batch_stats"]] == [
        (1, 1),
        (8, 2),
    ]


# -- of requests, by the service ----------------------------------------------------------------------

LOOKUP = """<ir_version: 8, opset_import: ["": 17]>
    lookup (int64[batch] index) => (float[batch] value)
    <float[3] table = {10, 20, 30}> { value = Gather(table, index) }"""
LOOPS = 10**12  # nobody waits that long


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A quick model, and one that takes as long as it is told."""
    folder = tmp_path / "models/lookup/1"
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(LOOKUP), str(folder / "model.onnx"))
    toml = (
        '[session]\nruns = 1\nwide = "never"\ninline = "never"\n[batching]\nmax_rows = 1\ncapacity_rows = 1\n'
    )
    (slow_model(tmp_path / "models") / "slow/model.toml").write_text(toml)
    settings = Settings(
        repository=tmp_path / "models", cache_dir=tmp_path / "cache", load_trial=False, max_body_bytes=4096
    )
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        yield made


def body_of(model: str, *values: int, timeout_us: int | None = None) -> bytes:
    """A request as JSON."""
    name = "n" if model == "slow" else "index"
    tensor = {"name": name, "shape": [len(values)], "datatype": "INT64", "data": values}
    parameters = {} if timeout_us is None else {"parameters": {"timeout": timeout_us}}
    return json.dumps({"inputs": [tensor], **parameters}).encode()


async def ask(app: App, model: str, body: bytes) -> int:
    """The status of an answer."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        return (await client.post(f"/v2/models/{model}/infer", content=body)).status_code


async def told(app: App, model: str) -> dict[str, Any]:
    """What the service says of a model."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        (found,) = (await client.get(f"/v2/models/{model}/stats")).json()["model_stats"]
    assert isinstance(found, dict)
    return found


async def counts(app: App, model: str) -> tuple[int, int, int, int]:
    """Successes, failures, rows and runs."""
    found = await told(app, model)
    stats = found["inference_stats"]
    return (
        stats["success"]["count"],
        stats["fail"]["count"],
        found["inference_count"],
        found["execution_count"],
    )


async def test_an_answer_is_a_success(app: App) -> None:
    """Of as many rows as it had, wherever it was run."""
    assert await ask(app, "lookup", body_of("lookup", 0, 1, 2)) == 200
    assert await ask(app, "lookup", body_of("lookup", 1)) == 200
    found = await told(app, "lookup")
    assert await counts(app, "lookup") == (2, 0, 4, 2)
    assert [each["batch_size"] for each in found["batch_stats"]] == [1, 3]
    stats = found["inference_stats"]
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert stats[stage]["count"] == 2, stage
    spent = sum(stats[stage]["ns"] for stage in ("compute_input", "compute_infer", "compute_output"))
    assert 0 < spent <= stats["success"]["ns"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (body_of("lookup", 1).replace(b"[1]", b"[2]", 1), 400),
        (body_of("lookup", 3), 400),
        (body_of("lookup", 1).replace(b"INT64", b"INT32"), 400),
        (b" " * 5000 + body_of("lookup", 1), 413),
    ],
    ids=["no JSON", "shape", "an index out of range", "datatype", "too long"],
)
async def test_a_refused_request_is_a_failure(app: App, body: bytes, status: int) -> None:
    """Whoever refuses it: the reader, the model, or the limit."""
    assert await ask(app, "lookup", body) == status
    assert await counts(app, "lookup") == (0, 1, 0, 0)
    stats = (await told(app, "lookup"))["inference_stats"]
    assert stats["fail"]["ns"] > 0
    assert stats["compute_input"] == stats["compute_infer"] == {"count": 0, "ns": 0}


async def test_a_request_for_what_is_not_there_is_nobody_s_failure(app: App) -> None:
    """It has no version to count for."""
    assert await ask(app, "nobody", body_of("lookup", 1)) == 404
    assert await counts(app, "lookup") == (0, 0, 0, 0)


async def test_whoever_leaves_is_a_failure(app: App) -> None:
    """Before the body is there, or while it runs."""
    body = body_of("slow", LOOPS)
    assert await leaves(app, "slow", b"") == []
    assert await leaves(app, "slow", body) == []
    assert await counts(app, "slow") == (0, 2, 0, 0)


async def test_too_late_and_too_many_are_failures(app: App) -> None:
    """One waits behind a long run for as long as it said, one finds no room; the run is stopped at last."""
    gone = asyncio.Event()
    busy = asyncio.create_task(leaves(app, "slow", body_of("slow", LOOPS), gone))
    while not app.state.service.models.find("slow").in_flight:
        await asyncio.sleep(0)
    while app.state.service.models.find("slow").waiting_rows:
        await asyncio.sleep(0.001)
    assert await ask(app, "slow", body_of("slow", 1, timeout_us=1)) == 504
    waits = asyncio.create_task(ask(app, "slow", body_of("slow", 1)))
    slow = app.state.service.models.find("slow")
    while slow.waiting_rows < slow.version.config.batching.capacity_rows:
        await asyncio.sleep(0)
    assert await ask(app, "slow", body_of("slow", 1)) == 503
    (started, _) = await leaves(app, "slow", b"", asyncio.Event())
    assert started["status"] == 503, "before its body is there"
    gone.set()
    assert await busy == []
    assert await waits == 200
    assert await counts(app, "slow") == (1, 4, 1, 1)


async def leaves(app: App, model: str, body: bytes, when: asyncio.Event | None = None) -> list[Any]:
    """What is sent to a caller who leaves: without one, after a part of the body."""
    sent: list[Any] = []
    rest = [{"type": "http.request", "body": body, "more_body": not body}]

    async def receive() -> Any:
        if rest:
            return rest.pop()
        if when is not None:
            await when.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/v2/models/{model}/infer",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    await app(scope, receive, send)
    return sent
