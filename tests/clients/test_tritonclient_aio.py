"""Triton's asyncio client over real sockets.

It differs from the other one in what it sends: aiohttp offers to take compressed
answers with every request, and the client unpacks nothing but those of `infer`.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.http.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from clients.models import NUMBERS, TIMES, Array, sample, write
from servers import Server

# The client does not read what it is answered to questions of health, and so may leave a connection open.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a test's client leaves behind is gone before the next test, which has nothing to do with it."""
    yield
    gc.collect()


@pytest.fixture
async def aio(server: Server) -> AsyncIterator[InferenceServerClient]:
    """The client for the common server."""
    async with InferenceServerClient(server.address) as client:
        yield client


def given(name: str, array: Array, datatype: str, *, binary: bool = True) -> InferInput:
    """An input of a request."""
    tensor = InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def x(rows: int = 1, value: float = 1) -> InferInput:
    """What `times` takes."""
    return given("x", np.full((rows, 4), value, np.float32), "FP32")


# -- health and metadata --------------------------------------------------------------------------


async def test_live_and_ready(aio: InferenceServerClient) -> None:
    """The server, a model, a version; and not what is not there."""
    assert await aio.is_server_live()
    assert await aio.is_server_ready()
    assert await aio.is_model_ready("times")
    assert await aio.is_model_ready("times", "1")
    assert not await aio.is_model_ready("nobody")
    assert not await aio.is_model_ready("times", "9")


async def test_metadata_of_the_server_and_of_models(aio: InferenceServerClient) -> None:
    """Readable as it comes: not compressed."""
    assert (await aio.get_server_metadata())["name"] == "infold"
    told = await aio.get_model_metadata("times", "1")
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    with pytest.raises(InferenceServerException, match=r"\[404\].* is not found"):
        await aio.get_model_metadata("nobody")


async def test_configuration(aio: InferenceServerClient) -> None:
    """Of a model and of a version."""
    assert (await aio.get_model_config("times"))["name"] == "times"
    assert (await aio.get_model_config("table", "1"))["max_batch_size"] == 0


async def test_statistics(aio: InferenceServerClient) -> None:
    """Of all models, which is the longest text that this client must read as it comes."""
    await aio.infer("times", [x()])
    told = (await aio.get_inference_statistics())["model_stats"]
    assert len(told) > 10
    (one,) = (await aio.get_inference_statistics("times", "2"))["model_stats"]
    assert one["inference_stats"]["success"]["count"] >= 1


# -- repository -----------------------------------------------------------------------------------


async def test_index_unload_and_load(managed: tuple[Server, Path]) -> None:
    """A model goes and comes back."""
    async with InferenceServerClient(managed[0].address) as client:
        await client.unload_model("times")
        states = {each["name"]: each["state"] for each in await client.get_model_repository_index()}
        assert states == {"times": "UNAVAILABLE", "plain": "READY"}
        assert not await client.is_model_ready("times")
        await client.load_model("times")
        assert await client.is_model_ready("times")
        with pytest.raises(InferenceServerException, match="failed to load 'nobody'"):
            await client.load_model("nobody")


async def test_a_load_can_carry_a_configuration(managed: tuple[Server, Path]) -> None:
    """Triton's version policy, where the newest alone would be served."""
    for version, text in TIMES.items():
        write(managed[1], "later", text, version)
    config = '{"backend": "onnxruntime", "max_batch_size": 8, "version_policy": {"all": {}}}'
    async with InferenceServerClient(managed[0].address) as client:
        await client.load_model("later", config=config)
        assert await client.is_model_ready("later", "1")
        assert await client.is_model_ready("later", "2")


