"""Triton's Python client over real sockets: health, metadata, tensors, requests, mistakes.

What Triton calls extensions is in `test_tritonclient_extensions` and
`test_tritonclient_repository`.
"""

import itertools
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

import infold
from clients.models import NUMBERS, Array, sample
from servers import Server

WAYS = list(itertools.product((True, False), (True, False)))


def given(name: str, array: Array, datatype: str, *, binary: bool = True) -> InferInput:
    """An input of a request."""
    tensor = InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def x(rows: int = 1) -> InferInput:
    """What `times` takes: rows of 1, 2, 3, 4."""
    return given("x", np.tile(np.arange(1, 5, dtype=np.float32), (rows, 1)), "FP32")


def values(result: InferResult, name: str = "y") -> object:
    """An output as lists."""
    array = result.as_numpy(name)
    assert array is not None
    return array.tolist()


def echoed(client: InferenceServerClient, datatype: str, array: Array, ways: tuple[bool, bool]) -> Array:
    """What comes back from the model that gives back, sent and received as bytes or as JSON."""
    sent = given("x", array, datatype, binary=ways[0])
    wanted = [InferRequestedOutput("y", binary_data=ways[1])]
    result = client.infer(f"echo_{datatype.lower()}", [sent], outputs=wanted)
    output = result.get_output("y")
    assert output is not None
    assert (output["datatype"], "data" in output) == (datatype, not ways[1])
    answer = result.as_numpy("y")
    assert answer is not None
    return answer


# -- health ---------------------------------------------------------------------------------------


def test_the_server_is_live_and_ready(triton: InferenceServerClient) -> None:
    """Both questions are answered with yes."""
    assert triton.is_server_live()
    assert triton.is_server_ready()


def test_a_model_is_ready_as_a_whole_and_by_version(triton: InferenceServerClient) -> None:
    """With and without a version in the address."""
    assert triton.is_model_ready("table")
    assert triton.is_model_ready("times", "1")
    assert triton.is_model_ready("times", "2")


def test_what_is_not_there_is_not_ready(triton: InferenceServerClient) -> None:
    """A model that nobody knows, a version that a model lacks, a version that is no number."""
    assert not triton.is_model_ready("nobody")
    assert not triton.is_model_ready("times", "9")
    assert not triton.is_model_ready("times", "newest")


# -- metadata -------------------------------------------------------------------------------------

SERVED = {
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
}
NOT_SERVED = {"system_shared_memory", "cuda_shared_memory", "sequence", "trace", "logging", "generate"}


def test_the_server_tells_its_name_and_version(triton: InferenceServerClient) -> None:
    """Of infold itself."""
    told = triton.get_server_metadata()
    assert (told["name"], told["version"]) == ("infold", infold.__version__)


def test_the_server_lists_every_extension_that_it_serves(triton: InferenceServerClient) -> None:
    """By the names that Triton uses."""
    assert set(triton.get_server_metadata()["extensions"]) >= SERVED


def test_the_server_lists_no_extension_that_it_does_not_serve(triton: InferenceServerClient) -> None:
    """A client that looks there first is not led astray."""
    assert not NOT_SERVED & set(triton.get_server_metadata()["extensions"])


def test_a_model_tells_its_versions_platform_inputs_and_outputs(triton: InferenceServerClient) -> None:
    """The batch axis is part of the shape, and open like every length that is not fixed."""
    told = triton.get_model_metadata("times")
    assert (told["name"], told["platform"]) == ("times", "onnxruntime_onnx")
    assert sorted(told["versions"]) == ["1", "2"]
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert told["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
    assert triton.get_model_metadata("table")["inputs"][0]["shape"] == [2, 3]
    assert triton.get_model_metadata("peaks")["inputs"][0]["shape"] == [-1, 2, -1]


def test_one_version_tells_the_same_of_itself(triton: InferenceServerClient) -> None:
    """With its version in the address."""
    assert triton.get_model_metadata("times", "1")["inputs"] == triton.get_model_metadata("times")["inputs"]


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
def test_metadata_names_every_datatype_as_the_protocol_does(
    triton: InferenceServerClient, datatype: str
) -> None:
    """The client builds its inputs from these names."""
    told = triton.get_model_metadata(f"echo_{datatype.lower()}")
    assert told["inputs"][0]["datatype"] == told["outputs"][0]["datatype"] == datatype


# -- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ways", WAYS, ids=["bytes-bytes", "bytes-json", "json-bytes", "json-json"])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_comes_back_as_it_went(
    triton: InferenceServerClient, datatype: str, ways: tuple[bool, bool]
) -> None:
    """Extremes included, as bytes and as JSON, either way."""
    array = sample(datatype)
    answer = echoed(triton, datatype, array, ways)
    assert answer.dtype == array.dtype
    np.testing.assert_array_equal(answer, array)


