"""A Triton repository served as it is, asked by Triton's own client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from servers import Server, running, serve_fails

LOOKUP = """lookup (int64[batch] index) => (float[batch] value, float[batch] twice)
    <float[3] table = {10, 20, 30}> { value = Gather (table, index)  twice = Add (value, value) }"""
JOIN = "join (float[n] a, float[m] b) => (float[k] y) { y = Concat <axis = 0> (a, b) }"
TEXT = "text (string[batch, 2] x) => (string[batch, 2] y) { y = Identity (x) }"
CONFIGS = {
    "lookup": """
        name: "lookup"
        platform: "onnxruntime_onnx"
        max_batch_size: 4
        input [ { name: "index" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } } ]
        output [ { name: "value" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] }
                   label_filename: "labels.txt" } ]
        version_policy { all { } }
        dynamic_batching { max_queue_delay_microseconds: 100 preserve_ordering: true }
        instance_group [ { kind: KIND_CPU count: 1 } ]
        model_warmup [ { name: "first" batch_size: 4 inputs { key: "index" value {
            data_type: TYPE_INT64 dims: [ 1 ] input_data_file: "first" } } } ]
    """,
    "join": """
        backend: "onnxruntime"
        default_model_filename: "net.onnx"
        input [ { name: "a" data_type: TYPE_FP32 dims: [ -1 ] },
                { name: "b" data_type: TYPE_FP32 dims: [ 2 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
    """,
    "text": 'platform: "onnxruntime_onnx"',
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, as they would lie there for Triton."""
    root = tmp_path_factory.mktemp("triton")
    for name, text in {"lookup": LOOKUP, "join": JOIN, "text": TEXT}.items():
        put(root, name, text, CONFIGS[name], "net.onnx" if name == "join" else "model.onnx")
    shutil.copytree(root / "lookup" / "1", root / "lookup" / "3")
    (root / "lookup" / "labels.txt").write_text("ten\ntwenty\nthirty\n")
    (root / "lookup" / "warmup").mkdir()
    (root / "lookup" / "warmup" / "first").write_bytes(np.array([1], "<i8").tobytes())
    return root


@pytest.fixture(scope="module")
def served(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(repository, tmp_path_factory.mktemp("log") / "server.log") as started:
        yield started


@pytest.fixture
def triton(served: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(served.address) as client:
        yield client


def put(root: Path, name: str, text: str, config: str, file: str = "model.onnx") -> None:
    folder = root / name / "1"
    folder.mkdir(parents=True)
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    onnx.save(proto, str(folder / file))
    (root / name / "config.pbtxt").write_text(config)


def given(name: str, array: np.ndarray, kind: str = "FP32", *, binary: bool = True) -> InferInput:
    sent = InferInput(name, list(array.shape), kind)
    sent.set_data_from_numpy(array, binary_data=binary)
    return sent


@pytest.mark.parametrize("binary", [True, False])
def test_shapes_are_those_of_the_declaration(triton: InferenceServerClient, binary: bool) -> None:
    """On the way in and out, as bytes and as JSON, with what is asked for or without."""
    index = np.array([[2], [0], [1]])
    for wanted in (None, [InferRequestedOutput("value", binary_data=binary)]):
        result = triton.infer("lookup", [given("index", index, "INT64", binary=binary)], outputs=wanted)
        value = result.as_numpy("value")
        assert value is not None and value.tolist() == [[30], [10], [20]]
        assert [each["name"] for each in result.get_response()["outputs"]] == ["value"]


def test_metadata_says_what_is_declared(triton: InferenceServerClient) -> None:
    """Every version that the policy wants is there and ready."""
    for version in ("1", "3"):
        assert triton.is_model_ready("lookup", version)
        metadata = triton.get_model_metadata("lookup", version)
        assert metadata["versions"] == ["1", "3"]
        assert metadata["inputs"] == [{"name": "index", "datatype": "INT64", "shape": [-1, 1]}]
        assert metadata["outputs"] == [{"name": "value", "datatype": "FP32", "shape": [-1, 1]}]


def test_what_is_not_declared_is_not_taken(triton: InferenceServerClient) -> None:
    """An output that the model has, its own shape of an input, more rows than one request may have."""
    index = given("index", np.array([[1]]), "INT64")
    with pytest.raises(InferenceServerException, match="twice"):
        triton.infer("lookup", [index], outputs=[InferRequestedOutput("twice")])
    with pytest.raises(InferenceServerException, match=r"shape \[1\] given"):
        triton.infer("lookup", [given("index", np.array([1]), "INT64")])
    with pytest.raises(InferenceServerException, match="5 rows given, one request takes at most 4"):
        triton.infer("lookup", [given("index", np.zeros((5, 1), np.int64), "INT64")])


def test_without_a_batch_axis_first_lengths_differ(triton: InferenceServerClient) -> None:
    """And one that the model leaves open has the length that is declared, and no other."""
    a, b = np.arange(5, dtype=np.float32), np.arange(2, dtype=np.float32)
    result = triton.infer("join", [given("a", a), given("b", b)])
    assert np.array_equal(result.as_numpy("y"), np.concatenate([a, b]))  # type: ignore[arg-type]
    with pytest.raises(InferenceServerException, match=r"shape \[5\] given, the model takes \[2\]"):
        triton.infer("join", [given("a", a), given("b", a)])


def test_what_is_left_to_the_model_is_as_it_has_it(triton: InferenceServerClient) -> None:
    """Strings here."""
    assert triton.get_model_metadata("text")["inputs"][0]["shape"] == [-1, 2]
    words = np.array([["a", "b"]], np.object_)
    result = triton.infer("text", [given("x", words, "BYTES")]).as_numpy("y")
    assert result is not None and [each.decode() for each in result[0]] == ["a", "b"]


def test_the_other_protocol_has_the_same_shapes(served: Server) -> None:
    """TF-Serving's rows and columns."""
    with httpx.Client(base_url=served.url) as client:
        rows = client.post("/v1/models/lookup:predict", json={"instances": [[2], [0]]}).json()
        assert rows == {"predictions": [[30], [10]]}
        columns = client.post("/v1/models/lookup:predict", json={"inputs": [[2], [0]]}).json()
        assert columns == {"outputs": [[30], [10]]}


def test_the_log_tells_which_hints_are_not_used(served: Server) -> None:
    """Of each version that is loaded."""
    lines = [json.loads(line) for line in served.log.read_text().splitlines() if "hints not used" in line]
    hints = ["dynamic_batching.preserve_ordering"]
    assert {line["version"]: line["hints"] for line in lines} == {1: hints, 3: hints}
    assert [line["model"] for line in lines] == ["lookup", "lookup"]


def test_a_load_by_name_brings_its_own_configuration(repository: Path, tmp_path: Path) -> None:
    """As the client sends it; one that does not fit changes nothing."""
    log = tmp_path / "server.log"
    config = {
        "maxBatchSize": 8,
        "input": [{"name": "index", "dataType": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}}],
        "output": [{"name": "twice", "dataType": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}],
    }
    index = given("index", np.array([[2]]), "INT64")
    with (
        running(repository, log, INFOLD_MODEL_CONTROL="explicit") as server,
        InferenceServerClient(server.address) as client,
    ):
        client.load_model("lookup", config=json.dumps(config))
        assert [each["name"] for each in client.get_model_metadata("lookup")["outputs"]] == ["twice"]
        assert client.infer("lookup", [index]).as_numpy("twice").tolist() == [[60]]  # type: ignore[union-attr]
        with pytest.raises(InferenceServerException, match="failed to load 'lookup'.*unknown field 'foo'"):
            client.load_model("lookup", config=json.dumps({**config, "foo": 1}))
        assert client.infer("lookup", [index]).as_numpy("twice").tolist() == [[60]]  # type: ignore[union-attr]
        client.load_model("lookup")
        assert client.infer("lookup", [index]).as_numpy("value").tolist() == [[30]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("dynamic_batching {", "sequence_batching {} dynamic_batching {", 2, "line 9: "),
        ("dynamic_batching { ", "optimization {} sequence_batching {} #", 2, "sequences are not served"),
        ("max_batch_size", "max_batch", 2, "line 4: unknown field 'max_batch' of ModelConfig"),
        ('"first" }', '"../labels.txt" }', 2, "leads out of the model's folder"),
        ("[ { name: \"index\" data_type: TYPE_INT64", "[ { name: \"index\" data_type: TYPE_INT32", 1,
         "input 'index'.data_type: TYPE_INT32 declared, the model's is TYPE_INT64"),
        ("KIND_CPU", "KIND_GPU", 1, "instance_group: asks for a GPU; start infold with --device cuda"),
        ('"first" }', '"second" }', 1, "model_warmup 'first': input 'index': there is no file 'second'"),
    ],
)  # fmt: skip
def test_a_start_that_fails_says_where(tmp_path: Path, old: str, new: str, code: int, said: str) -> None:
    """In one line, with the file's name: what makes no sense by itself, and what does not fit the model."""
    assert old in CONFIGS["lookup"]
    put(tmp_path, "lookup", LOOKUP, CONFIGS["lookup"].replace(old, new))
    ended, lines = serve_fails(str(tmp_path), "--port", "0")
    (line,) = [each for each in lines.splitlines() if "config.pbtxt" in each]
    assert ended == code
    assert f"{tmp_path}/lookup/config.pbtxt: " in line and said in line
