"""The stages of a request: counted by version, and told its caller in `Server-Timing`."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest.app import App, create_app
from infold.rest.metrics import Metrics
from infold.rest.stages import STAGES, server_timing
from infold.serving import Spent, Took
from infold.settings import Settings

DOUBLE = """<ir_version: 8, opset_import: ["": 17]>
    double (float[batch, 2] x) => (float[batch, 2] y) { y = Add(x, x) }"""
# How its requests are run: where they are read, alone in a runner, or joined there.
WAYS = {
    "inline": '[session]\ninline = "always"\n',
    "alone": '[session]\ninline = "never"\n[batching]\njoin = "never"\n',
    "joined": '[session]\ninline = "never"\n[batching]\njoin = "always"\n',
}
INFER, PREDICT = "/v2/models/{}/infer", "/v1/models/{}:predict"
ROWS = json.dumps({"instances": [[1, 2], [3, 4]]}).encode()
TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
JSON = json.dumps({"inputs": [TENSOR]}).encode()


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    for name, toml in WAYS.items():
        folder = tmp_path / "models" / name / "1"
        folder.mkdir(parents=True)
        onnx.save(onnx.parser.parse_model(DOUBLE), str(folder / "model.onnx"))
        (folder.parent / "model.toml").write_text(toml)
    made = create_app(Settings(repository=tmp_path / "models", cache_dir=tmp_path / "cache"))
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as opened:
        yield opened


def told(answer: httpx.Response) -> dict[str, float]:
    """Milliseconds by stage, as the answer's own header has them."""
    assert answer.status_code == 200, answer.text
    (header,) = answer.headers.get_list("server-timing")
    found = re.findall(r"(?:^|, )(\w+);dur=(\d+(?:\.\d+)?)(?=,|$)", header)
    assert ", ".join(f"{stage};dur={text}" for stage, text in found) == header, "nothing else is in it"
    assert [stage for stage, _ in found] == list(STAGES)
    return {stage: float(text) for stage, text in found}


def counted(app: App, model: str) -> dict[str, tuple[int, float]]:
    """How often each stage was counted, and its seconds together."""
    rows = app.state.service.metrics.snapshot()["histograms"]["infold_stage_seconds"]
    return {stage: (sum(counts), s) for (name, _, stage), counts, s in rows if name == model}


@pytest.mark.parametrize("way", WAYS)
async def test_every_answer_tells_its_stages_and_counts_them(
    app: App, client: httpx.AsyncClient, way: str
) -> None:
    """The same numbers, however a request is sent, read and run."""
    long = np.zeros((2500, 2)).tolist()
    sent = [
        (INFER, JSON, {}),
        (INFER, gzip.compress(JSON), {"content-encoding": "gzip"}),
        (INFER, bytes(16), {"inference-header-content-length": "0"}),
        (INFER, json.dumps({"inputs": [TENSOR | {"shape": [50, 2], "data": [1] * 100}]}).encode(), {}),
        (PREDICT, ROWS, {}),
        (PREDICT, json.dumps({"instances": long[:60]}).encode() + b" " * 2**15, {}),
    ]
    sums = dict.fromkeys(STAGES, 0.0)
    for path, body, headers in sent:
        times = told(await client.post(path.format(way), content=body, headers=headers))
        for stage in STAGES:
            sums[stage] += times[stage] / 1000
        for stage in ("read", "decode", "compute", "encode"):
            assert times[stage] > 0, stage
    found = counted(app, way)
    assert {stage: count for stage, (count, _) in found.items()} == dict.fromkeys(STAGES, len(sent))
    for stage, (_, seconds) in found.items():
        assert seconds == pytest.approx(sums[stage], abs=len(sent) * 0.6e-6), stage
    if way == "alone":
        assert sums["batch"] == 0
        assert sums["queue"] > 0


async def test_what_is_run_where_it_is_read_waits_for_nothing(app: App, client: httpx.AsyncClient) -> None:
    """And is joined with nobody."""
    times = told(await client.post(INFER.format("inline"), content=JSON))
    assert (times["queue"], times["batch"]) == (0, 0)
    assert counted(app, "inline")["queue"] == (1, 0.0)


