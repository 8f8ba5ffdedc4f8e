"""What an operator sees of a real server: stages, refusals, Triton's names, traces, and every line's id."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from e2e.collector import Collector, collecting
from infold.rest.stages import STAGES
from servers import Server, running, serve_fails, slow_model

DOUBLE = """<ir_version: 8, opset_import: ["": 17]>
    double (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }"""
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
INFER = "/v2/models/double/infer"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is run where it is read, and the same run in runners."""
    root = tmp_path_factory.mktemp("sight")
    for name, inline in (("double", "always"), ("apart", "never")):
        folder = root / name / "1"
        folder.mkdir(parents=True)
        onnx.save(onnx.parser.parse_model(DOUBLE), str(folder / "model.onnx"))
        (folder.parent / "model.toml").write_text(f'[session]\ninline = "{inline}"\n')
    return root


@pytest.fixture(scope="module", params=["1", "2"])
def server(
    request: pytest.FixtureRequest, double: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One process, or two that are one."""
    environment = {"INFOLD_WORKERS": request.param, "INFOLD_TRITON_METRICS": "true"}
    with running(double, tmp_path_factory.mktemp("log") / "log", **environment) as started:
        yield started


def samples(server: Server) -> dict[tuple[str, ...], float]:
    """Every sample of the page by name and labels."""
    found = {}
    page = httpx.get(f"{server.url}/metrics").text
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", page, re.M):
        found[name, *sorted(re.findall(r'(\w+="[^"]*")', labels))] = float(value)
    return found


def grown(server: Server, act: Callable[[], object]) -> dict[tuple[str, ...], float]:
    """By what each sample grows."""
    before = samples(server)
    act()
    return {key: value - before.get(key, 0) for key, value in samples(server).items()}


def log_of(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def ask(server: Server, path: str = INFER, body: bytes = BODY, **headers: str) -> httpx.Response:
    """Over a connection of its own, so that it may come to any worker."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{server.url}{path}", content=body, headers=named)


@pytest.mark.parametrize("model", ["double", "apart"])
def test_stages_refusals_and_triton_s_names_are_those_of_all_workers(server: Server, model: str) -> None:
    """Whichever worker answers, and whichever is asked."""

    def act() -> None:
        for _ in range(12):
            assert ask(server, f"/v2/models/{model}/infer").status_code == 200
        for _ in range(5):
            assert ask(server, f"/v2/models/{model}/infer", b"{").status_code == 400
        for number in range(7):
            assert ask(server, f"/v2/models/stranger{number}/infer").status_code == 404

    found = grown(server, act)
    m = (f'model="{model}"', 'version="1"')
    for stage in STAGES:
        assert found["infold_stage_seconds_count", m[0], f'stage="{stage}"', m[1]] == 12
    assert found["infold_refusals_total", m[0], 'reason="malformed"', m[1]] == 5
    assert found["infold_refusals_total", 'model=""', 'reason="not_found"', 'version=""'] == 7
    assert found["nv_inference_request_success", *m] == found["nv_inference_count", *m] == 12
    assert found["nv_inference_request_failure", m[0], 'reason="OTHER"', m[1]] == 5
    assert found["nv_inference_request_failure", m[0], 'reason="REJECTED"', m[1]] == 0
    microseconds = found["nv_inference_request_duration_us", *m]
    stages = [found["infold_stage_seconds_sum", m[0], f'stage="{stage}"', m[1]] for stage in STAGES]
    assert 0 < sum(stages) * 1e6 <= microseconds + 12
    assert found["nv_inference_compute_infer_duration_us", *m] > 0
    assert (found["nv_inference_queue_duration_us", *m] > 0) == (model == "apart")


def test_what_was_never_asked_is_there_with_zeros(double: Path, tmp_path: Path) -> None:
    """So that a rate sees the first request, and a rule that divides finds its terms."""
    with running(double, tmp_path / "log", INFOLD_TRITON_METRICS="true") as server:
        found = samples(server)
    for family in ("nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us"):
        assert found[family, 'model="double"', 'version="1"'] == 0
    assert found["infold_stage_seconds_count", 'model="apart"', 'stage="queue"', 'version="1"'] == 0


