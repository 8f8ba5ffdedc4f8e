"""Triton's words and codes, each to the letter, and where they are said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from infold.errors import (
    BodyTooLargeError,
    DatatypeError,
    DeadlineExceededError,
    HalfInJsonError,
    InfoldError,
    InvalidInputError,
    LoadError,
    MissingInputError,
    ModelControlError,
    ModelNotFoundError,
    ModelNotReadyError,
    NotServedError,
    QueueFullError,
    ShapeError,
    UnknownTensorError,
    UnsupportedCodingError,
)
from infold.rest import v2
from infold.rest.app import App, create_app
from infold.rest.codec import DTYPES
from infold.rest.triton_compat import triton_words
from infold.rest.v2 import InferRequest, decode_infer, encode_infer
from infold.settings import Settings
from infold.tensors import BFLOAT16, Array, Signature, TensorSpec
from servers import slow_model

HALF_IN = "receiving {} data via JSON is not supported. Please use the binary data format for input x"
HALF_OUT = "sending {} data via JSON is not supported. Please use the binary data format for output"


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        (
            ShapeError("inputs[0]", "x", [-1, 4], [1, 3]),
            400,
            "unexpected shape for input 'x' for model 'm'. Expected [-1,4], got [1,3]",
        ),
        (
            ShapeError("inputs[0]", "x", [], [1]),
            400,
            "unexpected shape for input 'x' for model 'm'. Expected [], got [1]",
        ),
        (
            DatatypeError("inputs[0]", "x", "FP32", "INT64"),
            400,
            "inference input 'x' data-type is 'INT64', but model 'm' expects 'FP32'",
        ),
        (
            UnknownTensorError("inputs[0]", "input", "z", ["x"]),
            400,
            "unexpected inference input 'z' for model 'm'",
        ),
        (
            UnknownTensorError("outputs[0]", "output", "q", ["y"]),
            400,
            "unexpected inference output 'q' for model 'm'",
        ),
        (
            MissingInputError(["a", "b", "c"], ["b"]),
            400,
            (
                "expected 3 inputs but got 1 inputs for model 'm'. Got input(s) ['b'], but missing required "
                "input(s) ['a','c']. Please provide all required input(s)."
            ),
        ),
        (
            MissingInputError(["a"], []),
            400,
            (
                "expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required "
                "input(s) ['a']. Please provide all required input(s)."
            ),
        ),
        (HalfInJsonError("inputs[0].data", "input", "x", "FP16"), 400, HALF_IN.format("FP16")),
        (HalfInJsonError("inputs[3].data", "input", "x", "BF16"), 400, HALF_IN.format("BF16")),
        (HalfInJsonError("outputs", "output", "y", "FP16"), 400, HALF_OUT.format("FP16")),
        (
            ModelNotReadyError("m", 2, "loading"),
            404,
            "Request for unknown model: 'm' has no available versions",
        ),
        (
            ModelNotReadyError("m", 2, "loading", is_of_version=True),
            503,
            "Request for unknown model: 'm' version 2 is not at ready state",
        ),
        (ModelNotFoundError("m"), 404, "Request for unknown model: 'm' is not found"),
        (ModelNotFoundError("m", 7), 404, "Request for unknown model: 'm' version 7 is not found"),
        (QueueFullError(256), 503, "Exceeds maximum queue size"),
        (DeadlineExceededError(0.5), 503, "Request timeout expired"),
        (ModelControlError(), 503, "explicit model load / unload is not allowed if polling is enabled"),
        (
            UnsupportedCodingError("br", ["gzip", "deflate"]),
            501,
            "content-encoding 'br' is not served; one of gzip, deflate is",
        ),
        (LoadError("m", "no such model"), 400, "failed to load 'm', no such model"),
        # What Triton has no words of its own for, or none that anybody looks at.
        (InvalidInputError("inputs[0].data[7]", "1.5 is no INT8"), 400, "inputs[0].data[7]: 1.5 is no INT8"),
        (BodyTooLargeError(9), 413, "the request body exceeds the maximum allowed 9 bytes"),
        (NotServedError("tracing"), 501, "tracing is not served by infold"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, InfoldError) else "",
)
def test_every_mistake_has_triton_s_text_and_code(failure: InfoldError, status: int, text: str) -> None:
    """To the letter."""
    assert triton_words(failure, "m") == (status, text)


# -- halves: no JSON for 16-bit floats --------------------------------------------------------------


def of(datatype: str) -> Signature:
    dtype = DTYPES[datatype]
    return Signature((TensorSpec("x", dtype, ("n",)),), (TensorSpec("y", dtype, ("n",)),))


def request(datatype: str, *, as_bytes: bool) -> tuple[bytes, int | None]:
    """One and a half."""
    entry: dict[str, Any] = {"name": "x", "shape": [1], "datatype": datatype}
    if not as_bytes:
        return json.dumps({"inputs": [{**entry, "data": [1.5]}]}).encode(), None
    blob = np.array([1.5]).astype(DTYPES[datatype]).tobytes()
    text = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": len(blob)}}]}).encode()
    return text + blob, len(text)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
@pytest.mark.parametrize("spaces", [0, 10_000], ids=["short", "long"])
def test_halves_do_not_come_as_json(datatype: str, spaces: int) -> None:
    """Whichever reader has them; as bytes they do, and where they may."""
    body, _ = request(datatype, as_bytes=False)
    body += b" " * spaces
    with pytest.raises(HalfInJsonError) as refused:
        decode_infer(body, None, of(datatype), halves=False)
    assert (refused.value.place, refused.value.name) == ("inputs[0].data", "x")
    assert decode_infer(body, None, of(datatype)).tensors["x"].astype(float).tolist() == [1.5]
    as_bytes = decode_infer(*request(datatype, as_bytes=True), of(datatype), halves=False)
    assert as_bytes.tensors["x"].astype(float).tolist() == [1.5]
    assert as_bytes.tensors["x"].dtype == DTYPES[datatype]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT16", "UINT8"])
def test_other_types_come_as_json_all_the_same(datatype: str) -> None:
    """By the quick reader, too."""
    body = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": datatype, "data": [2]}]}).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2, "_careful", None)
        assert decode_infer(body, None, of(datatype), halves=False).tensors["x"].tolist() == [2]


def no_classes(name: str, array: Array, top: int) -> Array:
    """As a model answers to a wish for classes."""
    return np.array([[f"1.5:{top}"]], np.object_)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
def test_halves_do_not_go_as_json(dtype: np.dtype[np.generic]) -> None:
    """Unless they may; bytes and classes of them are fine, and so are other outputs beside them."""
    halves = {"y": np.array([[1.5]]).astype(dtype), "z": np.array([1.5], np.float32)}
    with pytest.raises(HalfInJsonError) as refused:
        encode_infer("m", 1, InferRequest({}), halves, no_classes, halves=False)
    assert (refused.value.role, refused.value.name) == ("output", "y")

    def data_of(asked: InferRequest, results: dict[str, Array], **how: bool) -> object:
        response = encode_infer("m", 1, asked, results, no_classes, **how)
        return json.loads(bytes(response.parts[0]))["outputs"][0].get("data", bytes(response.parts[-1]))

    assert data_of(InferRequest({}), halves) == [1.5]
    assert (
        data_of(InferRequest({}, is_binary=True), {"y": halves["y"]}, halves=False) == halves["y"].tobytes()
    )
    assert data_of(InferRequest({}), {"z": halves["z"]}, halves=False) == [1.5]
    wish = InferRequest({}, wishes={"y": v2.OutputParameters(classes=1)})
    assert data_of(wish, {"y": halves["y"]}, halves=False) == ["1.5:1"]


# -- in the service -----------------------------------------------------------------------------------


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A service in Triton's words, of a model that takes as long as it is told."""
    toml = (
        '[session]\nruns = 1\nwide = "never"\ninline = "never"\n[batching]\nmax_rows = 1\ncapacity_rows = 1\n'
    )
    (slow_model(tmp_path / "models") / "slow/model.toml").write_text(toml)
    for name, text in {
        "half": "g (float16[n] x) => (float16[n] y) { y = Identity(x) }",
        "pair": "g (float[n,2] a, int64[n] b) => (float[n,2] c, int64[n] d) { c = Neg(a)  d = Neg(b) }",
    }.items():
        folder = tmp_path / "models" / name / "1"
        folder.mkdir(parents=True)
        onnx.save(
            onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}'),
            str(folder / "model.onnx"),
        )
    settings = Settings(
        repository=tmp_path / "models", cache_dir=tmp_path / "cache", load_trial=False, triton_compat=True
    )
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as opened:
        yield opened


