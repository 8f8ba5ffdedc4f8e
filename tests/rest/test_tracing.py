"""Traces: whose id is in the log, whose request has a span, and what is in it."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from infold import logs
from infold.errors import ConfigError
from infold.rest import spans as spans_module
from infold.rest import tracing
from infold.rest.app import App, create_app
from infold.rest.spans import Spans
from infold.rest.stages import STAGES
from infold.settings import Settings

DOUBLE = """<ir_version: 8, opset_import: ["": 17]>
    double (float[batch, 2] x) => (float[batch, 2] y) { y = Add(x, x) }"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
INFER, ROUTE = "/v2/models/double/infer", "/v2/models/{model}/infer"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """Runs in runners, so that there is a queue."""
    folder = tmp_path / "models/double/1"
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(DOUBLE), str(folder / "model.onnx"))
    (folder.parent / "model.toml").write_text('[session]\ninline = "never"\n')
    made = create_app(Settings(repository=tmp_path / "models", cache_dir=tmp_path / "cache"))
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://here"
    ) as opened:
        yield opened


def traced(app: App, share: float = 0.0) -> InMemorySpanExporter:
    """From here on spans are kept."""
    kept = InMemorySpanExporter()
    app.edge._spans = Spans(share, SimpleSpanProcessor(kept))
    return kept


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """The log, line by line, once it is read."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonFormatter())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel("INFO")

    class Lines(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter([json.loads(line) for line in written.getvalue().splitlines()])

    yield Lines()
    root.removeHandler(handler)
    root.setLevel(level)


async def access_line(lines: list[dict[str, Any]], identity: str) -> dict[str, Any]:
    """That of a request."""
    await asyncio.sleep(0)
    (line,) = [each for each in lines if each["logger"] == "infold.access" and each["request_id"] == identity]
    return line


# -- ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exports", [False, True], ids=["no spans", "spans"])
@pytest.mark.parametrize(
    ("value", "trace_id"),
    [(SAMPLED, TRACE), (UNSAMPLED, TRACE), ("", None), ("00-x", None), (f"00-{'0' * 32}-{SPAN}-01", None)],
)
async def test_the_trace_id_of_a_valid_header_is_in_the_access_line(
    app: App,
    client: httpx.AsyncClient,
    lines: list[dict[str, Any]],
    value: str,
    trace_id: str | None,
    exports: bool,
) -> None:
    """On every route, whether spans are exported or not, and whoever samples."""
    if exports:
        traced(app)
    for number, (method, path) in enumerate((("POST", INFER), ("GET", "/v2"), ("GET", "/nowhere"))):
        headers = {"x-request-id": f"id-{number}"} | ({"traceparent": value} if value else {})
        await client.request(method, path, content=BODY, headers=headers)
        line = await access_line(lines, f"id-{number}")
        assert line.get("trace_id") == trace_id
        assert line["status"] == (404 if path == "/nowhere" else 200)


async def test_a_header_that_comes_twice_is_none(client: httpx.AsyncClient, lines: Any) -> None:
    """Though both are valid."""
    other = SAMPLED.replace("0af7", "1af7")
    headers = [("traceparent", SAMPLED), ("traceparent", other), ("x-request-id", "twice")]
    assert (await client.post(INFER, content=BODY, headers=headers)).status_code == 200
    assert "trace_id" not in await access_line(lines, "twice")


async def test_what_is_logged_meanwhile_has_both_ids(
    client: httpx.AsyncClient, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever logs, and in whatever thread the loop has it done; the next request's lines do not."""

    def broken(*_: object, **__: object) -> Any:
        logging.getLogger("anyone").info("decoding")
        raise ZeroDivisionError

    monkeypatch.setattr("infold.rest.v2.decode_infer", broken)
    headers = {"traceparent": UNSAMPLED, "x-request-id": "with"}
    assert (await client.post(INFER, content=BODY, headers=headers)).status_code == 500
    assert (await client.post(INFER, content=BODY, headers={"x-request-id": "without"})).status_code == 500
    found = [
        (line["event"], line["request_id"], line.get("trace_id"))
        for line in lines
        if line["logger"] in ("anyone", "infold.rest.edge")
    ]
    assert found == [
        ("decoding", "with", TRACE),
        ("request failed", "with", TRACE),
        ("decoding", "without", None),
        ("request failed", "without", None),
    ]
    assert (logs.trace_id.get(), tracing.current.get()) == ("", None)


