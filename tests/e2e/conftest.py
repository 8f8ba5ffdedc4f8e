"""A server for all end-to-end tests, serving models made here and the shipped one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from servers import ROOT, Server, running


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped digits model, and small ones for every datatype and for several inputs."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models/digits", root / "digits")
    for name, text in MODELS.items():
        folder = root / name / "1"
        folder.mkdir(parents=True)
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
        onnx.save(model, str(folder / "model.onnx"))
    second = root / "double" / "2"
    shutil.copytree(root / "double" / "1", second)
    (root / "double" / "model.toml").write_text('versions = "all"\n')
    return root


MODELS = {
    "double": "double (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }",
    "pair": """pair (float[batch, 2] a, int64[batch, 2] b) => (float[batch, 2] total, int64[batch, 2] same)
        { f = Cast<to = 1>(b)  total = Add(a, f)  same = Identity(b) }""",
    "fixed": "fixed (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }",
    "lookup": """lookup (int64[batch] index) => (float[batch] value)
        <float[3] table = {10, 20, 30}> { value = Gather(table, index) }""",
    "text": "text (string[batch] x) => (string[batch] y) { y = Identity(x) }",
}
for _name, _type in {
    "bool": "bool", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "fp16": "float16", "fp32": "float", "fp64": "double",
}.items():  # fmt: skip
    MODELS[f"echo_{_name}"] = f"echo ({_type}[n, m] x) => ({_type}[n, m] y) {{ y = Identity(x) }}"


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not stop it."""
    with running(repository, tmp_path_factory.mktemp("log") / "server.log") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as opened:
        yield opened


@pytest.fixture(scope="session")
def digits() -> dict[str, np.ndarray]:
    """Held-out images with their labels."""
    with np.load(ROOT / "examples/digits/samples.npz") as saved:
        return {"image": saved["in.image"], "label": saved["label"]}
