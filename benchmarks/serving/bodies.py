"""The request bodies, byte for byte, and the answer each must get.

    python benchmarks/serving/bodies.py [network ...]

A network has one input, and every server is asked about that same input; only its wrapping
differs. All JSON bodies hold the numbers as one flat list, as `json.dumps(x.ravel().tolist())`
writes them. The expected answer is that of onnxruntime alone with its default optimizations.

A network that takes pictures is asked about the photograph too. What is expected then is the
answer to the tensor that infold makes of it, once that is found to be what the peers make of it.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import photograph
from catalogue import NETWORKS, Network
from numpy.typing import NDArray
from questions import FOLDER

import networks

sys.path.insert(0, str(Path(__file__).with_name("peers")))
sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
import picture

from infold.runtime.model_config import parse_config
from infold.serving.images import tensor_of
from infold.tensors import TensorSpec

BOUNDARY = "one-part-of-float32"
HEADER_LENGTH = "Inference-Header-Content-Length"
SAME = 1e-3  # of a number of the prepared photograph: less than a tenth of a level


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
    return _form(x.tobytes(), "x.bin", "application/octet-stream")


def _form(file: bytes, name: str, kind: str) -> Body:
    disposition = f'Content-Disposition: form-data; name="data"; filename="{name}"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: {kind}\r\n\r\n"
    content = head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Body(content, (("Content-Type", f"multipart/form-data; boundary={BOUNDARY}"),))


def jpeg(file: bytes) -> Body:
    """The file and nothing else."""
    return Body(file, (("Content-Type", "image/jpeg"),))


def jpeg_form(file: bytes) -> Body:
    """The file as an upload, field `data`."""
    return _form(file, "x.jpg", "image/jpeg")


def jpeg_base64(file: bytes) -> Body:
    """Open inference protocol v2, the file in base64 as MLServer takes it."""
    text = base64.b64encode(file).decode()
    parameters = {"content_type": "base64"}
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": parameters, "data": [text]}
    return Body(json.dumps({"inputs": [tensor]}).encode(), (("Content-Type", "application/json"),))


OF_NUMBERS = (plain_json, v2_json, v2_binary, raw, multipart)
OF_PHOTOGRAPH = (jpeg, jpeg_form, jpeg_base64)


def write(name: str) -> None:
    """The bodies of one network and the values of the right answers lie in FOLDER."""
    network = NETWORKS[name]
    session = onnxruntime.InferenceSession(networks.write(name), providers=["CPUExecutionProvider"])

    FOLDER.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(7).standard_normal((1, *network.shape)).astype(np.float32)
    bodies = {wrap.__name__: wrap(x) for wrap in OF_NUMBERS}
    _keep(name, bodies, session.run(None, {"x": x})[0])
    if network.config:
        file = photograph.written().read_bytes()
        bodies = {wrap.__name__: wrap(file) for wrap in OF_PHOTOGRAPH}
        _keep(name, bodies, session.run(None, {"x": prepared(file, network)})[0])


def _keep(name: str, bodies: dict[str, Body], y: NDArray[np.float32]) -> None:
    for wrapping, body in bodies.items():
        start = f"{name}.{wrapping}"
        (FOLDER / f"{start}.expected").write_bytes(np.ascontiguousarray(y, np.float32).tobytes())
        (FOLDER / f"{start}.body").write_bytes(body.content)
        (FOLDER / f"{start}.fields").write_text(json.dumps(body.fields))


def prepared(file: bytes, network: Network) -> NDArray[np.float32]:
    """The photograph as infold prepares it, which must be what the peers' apps make of it."""
    image = parse_config(network.config, Path("model.toml")).image
    assert image is not None
    spec = TensorSpec("x", np.dtype(np.float32), (None, *network.shape))
    ours = tensor_of([file], image, spec, str).astype(np.float32, copy=False)
    theirs = picture.tensor_of(file)
    if ours.shape != theirs.shape or float(np.abs(ours - theirs).max()) > SAME:
        sys.exit(f"{network.name}: infold and the peers' apps prepare the photograph differently")
    return ours


if __name__ == "__main__":
    for each in sys.argv[1:] or NETWORKS:
        write(each)
