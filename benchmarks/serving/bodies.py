"""The requests, byte for byte, and the answer each must get.

A network has one input, and every server is asked about that same input; only its wrapping
differs. All JSON bodies hold the numbers as one flat list, as `json.dumps(x.ravel().tolist())`
writes them. The expected answer is that of onnxruntime alone with its default optimizations.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from networks import NETWORKS, WORK, Network

BOUNDARY = "one-part-of-float32"
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Body:
    """A request body and the header fields that go with it."""

    content: bytes
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Question:
    """Files for the load generator: a whole request, and the values that must come back."""

    request: Path
    expected: Path
    check: str
    tolerance: float


def plain_json(x: NDArray[np.float32]) -> Body:
    """What a service of one's own would take."""
    return Body(json.dumps({"data": x.ravel().tolist()}).encode(), (("Content-Type", "application/json"),))


def v2_json(x: NDArray[np.float32]) -> Body:
    """Open inference protocol v2, numbers in the JSON."""
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}
    return Body(json.dumps({"inputs": [tensor]}).encode(), (("Content-Type", "application/json"),))


def v2_binary(x: NDArray[np.float32]) -> Body:
    """Open inference protocol v2 with the binary extension, both ways."""
    parameters = {"binary_data_size": x.nbytes}
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "parameters": parameters}
    wanted = {"name": "y", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    fields = (("Content-Type", "application/octet-stream"), (HEADER_LENGTH, str(len(header))))
    return Body(header + x.tobytes(), fields)


def raw(x: NDArray[np.float32]) -> Body:
    """The float32 values and nothing else."""
    return Body(x.tobytes(), (("Content-Type", "application/octet-stream"),))


def multipart(x: NDArray[np.float32]) -> Body:
    """The float32 values as an uploaded file, field `data`."""
    disposition = 'Content-Disposition: form-data; name="data"; filename="x.bin"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    content = head.encode() + x.tobytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Body(content, (("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),))


WRAPPINGS: dict[str, Callable[[NDArray[np.float32]], Body]] = {
    each.__name__: each for each in (plain_json, v2_json, v2_binary, raw, multipart)
}


@cache
def expected(network: Network) -> Path:
    """The file with the values of the right answer."""
    session = onnxruntime.InferenceSession(network.file, providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"x": network.example()})
    file = WORK / "bodies" / f"{network.name}.expected"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(np.ascontiguousarray(values, np.float32).tobytes())
    return file


@cache
def question(network_name: str, wrapping: str, path: str, check: str) -> Question:
    """The files for one network, wrapped for a server, posted to a path."""
    network = NETWORKS[network_name]
    body = WRAPPINGS[wrapping](network.example())
    fields = (("Host", "127.0.0.1"), ("Content-Length", str(len(body.content))), *body.fields)
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    reply = expected(network)
    request = WORK / "bodies" / f"{network_name}.{wrapping}.{path.strip('/').replace('/', '-')}.http"
    request.write_bytes(head.encode() + body.content)
    return Question(request, reply, check, network.tolerance)
