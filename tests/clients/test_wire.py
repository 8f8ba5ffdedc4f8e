"""What Triton's client does not show of an exchange: headers, raw bodies, and what is compressed.

Requests are made and answers read by that client's own code where it has some.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from clients.models import SLOW, Array, write
from servers import running

LENGTH = "inference-header-content-length"
OCTETS = {"content-type": "application/octet-stream"}
INFER = "/v2/models/echo_fp32/infer"
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
# Long enough to be worth compressing, and compressible.
LARGE = np.zeros((64, 256), np.float32)


def given(array: Array, *, binary: bool = True) -> InferInput:
    """The input of a request."""
    return InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array, binary_data=binary)


def request(array: Array, *, binary: bool = True) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request, as the client makes them."""
    body, length = InferenceServerClient.generate_request_body([given(array, binary=binary)])
    return body, {} if length is None else {LENGTH: str(length)}


def raw_post(
    http: httpx.Client, body: bytes, headers: dict[str, str], path: str = INFER
) -> tuple[httpx.Response, bytes]:
    """An answer and its body as it came, still compressed."""
    with http.stream(
        "POST", path, content=body, headers={"accept-encoding": "identity", **headers}
    ) as answer:
        return answer, b"".join(answer.iter_raw())


def read(answer: httpx.Response, body: bytes) -> Array:
    """The output of an answer, read by the client."""
    assert answer.status_code == 200, body
    length = answer.headers.get(LENGTH)
    result: InferResult = InferenceServerClient.parse_response_body(
        body,
        header_length=None if length is None else int(length),
        content_encoding=answer.headers.get("content-encoding"),
    )
    array = result.as_numpy("y")
    assert array is not None
    return array


# -- JSON -----------------------------------------------------------------------------------------

TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}


def test_data_may_be_flat_or_nested(http: httpx.Client) -> None:
    """Row by row; the answer is flat."""
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        answer = http.post(INFER, json={"inputs": [{**TENSOR, "data": data}]}).json()
        (output,) = answer["outputs"]
        assert output == {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}


def test_fields_that_are_null_or_unknown_are_no_mistake(http: httpx.Client) -> None:
    """KServe's client sends the model's name too; others send null for what they leave out."""
    body = {"inputs": [{**TENSOR, "parameters": None}], "model_name": "x", "id": None, "outputs": None}
    answer = http.post(INFER, json={**body, "parameters": None})
    assert answer.status_code == 200, answer.text
    assert "id" not in answer.json()


def test_an_empty_list_of_outputs_means_all(http: httpx.Client) -> None:
    """As if there were none."""
    answer = http.post(INFER, json={"inputs": [TENSOR], "outputs": []}).json()
    assert [each["name"] for each in answer["outputs"]] == ["y"]


def test_an_output_has_the_last_word_on_how_it_comes(http: httpx.Client) -> None:
    """`binary_data` of an output beats `binary_data_output` of the request, either way."""
    for all_binary in (True, False):
        outputs = [{"name": "y", "parameters": {"binary_data": not all_binary}}]
        body = {"inputs": [TENSOR], "outputs": outputs, "parameters": {"binary_data_output": all_binary}}
        answer = http.post(INFER, json=body)
        assert (LENGTH in answer.headers) is not all_binary


@pytest.mark.parametrize("value", [[1], {"deep": 1}])
def test_parameters_are_flat(http: httpx.Client, value: object) -> None:
    """Of the request, of an input, of an output: 400 and where."""
    given_parameters = {"own": value}
    for body, place in (
        ({"inputs": [TENSOR], "parameters": given_parameters}, "parameters.own"),
        ({"inputs": [{**TENSOR, "parameters": given_parameters}]}, "inputs[0].parameters.own"),
        (
            {"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": given_parameters}]},
            "outputs[0].parameters.own",
        ),
    ):
        answer = http.post(INFER, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(f"{place}: ")


def test_parameters_that_triton_keeps_for_itself_are_refused(http: httpx.Client) -> None:
    """Those that begin with `triton_`, as Triton does."""
    body = {"inputs": [TENSOR], "parameters": {"triton_enable_empty_final_response": True}}
    answer = http.post(INFER, json=body)
    assert answer.status_code == 400
    assert "triton_enable_empty_final_response" in answer.json()["error"]


def test_all_models_are_listed(http: httpx.Client) -> None:
    """KServe's addition to the protocol."""
    assert {"times", "table", "echo_fp32"} <= set(http.get("/v2/models").json()["models"])


def test_the_server_is_described_with_a_slash_at_the_end_too(http: httpx.Client) -> None:
    """The two texts of the specification differ in that."""
    assert http.get("/v2/").json() == http.get("/v2").json()


def test_an_answer_that_takes_too_long_is_504(tmp_path: Path) -> None:
    """The deadline is the service's own setting."""
    write(tmp_path / "models", "slow", SLOW)
    body = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [100_000_000]}]}
    with running(tmp_path / "models", tmp_path / "log", INFOLD_DEADLINE_S="0.1") as server:
        answer = httpx.post(f"{server.url}/v2/models/slow/infer", json=body, timeout=30)
    assert (answer.status_code, list(answer.json())) == (504, ["error"])
    assert "deadline" in answer.json()["error"]