A = {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
B = {"name": "b", "shape": [1], "datatype": "INT64", "data": [3]}


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        (
            [{**A, "shape": [2, 1]}, B],
            [],
            "unexpected shape for input 'a' for model 'pair'. Expected [-1,2], got [2,1]",
        ),
        (
            [A, {**B, "datatype": "INT32"}],
            [],
            "inference input 'b' data-type is 'INT32', but model 'pair' expects 'INT64'",
        ),
        ([A, {**B, "name": "q"}], [], "unexpected inference input 'q' for model 'pair'"),
        ([A, B], [{"name": "q"}], "unexpected inference output 'q' for model 'pair'"),
        (
            [B],
            [],
            (
                "expected 2 inputs but got 1 inputs for model 'pair'. Got input(s) ['b'], but missing "
                "required input(s) ['a']. Please provide all required input(s)."
            ),
        ),
        (
            [],
            [],
            (
                "expected 2 inputs but got 0 inputs for model 'pair'. Got input(s) [], but missing "
                "required input(s) ['a','b']. Please provide all required input(s)."
            ),
        ),
    ],
)
async def test_a_wrong_request_is_told_so(
    client: httpx.AsyncClient, inputs: list[Any], outputs: list[Any], text: str
) -> None:
    """400, in JSON."""
    body = {"inputs": inputs, **({"outputs": outputs} if outputs else {})}
    answer = await client.post("/v2/models/pair/infer", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": text})


async def test_a_half_in_json_is_refused_both_ways_and_counts_as_a_failure(
    client: httpx.AsyncClient,
) -> None:
    """It comes or would go so; as bytes it goes through."""
    body, _ = request("FP16", as_bytes=False)
    answer = await client.post("/v2/models/half/infer", content=body)
    assert (answer.status_code, answer.json()) == (400, {"error": HALF_IN.format("FP16")})
    body, json_bytes = request("FP16", as_bytes=True)
    header = {v2.HEADER_LENGTH: str(json_bytes)}
    answer = await client.post("/v2/models/half/infer", content=body, headers=header)
    assert (answer.status_code, answer.json()) == (400, {"error": HALF_OUT.format("FP16")})
    raw = np.array([1.5], np.float16).tobytes()
    answer = await client.post("/v2/models/half/infer", content=raw, headers={v2.HEADER_LENGTH: "0"})
    assert answer.status_code == 200
    assert answer.content.endswith(raw)
    (told,) = (await client.get("/v2/models/half/stats")).json()["model_stats"]
    assert [told["inference_stats"][each]["count"] for each in ("success", "fail")] == [1, 2]


async def test_a_full_queue_and_a_timeout(app: App, client: httpx.AsyncClient) -> None:
    """503 both, with Triton's texts, where infold would say 503 and 504."""

    def infer(turns: int, **parameters: int) -> Any:
        tensor = {"name": "n", "shape": [1], "datatype": "INT64", "data": [turns]}
        return client.post("/v2/models/slow/infer", json={"inputs": [tensor], "parameters": parameters})

    servable = app.state.service.models.find("slow")
    busy = asyncio.create_task(infer(10**12))
    while not servable.in_flight:
        await asyncio.sleep(0)
    while servable.waiting_rows:
        await asyncio.sleep(0.001)
    late = await infer(1, timeout=1)
    assert (late.status_code, late.json()) == (503, {"error": "Request timeout expired"})
    waits = asyncio.create_task(infer(1))
    while servable.waiting_rows < servable.version.config.batching.capacity_rows:
        await asyncio.sleep(0)
    full = await infer(1)
    assert (full.status_code, full.json()) == (503, {"error": "Exceeds maximum queue size"})
    assert int(full.headers["retry-after"]) >= 1
    busy.cancel()
    assert (await waits).status_code == 200
    await asyncio.gather(busy, return_exceptions=True)


async def test_what_is_not_there_and_what_is_not_done(client: httpx.AsyncClient) -> None:
    """404, 503 and 501."""
    for path, text in {
        "/v2/models/nobody/infer": "Request for unknown model: 'nobody' is not found",
        "/v2/models/pair/versions/9/infer": "Request for unknown model: 'pair' version 9 is not found",
    }.items():
        answer = await client.post(path, json={"inputs": []})
        assert (answer.status_code, answer.json()) == (404, {"error": text})
    answer = await client.post("/v2/repository/models/pair/load")
    text = "explicit model load / unload is not allowed if polling is enabled"
    assert (answer.status_code, answer.json()) == (503, {"error": text})
    answer = await client.post("/v2/models/pair/infer", content=b"x", headers={"content-encoding": "br"})
    assert answer.status_code == 501
    assert answer.headers["accept-encoding"] == "gzip, deflate"


async def test_what_is_draining_is_not_ready(app: App, client: httpx.AsyncClient) -> None:
    """As a whole it has no version; the one asked for by its number is not at ready state."""
    from infold.serving import State

    servable = app.state.service.models.find("pair")
    servable.to(State.DRAINING)
    answer = await client.post("/v2/models/pair/infer", json={"inputs": [A, B]})
    text = "Request for unknown model: 'pair' has no available versions"
    assert (answer.status_code, answer.json()) == (404, {"error": text})
    answer = await client.post("/v2/models/pair/versions/1/infer", json={"inputs": [A, B]})
    text = "Request for unknown model: 'pair' version 1 is not at ready state"
    assert (answer.status_code, answer.json()) == (503, {"error": text})
    servable.state = State.READY


async def test_health_is_told_by_the_status_alone(app: App, client: httpx.AsyncClient) -> None:
    """Ready or not."""
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/pair/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    app.state.service.models.begin_drain()
    answer = await client.get("/v2/health/ready")
    assert (answer.status_code, answer.content) == (503, b"")


def test_the_name_is_triton_unless_another_is_given() -> None:
    """And infold where nothing is said of Triton."""
    assert Settings(triton_compat=True).name == "triton"
    assert Settings(triton_compat=True, server_name="mine").name == "mine"
    assert Settings().name == "infold"
    assert Settings(server_name="mine").name == "mine"
