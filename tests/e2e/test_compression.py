"""Compressed requests and answers over real sockets, by Triton's own client and byte by byte."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from infold.rest.connection import LONG_BYTES
from servers import Server, running

INFER = "/v2/models/echo_fp32/infer"
LENGTH = "inference-header-content-length"
CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
READ: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
# Zeros among noise: it shrinks, but to more than what is read at once.
RELU = np.maximum(np.random.default_rng(5).normal(size=(4, 30_000)), 0).astype(np.float32)


@pytest.fixture
def triton(server: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.address) as client:
        yield client


@pytest.mark.parametrize("width", [1, 3000, 30_000])
@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("there", [None, "gzip", "deflate"])
@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
def test_tritons_client_compresses_as_it_likes(
    triton: InferenceServerClient, width: int, is_binary: bool, there: str | None, back: str | None
) -> None:
    """Each way by itself, small and large, as JSON and as bytes."""
    sent = InferInput("x", [4, width], "FP32")
    sent.set_data_from_numpy(np.ascontiguousarray(RELU[:, :width]), binary_data=is_binary)
    result = triton.infer(
        "echo_fp32",
        [sent],
        outputs=[InferRequestedOutput("y", binary_data=is_binary)],
        request_compression_algorithm=there,
        response_compression_algorithm=back,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), RELU[:, :width])


def request_of(array: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """A request with its tensor as bytes, which wants bytes back."""
    entry = {"name": "x", "shape": list(array.shape), "datatype": "FP32"}
    entry["parameters"] = {"binary_data_size": array.nbytes}
    text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return text + array.tobytes(), {LENGTH: str(len(text)), "content-type": "application/octet-stream"}


def sent_back(
    client: httpx.Client, body: bytes, headers: dict[str, str], path: str = INFER
) -> tuple[httpx.Headers, bytes]:
    """Headers and body of a 200, as they came over the wire."""
    with client.stream("POST", path, content=body, headers=headers) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.status_code == 200, raw
    assert int(answer.headers["content-length"]) == len(raw)
    return answer.headers, raw


@pytest.mark.parametrize("coding", CODINGS)
def test_lengths_are_those_of_what_was_compressed(client: httpx.Client, coding: str) -> None:
    """The header's, there and back; that of the answer is what is sent."""
    body, headers = request_of(RELU)
    headers |= {"content-encoding": coding.upper(), "accept-encoding": coding}
    pressed = CODINGS[coding](body)
    assert LONG_BYTES < len(pressed) < len(body)
    for _ in range(2):
        fields, raw = sent_back(client, pressed, headers)
        assert fields["content-encoding"] == coding
        assert fields["vary"] == "accept-encoding"
        answer = READ[coding](raw)
        assert len(raw) < len(answer)
        length = int(fields[LENGTH])
        assert json.loads(answer[:length])["outputs"][0]["shape"] == list(RELU.shape)
        assert answer[length:] == RELU.tobytes()


def test_a_request_that_is_nothing_but_its_tensor_compressed(client: httpx.Client) -> None:
    """Its shape follows from what it was before; in chunks too."""
    headers = {LENGTH: "0", "content-encoding": "gzip", "accept-encoding": "identity"}
    pressed = gzip.compress(RELU.tobytes())
    for content in (pressed, iter([pressed[:1000], pressed[1000:]])):
        answer = client.post(INFER, content=content, headers=headers)
        assert "content-encoding" not in answer.headers
        assert answer.content[int(answer.headers[LENGTH]) :] == RELU.tobytes()


def test_a_stream_without_its_header_and_one_in_members(client: httpx.Client) -> None:
    """As some clients write them."""
    body, headers = request_of(RELU[:, :10].copy())
    stream = zlib.compressobj(wbits=-15)
    forms = {
        "deflate": stream.compress(body) + stream.flush(),
        "x-gzip": gzip.compress(body[:50]) + gzip.compress(body[50:]),
    }
    for coding, pressed in forms.items():
        _, raw = sent_back(
            client, pressed, headers | {"content-encoding": coding, "accept-encoding": "identity"}
        )
        assert raw.endswith(RELU[:, :10].tobytes())


@pytest.mark.parametrize("coding", CODINGS)
def test_predict_is_compressed_too(client: httpx.Client, coding: str) -> None:
    """TF-Serving's dialect, rows of numbers."""
    body = json.dumps({"instances": RELU.tolist()}).encode()
    headers = {"content-encoding": coding, "accept-encoding": f"{coding};q=0.1"}
    fields, raw = sent_back(client, CODINGS[coding](body), headers, "/v1/models/echo_fp32:predict")
    assert fields["content-encoding"] == coding
    assert np.array(json.loads(READ[coding](raw))["predictions"], np.float32).tolist() == RELU.tolist()


