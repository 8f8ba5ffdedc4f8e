"""The request bodies, byte for byte, and the answer each must get.

    python benchmarks/serving/bodies.py [network ...]

A network has one input, and every server is asked about that same input; only its wrapping
differs. All JSON bodies hold the numbers as one flat list, as `json.dumps(x.ravel().tolist())`
writes them. The expected answer is that of onnxruntime alone with its default optimizations.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime
from catalogue import NETWORKS
from numpy.typing import NDArray
from questions import FOLDER

import networks

BOUNDARY = "one-part-of-float32"
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Body:
    """A request body and the header fields that go with it."""

    content: bytes
    fields: tuple[tuple[str, str], ...]


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


def write(name: str) -> None:
    """The bodies of one network and the values of the right answer lie in FOLDER."""
    network = NETWORKS[name]
    x = np.random.default_rng(7).standard_normal((1, *network.shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(networks.write(name), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.expected").write_bytes(np.ascontiguousarray(y, np.float32).tobytes())
    for wrapping, wrap in WRAPPINGS.items():
        body = wrap(x)
        (FOLDER / f"{name}.{wrapping}.body").write_bytes(body.content)
        (FOLDER / f"{name}.{wrapping}.fields").write_text(json.dumps(body.fields))


if __name__ == "__main__":
    for each in sys.argv[1:] or NETWORKS:
        write(each)