async def test_requests_at_once_have_each_its_own(
    client: httpx.AsyncClient, lines: list[dict[str, Any]]
) -> None:
    """Also those that share a run."""
    ids = [f"{number:032x}" for number in range(1, 21)]
    await asyncio.gather(
        *(
            client.post(
                INFER, content=BODY, headers={"x-request-id": each, "traceparent": f"00-{each}-{SPAN}-01"}
            )
            for each in ids
        )
    )
    for each in ids:
        assert (await access_line(lines, each))["trace_id"] == each


async def test_a_request_begun_from_another_s_answer_has_none_of_its_ids(
    app: App, client: httpx.AsyncClient, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a client sends several at once: the server begins the next in the context of the last."""
    earlier = tracing.Trace(TRACE, 0)

    def broken(*_: object, **__: object) -> Any:
        logging.getLogger("anyone").info("decoding")
        raise ZeroDivisionError

    for exports in (False, True):
        if exports:
            traced(app)
        earlier.enter()
        await client.post(INFER, content=BODY)
        assert (earlier.took, earlier.model) == (None, "")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("infold.rest.v2.decode_infer", broken)
            earlier.enter()
            await client.post(INFER, content=BODY)
        assert earlier.reason == ""
        logs.trace_id.set("")
        tracing.current.set(None)
    found = [line for line in lines if line["logger"] in ("anyone", "infold.rest.edge")]
    assert len(found) == 4
    assert not any("trace_id" in line for line in found)


# -- spans -----------------------------------------------------------------------------------------


def finished(kept: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The one request's span, and those below it in their order."""
    found = kept.get_finished_spans()
    (server,) = [each for each in found if each.kind is SpanKind.SERVER]
    assert server.context is not None
    for each in found:
        if each is not server:
            assert each.parent is not None
            assert each.parent.span_id == server.context.span_id
            assert each.context is not None
            assert each.context.trace_id == server.context.trace_id
    below = sorted((each for each in found if each is not server), key=lambda each: each.start_time or 0)
    return server, below


async def test_a_request_has_a_span_with_one_for_each_of_its_stages(
    app: App, client: httpx.AsyncClient
) -> None:
    """End to end from its beginning, each as long as its caller is told, all within the request's own."""
    kept = traced(app)
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=1,other=2", "x-request-id": "id-1"}
    answer = await client.post(INFER, content=BODY, headers=headers)
    server, below = finished(kept)
    assert server.name == f"POST {ROUTE}"
    assert server.parent is not None
    assert (f"{server.parent.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, SPAN)
    assert server.parent.is_remote
    assert server.context is not None
    assert server.context.trace_state.to_header() == "vendor=1,other=2"
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "url.path": INFER,
        "url.scheme": "http",
        "infold.request_id": "id-1",
        "infold.model": "double",
        "infold.version": 1,
        "infold.rows": 2,
    }
    assert server.status.status_code is StatusCode.UNSET
    assert [each.name for each in below] == [stage for stage in STAGES if stage != "batch"]
    told = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    at = server.start_time
    assert at is not None and server.end_time is not None
    for each in below:
        assert each.start_time == at
        assert each.end_time is not None
        assert (each.end_time - at) / 1e6 == pytest.approx(float(told[each.name]), abs=0.001)
        at = each.end_time
    assert at <= server.end_time
    assert server.resource.attributes["service.name"] == "infold"


@pytest.mark.parametrize(
    ("states", "kept_state"),
    [
        (["a=1", "b=2"], "a=1,b=2"),
        (["a=" + "x" * 200 + ",b=" + "x" * 200], "a=" + "x" * 200 + ",b=" + "x" * 200),
        (["a=" + "x" * 200] * 3, ""),
        ([f"k{number}=1" for number in range(300)], ""),
        (["=" * 60_000], ""),
        (["\xff\xfe"], ""),
    ],
)
async def test_a_caller_s_state_is_kept_as_far_as_it_is_one(
    app: App,
    client: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    states: list[str],
    kept_state: str,
) -> None:
    """At any length; what is wrong with it is not repeated at length in the log."""
    kept = traced(app)
    headers = [("traceparent", SAMPLED), *(("tracestate", each.encode("latin-1")) for each in states)]
    answer = await client.post(INFER, content=BODY, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 200
    server, _ = finished(kept)
    assert server.context is not None
    assert server.context.trace_state.to_header() == kept_state
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)


async def test_whoever_does_not_sample_has_no_span(app: App, client: httpx.AsyncClient) -> None:
    """Even where every other request has one."""
    kept = traced(app, 1.0)
    await client.post(INFER, content=BODY, headers={"traceparent": UNSAMPLED})
    await client.get("/v2", headers={"traceparent": UNSAMPLED})
    assert kept.get_finished_spans() == ()


async def test_whoever_samples_has_a_span_on_every_route(app: App, client: httpx.AsyncClient) -> None:
    """Even where no other request has one."""
    kept = traced(app, 0.0)
    await client.post(INFER, content=BODY)
    assert kept.get_finished_spans() == ()
    for path in ("/v2/models/double", "/nowhere"):
        kept.clear()
        await client.get(path, headers={"traceparent": SAMPLED})
        server, below = finished(kept)
        known = path != "/nowhere"
        assert server.name == ("GET /v2/models/{model}" if known else "GET")
        assert (server.attributes or {}).get("http.route") == ("/v2/models/{model}" if known else None)
        assert below == []


@pytest.mark.parametrize(("chance", "has_span"), [(0.0, True), (0.2499, True), (0.25, False), (0.99, False)])
async def test_a_share_of_those_without_a_trace_has_one(
    app: App,
    client: httpx.AsyncClient,
    lines: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    chance: float,
    has_span: bool,
) -> None:
    """Of requests with tensors; its id is in the log. Probes and scrapes have none."""
    kept = traced(app, 0.25)
    monkeypatch.setattr("random.random", lambda: chance)
    await client.post(INFER, content=BODY, headers={"x-request-id": "id-1", "traceparent": "no trace"})
    assert len(kept.get_finished_spans()) == (6 if has_span else 0)
    line = await access_line(lines, "id-1")
    if has_span:
        server, _ = finished(kept)
        assert server.parent is None
        assert server.context is not None
        assert line["trace_id"] == f"{server.context.trace_id:032x}" != TRACE
    else:
        assert "trace_id" not in line
    kept.clear()
    for path in ("/metrics", "/v2/health/live"):
        await client.get(path)
    assert kept.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("path", "body", "status", "facts", "is_error"),
    [
        (INFER, b"{", 400, {"infold.model": "double", "infold.version": 1, "error.type": "malformed"}, False),
        ("/v2/models/stranger/infer", BODY, 404, {"error.type": "not_found"}, False),
        (
            "broken",
            BODY,
            500,
            {"infold.model": "double", "infold.version": 1, "error.type": "internal"},
            True,
        ),
    ],
)
async def test_a_refusal_says_why(
    app: App,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: bytes,
    status: int,
    facts: dict[str, object],
    is_error: bool,
) -> None:
    """And whose it is, as far as that is known; only a failure of ours is an error of the server's."""
    kept = traced(app)
    if path == "broken":
        path = INFER
        monkeypatch.setattr("infold.rest.v2.decode_infer", lambda *_, **__: 1 / 0)
    answer = await client.post(path, content=body, headers={"traceparent": SAMPLED})
    assert answer.status_code == status
    server, below = finished(kept)
    attributes = dict(server.attributes or {})
    assert attributes["http.response.status_code"] == status
    ours = {
        key: value for key, value in attributes.items() if key.startswith(("infold.m", "infold.v", "err"))
    }
    assert ours == facts
    assert (server.status.status_code is StatusCode.ERROR) == is_error
    assert below == []
    assert server.events == (), "no stack trace leaves"