async def test_a_compressed_answer_tells_them_too(client: httpx.AsyncClient) -> None:
    """Beside the headers of its own."""
    rows = json.dumps({"instances": [[1.234567, 2.345678]] * 64}).encode()
    answer = await client.post(PREDICT.format("inline"), content=rows, headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert told(answer)["encode"] > 0
    binary = await client.post(
        INFER.format("joined"), content=bytes(16), headers={"inference-header-content-length": "0"}
    )
    assert binary.headers["inference-header-content-length"]
    assert told(binary)["encode"] > 0


async def test_a_refusal_has_no_stages(app: App, client: httpx.AsyncClient) -> None:
    """They did not all take place; what was refused is counted by reason."""
    for way in WAYS:
        answer = await client.post(INFER.format(way), content=JSON.replace(b"FP32", b"INT8"))
        assert answer.status_code == 400
        assert "server-timing" not in answer.headers
        assert {count for count, _ in counted(app, way).values()} == {0}


async def test_a_wait_counts_though_the_run_fails(app: App, client: httpx.AsyncClient) -> None:
    """It was a wait all the same; no stage else was got through."""
    await client.post(INFER.format("alone"), content=JSON)
    before = counted(app, "alone")
    app.state.service.models.find("alone")._batcher._run = lambda *_: 1 / 0
    assert (await client.post(INFER.format("alone"), content=JSON)).status_code == 500
    after = counted(app, "alone")
    grown = {stage: after[stage][0] - before[stage][0] for stage in STAGES}
    assert grown == {**dict.fromkeys(STAGES, 0), "queue": 1}


times = st.floats(0, 1e4, allow_nan=False)


@given(st.tuples(times, times, times, times, times, times))
def test_any_times_make_a_header(each: tuple[float, float, float, float, float, float]) -> None:
    """In milliseconds, to the microsecond, never in powers of ten."""
    name, value = server_timing(each[0], Took(1, *each[1:]))
    assert name == b"server-timing"
    found = re.findall(rb"(\w+);dur=([0-9.]+)(?=, |$)", value)
    assert [stage.decode() for stage, _ in found] == list(STAGES)
    for (_, text), seconds in zip(found, each, strict=True):
        assert float(text) == pytest.approx(seconds * 1000, abs=0.0006)


@given(st.lists(st.tuples(times, times), max_size=20), st.sampled_from([1, 20]))
def test_what_is_counted_by_the_hundred_is_what_a_histogram_counts(
    some: list[tuple[float, float]], times_over: int
) -> None:
    """The same buckets and the same sum, also before there are a hundred."""
    metrics, plain = Metrics(), Metrics()
    stages, by_stage = metrics.of_model("m", 1).stages, plain.of_model("m", 1).stages.by_stage
    for one, other in some * times_over:
        stages.answered(one, Took(3, other, 0.0, one, other, one))
        for stage, seconds in zip(STAGES, (one, other, None, one, other, one), strict=True):
            if seconds is not None:
                by_stage[stage].observe(seconds)
    found, wanted = metrics.snapshot()["histograms"], plain.snapshot()["histograms"]
    for name, rows in wanted.items():
        for (labels, counts, total), ours in zip(rows, found[name], strict=True):
            assert ours == (labels, counts, pytest.approx(total))


@given(st.lists(st.tuples(st.integers(1, 300), times, times, times), max_size=600))
def test_runs_on_the_event_loop_are_counted_as_runs_elsewhere(
    runs: list[tuple[int, float, float, float]],
) -> None:
    """Each is one of a request that had not waited."""
    at_once, one_by_one = Metrics(), Metrics()
    for rows, *spent in runs:
        decode_s, compute_s, encode_s = spent
        at_once.ran_at_once("m", 1, Took(rows, decode_s, 0.0, 0.0, compute_s, encode_s))
        one_by_one.waited("m", 1, 0.0)
        one_by_one.batch_ran("m", 1, 1, rows, Spent(*spent))
    found, wanted = at_once.snapshot(), one_by_one.snapshot()
    for name, counted in wanted["counters"].items():
        assert sorted(found["counters"][name]) == [
            (labels, pytest.approx(value)) for labels, value in sorted(counted)
        ]
    for name, histograms in wanted["histograms"].items():
        for (labels, counts, total), ours in zip(histograms, found["histograms"][name], strict=True):
            assert ours == (labels, counts, pytest.approx(total))
    assert bool(found["latest"]["infold_last_run_timestamp_seconds"]) is bool(runs)