# -- binary ---------------------------------------------------------------------------------------


def test_a_binary_answer_says_where_its_json_ends(http: httpx.Client) -> None:
    """And that it is no JSON as a whole."""
    answer, body = raw_post(http, *request(LARGE[:2]))
    assert answer.headers["content-type"] == "application/octet-stream"
    head = json.loads(body[: int(answer.headers[LENGTH])])
    assert head["outputs"][0]["parameters"]["binary_data_size"] == LARGE[:2].nbytes
    assert (
        len(body) == int(answer.headers["content-length"]) == int(answer.headers[LENGTH]) + LARGE[:2].nbytes
    )


def test_an_answer_in_json_has_no_such_header(http: httpx.Client) -> None:
    """Its type says that it is JSON."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    answer = http.post(INFER, json={"inputs": [tensor]})
    assert answer.headers["content-type"] == "application/json"
    assert LENGTH not in answer.headers


def test_a_binary_request_needs_no_content_type(http: httpx.Client) -> None:
    """Triton's Python client sends none."""
    body, headers = request(LARGE[:1])
    assert read(*raw_post(http, body, headers)).shape == (1, 256)
    assert read(*raw_post(http, body, {**headers, **OCTETS})).shape == (1, 256)


def test_data_that_is_null_beside_a_binary_size_is_none(http: httpx.Client) -> None:
    """KServe's client sends both where the tensor has no elements."""
    tensor = {"name": "x", "shape": [0, 2], "datatype": "FP32", "data": None}
    tensor["parameters"] = {"binary_data_size": 0}
    answer = http.post(INFER, json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["shape"] == [0, 2]


def test_a_request_can_be_nothing_but_its_tensor(http: httpx.Client) -> None:
    """A header length of 0: the model's shape with one row, and bytes come back."""
    row = np.arange(4, dtype=np.float32)
    answer, body = raw_post(http, row.tobytes(), {LENGTH: "0"}, "/v2/models/times/infer")
    assert int(answer.headers[LENGTH]) > 0
    assert read(answer, body).tolist() == [(row * 3).tolist()]


def test_a_raw_string_is_one_string(http: httpx.Client) -> None:
    """Without its length in front."""
    answer, body = raw_post(http, "zwölf".encode(), {LENGTH: "0"}, "/v2/models/echo_bytes/infer")
    assert body[int(answer.headers[LENGTH]) :] == struct.pack("<I", 6) + "zwölf".encode()


@pytest.mark.parametrize(
    ("model", "content"), [("add_sub", b"x" * 32), ("times", b"x" * 15), ("echo_bytes", b"\xff")]
)
def test_a_raw_request_that_cannot_be_meant_is_refused(
    http: httpx.Client, model: str, content: bytes
) -> None:
    """Several inputs, a part of a row, a string that is none."""
    answer = http.post(f"/v2/models/{model}/infer", content=content, headers={LENGTH: "0"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("body")


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, "999999999"])
def test_a_header_length_that_makes_no_sense_is_refused(http: httpx.Client, length: str) -> None:
    """400, and the server lives."""
    answer = http.post(INFER, content=request(LARGE[:1])[0], headers={LENGTH: length})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Inference-Header-Content-Length")


@pytest.mark.parametrize("change", [-1, 1], ids=["short", "long"])
def test_a_body_shorter_or_longer_than_it_says_is_refused(http: httpx.Client, change: int) -> None:
    """Bytes behind the last tensor are a mistake too."""
    body, headers = request(LARGE[:1])
    answer = http.post(INFER, content=body[:change] if change < 0 else body + b"!", headers=headers)
    assert answer.status_code == 400
    assert "bytes" in answer.json()["error"]


# -- compression ----------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("encoding", PACKERS)
def test_a_compressed_request_is_read(triton: InferenceServerClient, encoding: str, binary: bool) -> None:
    """The header length counts what was there before it was compressed."""
    sent = [given(LARGE, binary=binary)]
    result = triton.infer("echo_fp32", sent, request_compression_algorithm=encoding)
    np.testing.assert_array_equal(result.as_numpy("y"), LARGE)


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("encoding", PACKERS)
def test_an_answer_is_compressed_where_that_is_asked_for(
    http: httpx.Client, encoding: str, binary: bool
) -> None:
    """Much shorter, and the client reads it."""
    if binary:
        body, headers = request(LARGE)
    else:
        tensor = {"name": "x", "shape": list(LARGE.shape), "datatype": "FP32", "data": LARGE.tolist()}
        body, headers = json.dumps({"inputs": [tensor]}).encode(), {}
    answer, packed = raw_post(http, body, {**headers, "accept-encoding": encoding})
    assert answer.headers["content-encoding"] == encoding
    assert len(packed) < LARGE.nbytes / 10
    np.testing.assert_array_equal(read(answer, packed), LARGE)


@pytest.mark.parametrize("encoding", PACKERS)
def test_both_ways_at_once(triton: InferenceServerClient, encoding: str) -> None:
    """As the client offers it."""
    result = triton.infer(
        "echo_fp32",
        [given(LARGE)],
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), LARGE)


