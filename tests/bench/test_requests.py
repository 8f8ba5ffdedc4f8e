"""What is sent, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infold.bench.requests import Body, binary_body, framed, json_body, request_tensors
from infold.bench.target import Address, address_of
from infold.errors import ConfigError, SamplesError
from infold.rest.v2 import decode_infer
from infold.tensors import BFLOAT16, Signature, Tensors, TensorSpec

F32, STRINGS = np.dtype(np.float32), np.dtype(np.object_)


def signature(*shapes: tuple[int | None, ...], dtype: np.dtype[np.generic] = F32) -> Signature:
    names = "xyz"
    specs = tuple(TensorSpec(names[n], dtype, shape) for n, shape in enumerate(shapes))
    return Signature(specs, (TensorSpec("out", F32, (None,)),))


def test_a_json_body_is_protocol_v2() -> None:
    """Data flat and row-major."""
    body = json_body({"x": np.array([[1, 2.5]], np.float32), "b": np.array([True])})
    assert json.loads(body.content) == {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.5]},
            {"name": "b", "datatype": "BOOL", "shape": [1], "data": [True]},
        ]
    }
    assert body.headers == {"Content-Type": "application/json"}


def test_a_binary_body_is_json_then_raw_tensors() -> None:
    """Little-endian, in the order of the inputs; strings behind their lengths; outputs wanted raw."""
    tensors = {"x": np.array([[1, -2]], ">i2"), "s": np.array([["ü", "ab"]], np.object_)}
    tensors["x"] = tensors["x"].astype(np.int16)
    body = binary_body(tensors)
    length = int(body.headers["Inference-Header-Content-Length"])
    assert body.headers["Content-Type"] == "application/octet-stream"
    assert json.loads(body.content[:length]) == {
        "inputs": [
            {"name": "x", "datatype": "INT16", "shape": [1, 2], "parameters": {"binary_data_size": 4}},
            {"name": "s", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": 12}},
        ],
        "parameters": {"binary_data_output": True},
    }
    assert body.content[length:] == b"\x01\x00\xfe\xff" + b"\x02\x00\x00\x00\xc3\xbc" + b"\x02\x00\x00\x00ab"


def test_a_request_is_framed_whole() -> None:
    """With the server's prefix and the caller's own headers."""
    wire = framed(Address("::1", 80, "/at"), "/v2/x", Body(b"abc", {"Content-Type": "t/t"}), [("Key", "k")])
    head, body = wire.split(b"\r\n\r\n")
    assert body == b"abc"
    assert head.decode().split("\r\n") == [
        "POST /at/v2/x HTTP/1.1",
        "Host: [::1]:80",
        "Content-Length: 3",
        "Content-Type: t/t",
        "Key: k",
    ]


def test_drawn_requests_differ_from_one_another() -> None:
    """So that answers mixed up between callers show; one row each unless asked otherwise."""
    drawn = request_tensors(signature((None, 3), (None, 2)), None, {}, None)
    assert len(drawn) == 16 and drawn[0]["x"].shape == (1, 3) and drawn[0]["y"].shape == (1, 2)
    assert len({each["x"].tobytes() for each in drawn}) == 16
    assert request_tensors(signature((None, 3)), None, {}, 5)[0]["x"].shape == (5, 3)


def test_samples_are_cut_into_requests(tmp_path: Path) -> None:
    """Arrays named as for `infold convert`; rows that are left over are not sent."""
    np.savez(tmp_path / "s.npz", **{"in.x": np.arange(10, dtype=np.float32).reshape(5, 2), "label": 1})
    cut = request_tensors(signature((None, 2)), tmp_path / "s.npz", {}, 2)
    assert [each["x"].tolist() for each in cut] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    with pytest.raises(SamplesError, match="holds less than 6 rows"):
        request_tensors(signature((None, 2)), tmp_path / "s.npz", {}, 6)


def test_samples_of_a_model_without_an_open_axis_are_one_request(tmp_path: Path) -> None:
    """There is nothing to cut."""
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 3), np.float32))
    assert len(request_tensors(signature((2, 3)), tmp_path / "s.npz", {}, None)) == 1


def test_an_open_length_is_asked_for() -> None:
    """A picture of one by one pixel would measure nothing."""
    with pytest.raises(SamplesError, match=r"'x' has the shape \[\?,3,\?,\?\].*--shape x="):
        request_tensors(signature((None, 3, None, None)), None, {}, None)
    drawn = request_tensors(signature((None, 3, None, None)), None, {"": (1, 3, 8, 8)}, None)
    assert drawn[0]["x"].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("shapes", "rows", "words"),
    [
        ({"z": (1,)}, None, "no such input"),
        ({"x": (1, 2, 3)}, None, r"shape \[1, 2, 3\] given"),
        ({"": (1,)}, None, "needs a name"),
        ({}, 2, "no open first axis"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], rows: int | None, words: str) -> None:
    """Each is one clear line."""
    with pytest.raises(SamplesError, match=words):
        request_tensors(signature((2, 2), (None, 2)), None, shapes, rows)


def test_strings_are_not_drawn() -> None:
    """They have to be given."""
    with pytest.raises(SamplesError, match="--samples"):
        request_tensors(signature((None,), dtype=STRINGS), None, {}, None)


@pytest.mark.parametrize("url", ["https://", "http://", "http://host:x", "http://host:1/?q", "ftp://a"])
def test_urls_that_cannot_be_asked(url: str) -> None:
    """HTTP and HTTPS only, and said so."""
    with pytest.raises(ConfigError):
        address_of(url)


def test_a_url_may_have_a_prefix() -> None:
    """For a server behind a proxy."""
    assert address_of("http://[::1]:81/base/") == Address("::1", 81, "/base")
    assert address_of("http://host").port == 80
    assert address_of("https://host") == Address("host", 443, scheme="https")
    assert address_of("https://host").url == "https://host:443"


@pytest.mark.parametrize("body_of", [json_body, binary_body])
def test_bfloat16_is_drawn_and_sent_either_way(body_of: Callable[[Tensors], Body]) -> None:
    """The service reads from it what was drawn."""
    wanted = signature((None, 3), dtype=BFLOAT16)
    tensors = request_tensors(wanted, None, {}, 2)[0]
    assert (tensors["x"].dtype, tensors["x"].shape) == (BFLOAT16, (2, 3))
    body = body_of(tensors)
    length = body.headers.get("Inference-Header-Content-Length")
    request = decode_infer(body.content, None if length is None else int(length), wanted)
    assert request.tensors["x"].tobytes() == tensors["x"].tobytes()