def test_triton_s_client_asks_as_ever(server: Server) -> None:
    """And is told where the time went, as any caller."""
    with InferenceServerClient(server.address) as client:
        sent = InferInput("x", [1, 4], "FP32")
        sent.set_data_from_numpy(np.ones((1, 4), np.float32))
        assert client.infer("double", [sent]).as_numpy("y").tolist() == [[2, 2, 2, 2]]
    timing = ask(server).headers["server-timing"]
    assert [part.partition(";")[0] for part in timing.split(", ")] == list(STAGES)


def test_a_slow_body_is_slow_to_be_read(server: Server) -> None:
    """And nothing else of it is; on a machine that is busy with something else it is slower still."""
    for held_s in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6):
        timing = held_back(server, held_s)
        if timing["read"] >= 500 * held_s and max(timing, key=lambda stage: timing[stage]) == "read":
            return
    pytest.fail(f"{timing}")


def held_back(server: Server, seconds: float) -> dict[str, float]:
    """What a request took in milliseconds of which the last part came so much later."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nhost: here\r\ncontent-length: {len(BODY)}\r\n\r\n"
        connection.sendall(head.encode() + BODY[:10])
        time.sleep(seconds)
        connection.sendall(BODY[10:])
        answer = http.client.HTTPResponse(connection)
        answer.begin()
    assert answer.status == 200
    parts = (answer.getheader("server-timing") or "").split(", ")
    return {stage: float(text) for stage, text in (part.split(";dur=") for part in parts)}


def test_every_line_on_behalf_of_a_request_has_its_id(server: Server) -> None:
    """And that of its trace."""
    ask(server, x_request_id="order-66", traceparent=UNSAMPLED)
    end = time.monotonic() + 20
    while not (lines := [line for line in log_of(server) if line.get("request_id") == "order-66"]):
        assert time.monotonic() < end  # a worker writes it behind the answer
    assert [(line["logger"], line["trace_id"]) for line in lines] == [("infold.access", TRACE)]


def test_pending_requests_are_requests_not_rows(tmp_path: Path) -> None:
    """What an autoscaler looks at: one runs, two wait."""
    root = slow_model(tmp_path / "models")
    (root / "slow/model.toml").write_text('[session]\nruns = 1\nwide = "never"\ninline = "never"\n')
    body = json.dumps({"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [10**12]}]})
    with running(root, tmp_path / "log", INFOLD_TRITON_METRICS="true") as server:
        m = ('model="slow"', 'version="1"')
        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(leave, server, body.encode())
            deadline = time.monotonic() + 20
            while (found := samples(server))["infold_requests_in_flight", *m] < 3:
                assert time.monotonic() < deadline
            assert found["nv_inference_pending_request_count", *m] == found["infold_queue_requests", *m] == 2
            server.process.send_signal(signal.SIGKILL)


def leave(server: Server, body: bytes) -> None:
    """Ask, and wait for what never comes."""
    try:
        httpx.post(f"{server.url}/v2/models/slow/infer", content=body, timeout=60)
    except httpx.HTTPError:
        return


# -- traces ----------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_spans_reach_a_collector_and_the_last_at_the_end(
    double: Path, tmp_path: Path, collector: Collector, workers: str
) -> None:
    """Of whoever samples and nobody else; below each lie its stages; no span is lost by SIGTERM."""
    environment = {"INFOLD_TRACE_ENDPOINT": collector.url, "INFOLD_TRACE_SHARE": "0"}
    with running(double, tmp_path / "log", INFOLD_WORKERS=workers, **environment) as server:
        for number in range(10):
            ask(server, x_request_id=f"on-{number}", traceparent=SAMPLED)
            ask(server, traceparent=UNSAMPLED)
            ask(server)
        httpx.get(f"{server.url}/v2/health/ready", headers={"traceparent": SAMPLED})
        assert server.stop() == 0
    spans = collector.spans()
    assert set(collector.paths) == {"/v1/traces"}
    assert {span["service"] for span in spans} == {"infold"}
    assert {span["trace_id"] for span in spans} == {TRACE}
    servers = {span["span_id"]: span for span in spans if span["parent"] == SPAN}
    assert sorted(str(span["attributes"]["infold.request_id"]) for span in servers.values())[-10:] == [
        f"on-{number}" for number in range(10)
    ]
    assert sorted({span["name"] for span in servers.values()}) == [
        "GET /v2/health/ready",
        "POST /v2/models/{model}/infer",
    ]
    assert len(servers) == 11
    below = [span for span in spans if span["parent"] != SPAN]
    assert len(below) == 10 * 4
    for span in below:
        parent = servers[span["parent"]]
        assert parent["begin"] <= span["begin"] <= span["end"] <= parent["end"]
        assert parent["attributes"]["infold.model"] == "double"
        assert span["name"] in ("read", "decode", "compute", "encode")


def test_all_of_a_share_of_one_is_traced_and_its_id_logged(
    double: Path, tmp_path: Path, collector: Collector
) -> None:
    """Each a trace of its own."""
    environment = {"INFOLD_TRACE_ENDPOINT": f"{collector.url}/v1/traces", "INFOLD_TRACE_SHARE": "1"}
    with running(double, tmp_path / "log", OTEL_BSP_SCHEDULE_DELAY="50", **environment) as server:
        for _ in range(5):
            ask(server, "/v2/models/apart/infer")
        spans = collector.spans(5 * 6)
        lines = [line for line in log_of(server) if line.get("path") == "/v2/models/apart/infer"]
        assert server.stop() == 0
    roots = {span["trace_id"] for span in spans if not span["parent"]}
    assert len(roots) == 5
    assert {line["trace_id"] for line in lines} == roots


def test_a_collector_that_is_down_costs_no_answer_and_no_exit(
    double: Path, tmp_path: Path, collector: Collector
) -> None:
    """Nor does one that is not there at all; the service ends in time, with exit code 0."""
    collector.is_down = True
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for number, url in enumerate((collector.url, nobody)):
            environment = {"INFOLD_TRACE_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "10"}
            with running(double, tmp_path / f"log{number}", **environment) as server:
                for _ in range(30):
                    assert ask(server, traceparent=SAMPLED).status_code == 200
                assert server.stop() == 0
            assert all(isinstance(line["event"], str) for line in log_of(server))


def test_a_collector_that_never_answers_does_not_hold_up_the_end(double: Path, tmp_path: Path) -> None:
    """It is given a few seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections: list[socket.socket] = []
        threading.Thread(target=lambda: connections.append(silent.accept()[0]), daemon=True).start()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with running(double, tmp_path / "log", INFOLD_TRACE_ENDPOINT=url) as server:
            assert ask(server, traceparent=SAMPLED).status_code == 200
            assert server.stop() == 0
        assert "spans not sent" in [line["event"] for line in log_of(server)]
        for each in connections:
            each.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_endpoint_that_is_none_is_one_line(
    double: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """And no service."""
    monkeypatch.setenv("INFOLD_TRACE_ENDPOINT", "collector:4318")
    monkeypatch.setenv("INFOLD_WORKERS", workers)
    code, told = serve_fails(str(double), "--port", "0")
    assert code != 0
    assert told.count("INFOLD_TRACE_ENDPOINT: 'collector:4318' is no http or https address") == 1


def test_without_the_extra_the_start_names_it(
    double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment that has no SDK."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk.trace'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setenv("INFOLD_TRACE_ENDPOINT", "http://localhost:4318")
    code, told = serve_fails(str(double), "--port", "0")
    assert code != 0
    assert "pip install 'infold[otel]'" in told