@pytest.mark.parametrize(
    "accepted", ["identity", "br, zstd", "gzip;q=0", "deflate;q=0, gzip;q=0, identity", "nonsense"]
)
def test_an_answer_is_not_compressed_where_nobody_reads_that(http: httpx.Client, accepted: str) -> None:
    """Neither in what the caller refuses nor in what Triton's client cannot read."""
    answer, body = raw_post(http, request(LARGE)[0], {**request(LARGE)[1], "accept-encoding": accepted})
    assert "content-encoding" not in answer.headers
    np.testing.assert_array_equal(read(answer, body), LARGE)


@pytest.mark.parametrize("encoding", PACKERS)
def test_an_error_is_never_compressed(triton: InferenceServerClient, encoding: str) -> None:
    """The client does not unpack it, however long it is."""
    sent = given(LARGE)
    sent._name = "z" * 20_000
    with pytest.raises(InferenceServerException, match=r"\[400\] .*the model has no input 'zzz"):
        triton.infer("echo_fp32", [sent], response_compression_algorithm=encoding)


def test_metadata_is_never_compressed(triton: InferenceServerClient) -> None:
    """Nor does it unpack that; proxies and plugins set the header on every request."""
    wanted = {"Accept-Encoding": "gzip, deflate"}
    assert triton.get_server_metadata(headers=wanted)["name"] == "infold"
    assert triton.get_model_metadata("times", headers=wanted)["name"] == "times"


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "x"])
def test_an_encoding_that_is_not_served_is_415(http: httpx.Client, encoding: str) -> None:
    """In words that name it."""
    answer = http.post(INFER, content=b"x", headers={"content-encoding": encoding})
    assert answer.status_code == 415
    assert encoding in answer.json()["error"]


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_body_that_is_not_what_its_encoding_says_is_400(http: httpx.Client, encoding: str) -> None:
    """Plain, or cut off."""
    body, headers = request(LARGE)
    for content in (body, PACKERS[encoding](body)[:-10]):
        answer = http.post(INFER, content=content, headers={**headers, "content-encoding": encoding})
        assert answer.status_code == 400, answer.text
        assert encoding in answer.json()["error"]


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_body_that_grows_beyond_the_limit_is_413(http: httpx.Client, encoding: str) -> None:
    """A few kilobytes that unpack to more than a body may have."""
    bomb = PACKERS[encoding](bytes(2**26 + 1))
    answer = http.post(INFER, content=bomb, headers={**OCTETS, "content-encoding": encoding})
    assert answer.status_code == 413
    assert answer.json()["error"]