async def test_what_a_caller_sends_is_not_repeated_at_any_length(app: App, client: httpx.AsyncClient) -> None:
    """A path is cut, a query is left out, a method that nobody knows is no label."""
    kept = traced(app)
    await client.get("/" + "x" * 3000 + "?key=secret", headers={"traceparent": SAMPLED})
    await client.request("BREW", "/v2", headers={"traceparent": SAMPLED})
    one, other = [dict(each.attributes or {}) for each in kept.get_finished_spans()]
    assert len(str(one["url.path"])) == 512
    assert "secret" not in str(one)
    assert other["http.request.method"] == "_OTHER"


async def test_a_request_leaves_nothing_behind_in_its_trace(app: App, client: httpx.AsyncClient) -> None:
    """An error holds the frames, and these the body: a trace that held the error would hold both."""
    kept = traced(app)
    made: list[weakref.ref[Any]] = []

    def remembered(failure: Exception) -> Exception:
        made.append(weakref.ref(failure))
        return failure

    class OddError(Exception):
        pass

    def broken(*_: object, **__: object) -> Any:
        raise remembered(OddError())

    logging.disable()  # or the record would hold it
    gc.collect()
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("infold.rest.v2.decode_infer", broken)
            await client.post(INFER, content=BODY, headers={"traceparent": SAMPLED})
        assert [each() for each in made] == [None]
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
    assert len(kept.get_finished_spans()) == 1


