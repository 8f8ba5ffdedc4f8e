"""Tensors as bytes over real sockets: Triton's own client, raw bodies, long bodies, mistakes."""

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from servers import Server

OCTETS = {"content-type": "application/octet-stream"}
ALONE = {"inference-header-content-length": "0"}
LENGTH = "inference-header-content-length"
KINDS = [
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "fp16",
    "fp32",
    "fp64",
]
AS_BYTES = {"parameters": {"binary_data_output": True}}
X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture
def triton(server: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.address) as client:
        yield client


def entry(array: np.ndarray, **changes: Any) -> dict[str, Any]:
    entry = {"name": "x", "shape": list(array.shape), "datatype": "FP32"}
    return {**entry, "parameters": {"binary_data_size": array.nbytes}, **changes}


def post(
    client: httpx.Client, header: Any, tensors: bytes, model: str = "double", **fields: str
) -> httpx.Response:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    headers = {LENGTH: str(len(text)), **OCTETS, **fields}
    return client.post(f"/v2/models/{model}/infer", content=text + tensors, headers=headers)


def parted(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    """JSON and bytes of an answer."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[LENGTH])
    return json.loads(answer.content[:length]), answer.content[length:]


@pytest.mark.parametrize("name", KINDS)
def test_every_datatype_goes_and_comes_as_bytes(triton: InferenceServerClient, name: str) -> None:
    """Extremes included; the client asks for bytes back unless it is told otherwise."""
    kind = np.dtype({"fp16": "float16", "fp32": "float32", "fp64": "float64"}.get(name, name))
    if kind.kind == "b":
        array = np.array([[True, False, True]])
    else:
        limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)  # type: ignore[arg-type]
        array = np.array([[limits.min, limits.max, 1]], kind)
    sent = InferInput("x", list(array.shape), name.upper())
    sent.set_data_from_numpy(array)
    np.testing.assert_array_equal(triton.infer(f"echo_{name}", [sent]).as_numpy("y"), array)


def test_strings_go_and_come_as_bytes(triton: InferenceServerClient) -> None:
    """Each behind its length."""
    array = np.array(["", "plain", "zwölf"], np.object_)
    sent = InferInput("x", [3], "BYTES")
    sent.set_data_from_numpy(array)
    result = triton.infer("text", [sent]).as_numpy("y")
    assert result is not None
    assert [each.decode() for each in result] == array.tolist()


def test_some_inputs_and_outputs_are_json_and_others_bytes(triton: InferenceServerClient) -> None:
    """Each as it says for itself."""
    a, b = InferInput("a", [1, 2], "FP32"), InferInput("b", [1, 2], "INT64")
    a.set_data_from_numpy(np.array([[1, 2]], np.float32), binary_data=False)
    b.set_data_from_numpy(np.array([[10, 20]]), binary_data=True)
    wanted = [
        InferRequestedOutput("same", binary_data=True),
        InferRequestedOutput("total", binary_data=False),
    ]
    result = triton.infer("pair", [a, b], outputs=wanted, request_id="mix")
    answer = result.get_response()
    assert answer["id"] == "mix"
    assert ["data" in each for each in answer["outputs"]] == [False, True]
    for name, values in (("same", [[10, 20]]), ("total", [[11, 22]])):
        array = result.as_numpy(name)
        assert array is not None
        assert array.tolist() == values


def test_a_request_that_is_nothing_but_its_tensor(server: Server) -> None:
    """Rows follow from its length; the answer is bytes behind their header."""
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    with httpx.Client(base_url=server.url) as client:
        for fields in ({LENGTH: "0"}, OCTETS | {LENGTH: "0"}):
            answer = client.post("/v2/models/double/infer", content=rows.tobytes(), headers=fields)
            header, tensors = parted(answer)
            assert header["outputs"][0]["shape"] == [3, 4]
            assert (np.frombuffer(tensors, np.float32).reshape(3, 4) == rows * 2).all()
        text = client.post("/v2/models/text/infer", content="zwölf".encode(), headers={LENGTH: "0"})
        assert parted(text)[1] == struct.pack("<I", 6) + "zwölf".encode()


@pytest.mark.parametrize("width", [1, 4000, 65536])
def test_long_bodies_in_both_forms(server: Server, width: int) -> None:
    """Longer than what uvicorn keeps in memory at once; several on one connection."""
    array = np.random.default_rng(width).random((4, width), np.float32)
    inputs = [{"name": "x", "shape": [4, width], "datatype": "FP32", "data": array.tolist()}]
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(3):
            header, tensors = parted(
                post(client, {"inputs": [entry(array)], **AS_BYTES}, array.tobytes(), "echo_fp32")
            )
            assert tensors == array.tobytes()
            assert header["outputs"][0]["parameters"] == {"binary_data_size": array.nbytes}
        for body in ({"inputs": inputs}, {"inputs": [{**inputs[0], "data": array.reshape(-1).tolist()}]}):
            data = client.post("/v2/models/echo_fp32/infer", json=body).json()["outputs"][0]["data"]
            assert (np.array(data, np.float32) == array.reshape(-1)).all()
        instances = client.post("/v1/models/echo_fp32:predict", json={"instances": array.tolist()}).json()
        assert (np.array(instances["predictions"], np.float32) == array).all()


@pytest.mark.parametrize(
    ("header", "tensors", "message"),
    [
        ({"inputs": [entry(X)]}, X.tobytes()[:-1], "binary_data_size: 16, but the body has 15 bytes left"),
        ({"inputs": [entry(X)]}, X.tobytes() + b"!", "1 bytes are left behind the last input"),
        (
            {"inputs": [entry(X, parameters={"binary_data_size": 12})]},
            X.tobytes()[:12],
            "inputs[0]: 12 bytes given, shape [1, 4] of FP32 takes 16",
        ),
        ({"inputs": [entry(X, parameters={"binary_data_size": -1})]}, b"", "-1 is no number of bytes"),
        ({"inputs": [entry(X, parameters={"binary_data_size": True})]}, b"", "True is no number of bytes"),
        ({"inputs": [entry(X, data=[1, 2, 3, 4])]}, X.tobytes(), "has both 'data' and 'binary_data_size'"),
        ({"inputs": [entry(X, shape=[4])]}, X.tobytes(), "inputs[0].shape: shape [4] given"),
        ({"inputs": [entry(X, name="z")]}, X.tobytes(), "inputs[0].name: the model has no input 'z'"),
        (b"{", b"", "not valid JSON"),
        (
            {"inputs": [entry(X)], "parameters": {"binary_data_output": 1}},
            X.tobytes(),
            "parameters.binary_data_output: must be true or false",
        ),
    ],
)
def test_a_wrong_binary_request_is_refused_by_its_place(
    server: Server, header: Any, tensors: bytes, message: str
) -> None:
    """400 and where."""
    with httpx.Client(base_url=server.url) as client:
        answer = post(client, header, tensors)
        assert answer.status_code == 400, answer.text
        assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ("-1", "'-1' is no number of bytes"),
        ("x", "'x' is no number of bytes"),
        ("9" * 30, "is no number of bytes"),
        ("999999999", "exceeds the maximum allowed"),
        ("100000", "100000, but the body has 16 bytes"),
    ],
)
def test_a_header_length_that_makes_no_sense(server: Server, length: str, message: str) -> None:
    """Named as what it is."""
    with httpx.Client(base_url=server.url) as client:
        answer = client.post("/v2/models/double/infer", content=X.tobytes(), headers={LENGTH: length})
        assert answer.status_code == 400
        assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        ("double", b"x" * 15, "15 bytes are no multiple of 16"),
        ("pair", b"x" * 16, "the model has several inputs"),
        ("echo_fp32", b"x" * 6, "6 bytes are no multiple of 4"),
        ("text", b"\xff", "is no UTF-8"),
        ("echo_bool", b"\x02", "a BOOL is a byte of 0 or 1"),
    ],
)
def test_a_raw_tensor_that_does_not_fit(server: Server, model: str, content: bytes, message: str) -> None:
    """400 and why."""
    with httpx.Client(base_url=server.url) as client:
        answer = client.post(f"/v2/models/{model}/infer", content=content, headers=ALONE)
        assert answer.status_code == 400, answer.text
        assert message in answer.json()["error"]


def test_a_long_body_that_is_refused_leaves_the_connection_usable(server: Server) -> None:
    """The rest of it is taken in and forgotten; the next request is read from its first byte."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(3):
            refused = client.post("/v2/models/nobody/infer", content=b"x" * 1_000_000, headers=ALONE)
            assert refused.status_code == 404
            answer = client.post("/v2/models/double/infer", content=X.tobytes(), headers=ALONE)
            assert answer.status_code == 200


def raw(server: Server) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


HEAD = b"POST /v2/models/echo_fp32/infer HTTP/1.1\r\nhost: x\r\ninference-header-content-length: 0\r\n"


def read_answer(stream: BinaryIO) -> bytes:
    """One answer with a content-length, and not a byte of the next."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.readline()
    lines = head.split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
    return head + stream.read(length)


def test_a_long_body_in_small_pieces_with_the_next_request_behind_it(server: Server) -> None:
    """Not a byte of the second request is lost in the first one's body, nor the other way round."""
    with httpx.Client(base_url=server.url) as client:
        shape = client.get("/v2/models/echo_fp32").json()["inputs"][0]["shape"]
    assert shape == [-1, -1]
    body = np.arange(50_000, dtype=np.float32).tobytes()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    small = HEAD + b"content-length: 8\r\n\r\n" + body[:8]
    sent = request + small + request
    with raw(server) as sock, sock.makefile("rb") as stream:
        for start in range(0, len(sent), 33_333):
            sock.sendall(sent[start : start + 33_333])
        answers = [read_answer(stream) for _ in range(3)]
    assert [answer.endswith(body) for answer in answers] == [True, False, True]
    assert answers[1].endswith(body[:8])


def test_a_client_that_asks_before_it_sends(server: Server) -> None:
    """`Expect: 100-continue`, as curl does for long bodies."""
    body = np.zeros(40_000, np.float32).tobytes()
    with raw(server) as sock:
        sock.sendall(HEAD + b"content-length: %d\r\nexpect: 100-continue\r\n\r\n" % len(body))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(body)
        with sock.makefile("rb") as stream:
            assert read_answer(stream).startswith(b"HTTP/1.1 200")


def test_a_client_that_leaves_in_the_middle_of_its_body(server: Server) -> None:
    """Nobody waits for the rest; the server answers others."""
    with raw(server) as sock:
        sock.sendall(HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 300_000)
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/v2/models/double/infer", content=X.tobytes(), headers=ALONE).status_code == 200
        assert "binary_tensor_data" in client.get("/v2").json()["extensions"]