@pytest.mark.parametrize("ways", WAYS, ids=["bytes-bytes", "bytes-json", "json-bytes", "json-json"])
def test_strings_come_back_as_they_went(triton: InferenceServerClient, ways: tuple[bool, bool]) -> None:
    """The empty one, one with an umlaut and one with a zero byte, as BYTES."""
    array = sample("BYTES")
    answer = echoed(triton, "BYTES", array, ways)
    texts = [each if isinstance(each, str) else each.decode() for each in answer.reshape(-1)]
    assert texts == [each.decode() for each in array.reshape(-1)]


def test_bytes_that_are_no_text_are_refused(triton: InferenceServerClient) -> None:
    """A string of a model is UTF-8; what is not is told by its place."""
    array = np.array([[b"ok", b"\xff\xfe"]], np.object_)
    with pytest.raises(InferenceServerException, match=r"inputs\[0\]\[1\]: is no UTF-8") as caught:
        triton.infer("echo_bytes", [given("x", array, "BYTES")])
    assert caught.value.status() == "400"


@pytest.fixture
def bf16(bf16_server: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(bf16_server.address) as client:
        yield client


def test_bf16_comes_back_as_it_went(bf16: InferenceServerClient) -> None:
    """As bytes, which is the only way that the client sends it."""
    array = sample("BF16")
    answer = echoed(bf16, "BF16", array, (True, True))
    assert answer.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(answer.view(np.uint16), array.view(np.uint16))


def test_bf16_comes_as_json_where_that_is_asked_for(bf16: InferenceServerClient) -> None:
    """As numbers, as FP16 does."""
    array = np.array([[1.5, -2, 0.15625]], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(echoed(bf16, "BF16", array, (True, False)), array)


def test_metadata_names_bf16(bf16: InferenceServerClient) -> None:
    """As Triton does; the protocol itself has no such datatype."""
    assert bf16.get_model_metadata("echo_bf16")["inputs"][0]["datatype"] == "BF16"


@pytest.mark.parametrize("ways", WAYS, ids=["bytes-bytes", "bytes-json", "json-bytes", "json-json"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_tensor_without_elements_keeps_its_shape(
    triton: InferenceServerClient, datatype: str, shape: tuple[int, int], ways: tuple[bool, bool]
) -> None:
    """No rows, no columns, neither."""
    array = np.zeros(shape, np.float32 if datatype == "FP32" else np.object_)
    assert echoed(triton, datatype, array, ways).shape == shape


def test_nan_and_infinities_survive_as_bytes(triton: InferenceServerClient) -> None:
    """Bit by bit."""
    array = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    answer = echoed(triton, "FP32", array, (True, True))
    np.testing.assert_array_equal(answer.view(np.uint32), array.view(np.uint32))


def test_nan_comes_as_null_in_json(triton: InferenceServerClient) -> None:
    """JSON has no NaN; the client makes NaN of null again."""
    array = np.array([[np.nan, 1]], np.float32)
    np.testing.assert_array_equal(echoed(triton, "FP32", array, (True, False)), array)


def test_a_model_without_a_batch_axis_takes_exactly_its_shape(triton: InferenceServerClient) -> None:
    """Nothing is added in front of it."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert values(triton.infer("table", [given("x", array, "FP32")])) == (-array).tolist()


@pytest.mark.parametrize("width", [1, 5, 300])
def test_an_open_axis_takes_any_length(triton: InferenceServerClient, width: int) -> None:
    """From one request to the next."""
    array = np.random.default_rng(width).standard_normal((3, 2, width)).astype(np.float32)
    assert values(triton.infer("peaks", [given("x", array, "FP32")])) == array.max(axis=1).tolist()


def test_two_inputs_and_two_outputs_of_two_types(triton: InferenceServerClient) -> None:
    """One as bytes and one as JSON, each way."""
    a, b = np.array([[1.5, 2]], np.float32), np.array([[10, 20]])
    wanted = [
        InferRequestedOutput("same", binary_data=True),
        InferRequestedOutput("total", binary_data=False),
    ]
    sent = [given("a", a, "FP32", binary=False), given("b", b, "INT64")]
    result = triton.infer("pair", sent, outputs=wanted)
    assert (values(result, "total"), values(result, "same")) == ([[11.5, 22]], [[10, 20]])


# -- requests -------------------------------------------------------------------------------------


def test_a_request_id_comes_back(triton: InferenceServerClient) -> None:
    """And none where none was sent."""
    assert triton.infer("times", [x()], request_id="order-66").get_response()["id"] == "order-66"
    assert "id" not in triton.infer("times", [x()]).get_response()


def test_each_version_answers_for_itself_and_the_newest_for_the_model(triton: InferenceServerClient) -> None:
    """Version 1 doubles, version 2 trebles; the answer says which it was."""
    for asked, number, factor in (("1", "1", 2), ("2", "2", 3), ("", "2", 3)):
        result = triton.infer("times", [x()], model_version=asked)
        response = result.get_response()
        assert (response["model_name"], response["model_version"]) == ("times", number)
        assert values(result) == [[factor, 2 * factor, 3 * factor, 4 * factor]]


def test_outputs_come_in_the_order_asked(triton: InferenceServerClient) -> None:
    """Not in the model's."""
    ones = np.ones((1, 4), np.float32)
    sent = [given("a", ones, "FP32"), given("b", ones, "FP32")]
    asked = [InferRequestedOutput("difference"), InferRequestedOutput("sum")]
    result = triton.infer("add_sub", sent, outputs=asked)
    assert [each["name"] for each in result.get_response()["outputs"]] == ["difference", "sum"]
    assert (values(result, "difference"), values(result, "sum")) == ([[0] * 4], [[2] * 4])


def test_only_the_outputs_asked_for_come(triton: InferenceServerClient) -> None:
    """The other one is not in the answer."""
    ones = np.ones((1, 4), np.float32)
    sent = [given("a", ones, "FP32"), given("b", ones, "FP32")]
    result = triton.infer("add_sub", sent, outputs=[InferRequestedOutput("difference")])
    assert [each["name"] for each in result.get_response()["outputs"]] == ["difference"]
    assert result.as_numpy("sum") is None


def test_without_a_list_all_outputs_come_as_bytes(triton: InferenceServerClient) -> None:
    """In the model's order: the client asks for bytes wherever it asks for no output."""
    ones = np.ones((1, 4), np.float32)
    result = triton.infer("add_sub", [given("a", ones, "FP32"), given("b", ones, "FP32")])
    outputs = result.get_response()["outputs"]
    assert [each["name"] for each in outputs] == ["sum", "difference"]
    assert [each["parameters"] for each in outputs] == [{"binary_data_size": 16}] * 2


def test_custom_parameters_are_taken(triton: InferenceServerClient) -> None:
    """Strings, numbers and truths; what nobody knows is no mistake."""
    custom = {"trace": "abc", "temperature": 0.5, "tries": 3, "is_test": True}
    assert values(triton.infer("times", [x()], parameters=custom)) == [[3, 6, 9, 12]]


def test_priority_and_timeout_are_taken(triton: InferenceServerClient) -> None:
    """Where there is nothing to wait for they change nothing."""
    assert values(triton.infer("times", [x()], priority=1, timeout=10_000_000)) == [[3, 6, 9, 12]]


def test_a_sequence_is_refused(triton: InferenceServerClient) -> None:
    """Its requests would have to reach one state, and models have none: 400 in words."""
    with pytest.raises(InferenceServerException, match=r"\[400\] parameters.sequence_id: .*not served"):
        triton.infer("times", [x()], sequence_id=7, sequence_start=True)


def test_headers_and_a_query_of_the_callers_own_are_taken(triton: InferenceServerClient) -> None:
    """Proxies add them."""
    result = triton.infer(
        "times", [x()], headers={"x-tenant": "blue"}, query_params={"a": [1, 2], "b": "c d"}
    )
    assert values(result) == [[3, 6, 9, 12]]


def test_many_requests_at_once_all_get_their_own_answer(server: Server) -> None:
    """The client's own way of sending several."""
    with InferenceServerClient(server.address, concurrency=4) as client:
        arrays = [np.full((rows % 3 + 1, 4), rows, np.float32) for rows in range(24)]
        pending = [client.async_infer("times", [given("x", each, "FP32")]) for each in arrays]
        for array, answer in zip(arrays, pending, strict=True):
            assert values(answer.get_result(timeout=30)) == (array * 3).tolist()


def test_a_request_that_fails_among_many_fails_alone(server: Server) -> None:
    """Its neighbours are answered."""
    with InferenceServerClient(server.address, concurrency=3) as client:
        names = ["times", "nobody", "times"]
        pending = [client.async_infer(name, [x()]) for name in names]
        assert values(pending[0].get_result()) == [[3, 6, 9, 12]]
        with pytest.raises(InferenceServerException, match="nobody"):
            pending[1].get_result()
        assert values(pending[2].get_result()) == [[3, 6, 9, 12]]


# -- mistakes -------------------------------------------------------------------------------------

ONES = np.ones((1, 4), np.float32)


def refusal(caught: "pytest.ExceptionInfo[InferenceServerException]") -> tuple[str, str]:
    """Status and text of an error that the client could read."""
    text = caught.value.message()
    assert text
    assert "an exception occurred in the client" not in text
    assert "empty response" not in text
    return caught.value.status(), text


@pytest.mark.parametrize(
    ("model", "version", "tensor", "output", "status", "text"),
    [
        ("nobody", "", ("x", ONES, "FP32"), "y", "404", "unknown model: 'nobody' is not found"),
        ("times", "9", ("x", ONES, "FP32"), "y", "404", "'times' version 9"),
        ("times", "newest", ("x", ONES, "FP32"), "y", "404", "'times' version newest"),
        ("times", "", ("x", ONES[0], "FP32"), "y", "400", "shape [4] given, the model takes [-1, 4]"),
        ("times", "", ("x", ONES[:, :3], "FP32"), "y", "400", "shape [1, 3] given"),
        ("table", "", ("x", ONES[:, :3], "FP32"), "y", "400", "the model takes [2, 3]"),
        ("times", "", ("x", ONES.astype(float), "FP64"), "y", "400", "FP64 given, the model takes FP32"),
        ("times", "", ("z", ONES, "FP32"), "y", "400", "no input 'z'; it has 'x'"),
        ("add_sub", "", ("a", ONES, "FP32"), "sum", "400", "'b' is missing"),
        ("times", "", ("x", ONES, "FP32"), "q", "400", "no output 'q'; it has 'y'"),
        ("lookup", "", ("index", np.array([7]), "INT64"), "value", "400", "idx"),
    ],
    ids=[
        "unknown model", "unknown version", "version that is no number", "wrong rank", "wrong length",
        "wrong length without a batch axis", "wrong datatype", "unknown input", "missing input",
        "unknown output", "value the graph cannot take",
    ],
)  # fmt: skip
@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_a_mistake_is_told_in_words(
    triton: InferenceServerClient, model: str, version: str, tensor: tuple[str, Array, str],
    output: str, status: str, text: str, binary: bool,
) -> None:  # fmt: skip
    """The client raises its own exception with our text and our status, never 500."""
    sent = given(*tensor, binary=binary)
    with pytest.raises(InferenceServerException) as caught:
        triton.infer(model, [sent], version, outputs=[InferRequestedOutput(output)])
    assert refusal(caught)[0] == status
    assert text in refusal(caught)[1]


def test_an_input_or_output_that_comes_twice_is_a_mistake(triton: InferenceServerClient) -> None:
    """Which of the two would count?"""
    with pytest.raises(InferenceServerException, match="'x' is given twice"):
        triton.infer("times", [x(), x()])
    with pytest.raises(InferenceServerException, match="'y' is asked for twice"):
        triton.infer("times", [x()], outputs=[InferRequestedOutput("y"), InferRequestedOutput("y")])


def test_a_mistake_in_an_address_is_told_in_words(triton: InferenceServerClient) -> None:
    """The same for metadata."""
    for arguments in (("nobody",), ("times", "9")):
        with pytest.raises(InferenceServerException, match="is not found") as caught:
            triton.get_model_metadata(*arguments)
        assert refusal(caught)[0] == "404"


def test_a_mistake_leaves_the_connection_usable(triton: InferenceServerClient) -> None:
    """The next request on it is answered."""
    for _ in range(3):
        with pytest.raises(InferenceServerException):
            triton.infer("nobody", [x(1000)])
        assert values(triton.infer("times", [x()])) == [[3, 6, 9, 12]]