async def test_no_other_library_is_told_of_the_sdk(app: App, client: httpx.AsyncClient) -> None:
    """The global provider is that of nobody, so FastAPI makes no spans of its own."""
    kept = traced(app, 1.0)
    assert not hasattr(otel.get_tracer_provider(), "add_span_processor")
    await client.get("/v2/models/double", headers={"traceparent": SAMPLED})
    assert len(kept.get_finished_spans()) == 1


async def test_an_sdk_that_is_switched_off_makes_no_traces(
    app: App, client: httpx.AsyncClient, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_SDK_DISABLED; the caller's own id is in the log all the same."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    kept = traced(app, 1.0)
    await client.post(INFER, content=BODY, headers={"x-request-id": "none"})
    assert "trace_id" not in await access_line(lines, "none")
    await client.post(INFER, content=BODY, headers={"x-request-id": "own", "traceparent": SAMPLED})
    assert (await access_line(lines, "own"))["trace_id"] == TRACE
    assert kept.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("environment", "name"),
    [({}, "infold"), ({"OTEL_SERVICE_NAME": "digits"}, "digits")],
)
def test_the_service_is_called_as_its_environment_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str
) -> None:
    """OpenTelemetry's own variables count."""
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert spans_module._resource().attributes["service.name"] == name


# -- a collector that is slow --------------------------------------------------------------------------


class Stuck(SpanExporter):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.entered = threading.Event()
        self.taken = 0

    def export(self, spans: Any) -> SpanExportResult:
        self.entered.set()
        self.let_go.wait(20)
        self.taken += len(spans)
        return SpanExportResult.SUCCESS


async def test_no_request_waits_for_a_collector_that_is_stuck(
    app: App, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What there is no room for is dropped, and the end is not held up for ever."""
    stuck = Stuck()
    processor = BatchSpanProcessor(stuck, max_queue_size=20, max_export_batch_size=6)
    app.edge._spans = held = Spans(1.0, processor)
    for _ in range(20):
        assert (await client.post(INFER, content=BODY)).status_code == 200
    assert await asyncio.to_thread(stuck.entered.wait, 10)
    monkeypatch.setattr(spans_module, "FLUSH_S", 0.01)
    await held.close()
    assert [record.message for record in caplog.records if record.name == spans_module.__name__] == [
        "spans not sent"
    ]
    stuck.let_go.set()


async def test_what_is_over_is_sent_at_the_end(app: App, client: httpx.AsyncClient) -> None:
    """Not only after the next five seconds."""
    stuck = Stuck()
    stuck.let_go.set()
    app.edge._spans = held = Spans(1.0, BatchSpanProcessor(stuck))
    await client.post(INFER, content=BODY)
    assert stuck.taken == 0
    await held.close()
    assert stuck.taken == 6


# -- settings --------------------------------------------------------------------------------------


def test_without_an_endpoint_nothing_is_imported() -> None:
    """Not even a little of it."""
    assert tracing.spans_of(Settings(trace_share=1.0)) is None


@pytest.mark.parametrize(
    "name", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
)
def test_a_missing_extra_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """And not as an import that failed somewhere."""
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "infold.rest.spans")
    with pytest.raises(ConfigError, match=r"INFOLD_TRACE_ENDPOINT: .*pip install 'infold\[otel\]'"):
        tracing.spans_of(Settings(trace_endpoint="http://localhost:4318"))


@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:4318",
        "grpc://localhost:4317",
        "http://",
        "/v1/traces",
        "http://[::1",
        "http://h:x",
        "http://h:0",
    ],
)
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    """At the start, by its setting's name."""
    with pytest.raises(ConfigError, match="INFOLD_TRACE_ENDPOINT"):
        tracing.spans_of(Settings(trace_endpoint=endpoint))


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("https://c/", "https://c/v1/traces"),
        ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces?key=1", "https://c/otlp/v1/traces?key=1"),
    ],
)
def test_an_address_without_a_path_gets_the_usual_one(endpoint: str, address: str) -> None:
    """As collectors listen."""
    assert tracing._address(endpoint) == address


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan", "x"])
def test_a_share_is_one(monkeypatch: pytest.MonkeyPatch, share: str) -> None:
    """From none to all."""
    monkeypatch.setenv("INFOLD_TRACE_SHARE", share)
    with pytest.raises(ConfigError, match="INFOLD_TRACE_SHARE"):
        Settings.read()