@pytest.mark.parametrize("length", [100, 2 * LONG_BYTES])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda body: body[:-1], "it ends too early"),
        (lambda body: body[:-8] + bytes(8), "incorrect data check"),
        (lambda body: body + b"\0", "member 2: it ends too early"),
        (lambda body: body + b"!!", "member 2: incorrect header check"),
        (lambda body: b"\0" + body, "incorrect header check"),
        (lambda body: zlib.compress(body), "incorrect header check"),
    ],
)
def test_a_broken_body_is_refused_and_the_connection_goes_on(
    client: httpx.Client, length: int, spoil: Callable[[bytes], bytes], message: str
) -> None:
    """400 and what is wrong with it; the refusal itself is never compressed."""
    body, headers = request_of(np.arange(length, dtype=np.float32)[None])
    pressed = spoil(gzip.compress(body, 0))
    refused = client.post(INFER, content=pressed, headers=headers | {"content-encoding": "gzip"})
    assert refused.status_code == 400
    assert f"content-encoding: the body is no whole gzip stream: {message}" in refused.json()["error"]
    assert {"content-encoding", "connection"}.isdisjoint(refused.headers)
    assert client.post(INFER, content=body, headers=headers).content.endswith(body[-4 * length :])


def test_a_length_beyond_what_was_compressed_is_refused(client: httpx.Client) -> None:
    """It counts bytes of the body as it was before."""
    headers = {LENGTH: "900", "content-encoding": "gzip"}
    answer = client.post(INFER, content=gzip.compress(b" " * 800), headers=headers)
    assert answer.status_code == 400
    assert "900, but the body has 800 bytes" in answer.json()["error"]


@pytest.mark.parametrize("coding", ["br", "gzip, deflate", "gzip, gzip", "identity, gzip"])
def test_what_is_not_served_is_415_with_what_is(client: httpx.Client, coding: str) -> None:
    """The body is not read for that."""
    answer = client.post(INFER, content=bytes(2 * LONG_BYTES), headers={"content-encoding": coding})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("identity", None),
        ("br", None),
    ],
)
def test_an_answer_comes_as_its_caller_weighs(
    client: httpx.Client, accepted: str, coding: str | None
) -> None:
    """Not at all compressed where nothing that is served is liked."""
    body, headers = request_of(RELU)
    fields, raw = sent_back(client, body, headers | {"accept-encoding": accepted})
    assert fields.get("content-encoding") == coding
    answer = raw if coding is None else READ[coding](raw)
    assert answer.endswith(RELU.tobytes())


def test_short_answers_noise_and_what_is_no_tensor_go_out_as_they_are(client: httpx.Client) -> None:
    """Though the client would take them compressed."""
    short, headers = request_of(RELU[:, :20].copy())
    assert "content-encoding" not in client.post(INFER, content=short, headers=headers).headers
    noise = np.random.default_rng(6).normal(size=(4, 30_000)).astype(np.float32)
    body, headers = request_of(noise)
    assert "content-encoding" not in client.post(INFER, content=body, headers=headers).headers
    fields, raw = sent_back(client, body, headers | {"accept-encoding": "gzip, identity;q=0"})
    assert fields["content-encoding"] == "gzip"
    assert gzip.decompress(raw).endswith(noise.tobytes())
    for path in ("/metrics", "/openapi.json", "/v2/models"):
        assert "content-encoding" not in client.get(path).headers


def test_a_bomb_is_refused_and_the_connection_goes_on(client: httpx.Client) -> None:
    """413 that says what is too large; all of the body was read, so nothing is closed."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(2**20)) + stream.flush(zlib.Z_FULL_FLUSH)
    for megabytes in (65, 1024):
        refused = client.post(
            INFER, content=block * megabytes + b"\x03\0", headers={"content-encoding": "deflate"}
        )
        assert refused.status_code == 413
        assert refused.json()["error"] == (
            "the decompressed request body exceeds the maximum allowed 67108864 bytes"
        )
        assert "connection" not in refused.headers
    body, headers = request_of(RELU)
    assert client.post(INFER, content=body, headers=headers).content.endswith(RELU.tobytes())


def test_the_limit_holds_for_a_body_before_and_after(repository: Path, tmp_path: Path) -> None:
    """To the byte where it is inflated; and answers are as they are where that is so set."""
    with (
        running(
            repository,
            tmp_path / "log",
            INFOLD_MAX_BODY_BYTES="100000",
            INFOLD_COMPRESS_RESPONSES="false",
        ) as server,
        httpx.Client(base_url=server.url) as client,
    ):

        def post(size: int, behind: int = 0) -> httpx.Response:
            body = gzip.compress(bytes(size)) + bytes(behind)
            headers = {LENGTH: "0", "content-encoding": "gzip"}
            return client.post(INFER, content=body, headers=headers)

        exact = post(100_000)
        assert exact.status_code == 200
        assert "content-encoding" not in exact.headers
        assert exact.content.endswith(bytes(100_000))
        above = post(100_004)
        assert (above.status_code, "decompressed" in above.text) == (413, True)
        sent = post(16, behind=100_000)
        assert (sent.status_code, "decompressed" in sent.text) == (413, False)
        assert sent.headers["connection"] == "close"