# -- inference ------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
async def test_every_datatype_comes_back_as_it_went(aio: InferenceServerClient, datatype: str) -> None:
    """As bytes, which is how the client sends and asks unless it is told otherwise."""
    array = sample(datatype)
    result = await aio.infer(f"echo_{datatype.lower()}", [given("x", array, datatype)])
    np.testing.assert_array_equal(result.as_numpy("y"), array)


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
async def test_every_datatype_comes_back_in_json(aio: InferenceServerClient, datatype: str) -> None:
    """Any body is application/octet-stream to aiohttp; without a header length it is JSON all the same."""
    array = sample(datatype)
    wanted = [InferRequestedOutput("y", binary_data=False)]
    result = await aio.infer(
        f"echo_{datatype.lower()}", [given("x", array, datatype, binary=False)], outputs=wanted
    )
    if datatype == "BYTES":
        array = np.array([[each.decode() for each in row] for row in array], np.object_)
    np.testing.assert_array_equal(result.as_numpy("y"), array)


async def test_id_version_parameters_and_order_of_outputs(aio: InferenceServerClient) -> None:
    """All that a request may say beside its tensors."""
    ones = np.ones((1, 4), np.float32)
    result = await aio.infer(
        "add_sub",
        [given("a", ones, "FP32"), given("b", ones, "FP32")],
        model_version="1",
        outputs=[InferRequestedOutput("difference"), InferRequestedOutput("sum", binary_data=False)],
        request_id="order-66",
        priority=1,
        timeout=10_000_000,
        parameters={"trace": "abc"},
        headers={"x-tenant": "blue"},
        query_params={"a": "b"},
    )
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("order-66", "1")
    assert [each["name"] for each in response["outputs"]] == ["difference", "sum"]


async def test_many_requests_at_once_all_get_their_own_answer(aio: InferenceServerClient) -> None:
    """A hundred, of several lengths."""
    sizes = [each % 3 + 1 for each in range(100)]
    results = await asyncio.gather(
        *(aio.infer("times", [x(rows, value)]) for value, rows in enumerate(sizes))
    )
    for value, (rows, result) in enumerate(zip(sizes, results, strict=True)):
        array = result.as_numpy("y")
        assert array is not None
        assert array.tolist() == [[3.0 * value] * 4] * rows


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_both_ways(aio: InferenceServerClient, encoding: str) -> None:
    """As the client offers it."""
    result = await aio.infer(
        "times",
        [x(32)],
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    array = result.as_numpy("y")
    assert array is not None
    assert array.tolist() == [[3.0] * 4] * 32


async def test_a_large_answer_is_read_though_aiohttp_takes_more_encodings_than_the_client(
    aio: InferenceServerClient,
) -> None:
    """Brotli and zstd are offered; an answer in one of them would be a riddle."""
    array = np.zeros((64, 1000), np.float32)
    result = await aio.infer("echo_fp32", [given("x", array, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("y"), array)


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "version", "tensor", "message"),
    [
        ("nobody", "", x(), r"\[404\] Request for unknown model: 'nobody' is not found"),
        ("times", "9", x(), r"\[404\] .*'times' version 9"),
        ("times", "", given("x", np.ones((1, 3), np.float32), "FP32"), r"\[400\] .*shape \[1, 3\] given"),
        ("times", "", given("x", np.ones((1, 4)), "FP64"), r"\[400\] .*FP64 given, the model takes FP32"),
        ("times", "", given("z" * 5000, np.ones((1, 4)), "FP64"), r"\[400\] .*no input 'zzzz"),
    ],
    ids=["unknown model", "unknown version", "wrong shape", "wrong datatype", "unknown input"],
)
async def test_a_mistake_is_told_in_words(
    aio: InferenceServerClient, model: str, version: str, tensor: InferInput, message: str
) -> None:
    """Also a long one: what is wrong is told in plain text, not compressed."""
    with pytest.raises(InferenceServerException, match=message):
        await aio.infer(model, [tensor], model_version=version)


async def test_what_is_not_served_says_so(aio: InferenceServerClient) -> None:
    """501 in words."""
    for call in (
        aio.get_system_shared_memory_status,
        aio.get_cuda_shared_memory_status,
        aio.get_trace_settings,
        aio.get_log_settings,
    ):
        with pytest.raises(InferenceServerException, match=r"\[501\].*is not served"):
            await call()
