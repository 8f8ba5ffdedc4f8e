"""What /docs shows works: every example of a real server's document is sent to it as it stands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator

from servers import ROOT, Server, running

TYPES = {
    "bool": "bool", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "fp16": "float16", "fp32": "float", "fp64": "double", "bytes": "string",
}  # fmt: skip
MODELS = {
    **{
        f"of_{name}": f"m ({kind}[n, m] x) => ({kind}[n, m] y) {{ y = Identity(x) }}"
        for name, kind in TYPES.items()
    },
    "pair": """m (float[n, 2] a, int64[n, 2] b) => (float[n, 2] total, int64[n, 2] same)
        { f = Cast<to = 1>(b)  total = Add(a, f)  same = Identity(b) }""",
    "crossed": "m (float[n, k] a, float[k, n] b) => (float[n, n] y) { y = MatMul(a, b) }",
    "scalars": """m (uint64 n, float16 x, bool b, string s) => (uint64 o, float16 y, bool c, string t)
        { o = Identity(n)  y = Identity(x)  c = Identity(b)  t = Identity(s) }""",
    "fixed": "m (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }",
    "reduced": """m (float[n, 3] x) => (float total, float[n, 3] y)
        { total = ReduceSum<keepdims = 0>(x)  y = Neg(x) }""",
    "lookup": """m (int64[n] index) => (float[n] value)
        <float[3] table = {10, 20, 30}> { value = Gather(table, index) }""",
    "constant": "m () => (float[1] y) <float[1] one = {1}> { y = Neg(one) }",
    "wide": """m (float[n, 1, h, w] x) => (float[n, 1, k, l] y)
        <float[1, 1, 3, 3] weight = {1, 1, 1, 1, 1, 1, 1, 1, 1}> { y = Conv(x, weight) }""",
    "a.b-c_1": "m (float[n] x) => (float[n] y) { y = Neg(x) }",
    "a_b-c.1": "m (string[n] x) => (string[n] y) { y = Identity(x) }",
    "v2": "m (bool[n] x) => (bool[n] y) { y = Not(x) }",
    "image": "m (float[n, 3, 64, 64] x) => (float[n, 3, 1, 1] y) { y = GlobalAveragePool(x) }",
    "images": """m (float[n, 5000] a, bool[n, 3] b, string[n, 2] s)
        => (float[n, 5000] c, bool[n, 3] d, string[n, 2] t)
        { c = Neg(a)  d = Not(b)  t = Identity(s) }""",
}  # fmt: skip
LARGE = {"image", "images"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves models with all kinds of inputs, one of them in two versions."""
    root = tmp_path_factory.mktemp("described")
    shutil.copytree(ROOT / "models/digits", root / "digits")
    for name, text in MODELS.items():
        (root / name / "1").mkdir(parents=True)
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
        onnx.save(model, str(root / name / "1/model.onnx"))
    # One that takes no image of one pixel; its golden one has 25.
    np.savez(root / "wide/1/golden.npz", **{"in.x": np.full((2, 1, 5, 5), 0.1, np.float32)})
    shutil.copytree(root / "pair/1", root / "fixed/2")
    (root / "fixed/model.toml").write_text('versions = "all"\n')
    with running(root, tmp_path_factory.mktemp("log") / "log") as started:
        yield started


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").raise_for_status().json()
    return found


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as opened:
        yield opened


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path with the examples of its parameters in it, and the operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            values = {
                each["name"]: each["example"]
                for each in operation.get("parameters", ())
                if each["in"] == "path"
            }
            yield method, path.format_map(values), operation


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    root = {**schema, "components": document["components"]}
    return bool(OAS30Validator(root).is_valid(value))


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """OpenAPI 3.0.3."""
    OpenAPIV30SpecValidator(document).validate()


def test_every_operation_works_as_it_stands(document: dict[str, Any], client: httpx.Client) -> None:
    """Its example fits its schema, is answered with 200, and so is every GET."""
    sent = set()
    for method, path, operation in operations(document):
        body = operation.get("requestBody", {"content": {}})["content"].get("application/json", {})
        if method == "post" and "example" not in body:
            assert operation["tags"][0] in LARGE
            continue
        answer = client.request(method, path, json=body.get("example"))
        if path.endswith(("load", "rollback")):  # nothing is loaded by name here
            assert answer.status_code == 403
            continue
        assert answer.status_code == 200, (path, answer.text)
        sent.add(path)
        if method == "post":
            assert fits(document, body["schema"], body["example"]), path
        if path.endswith("infer"):
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert fits(document, schema, answer.json()), path
    for name in (*(MODELS.keys() - LARGE), "digits"):
        assert {f"/v2/models/{name}/infer", f"/v1/models/{name}:predict"} <= sent
    assert "/v2/models/fixed/versions/1/infer" in sent


def test_versions_have_schemas_of_their_own(document: dict[str, Any]) -> None:
    """The newest by the model's name, others by their number."""
    newest, first = (
        document["components"]["schemas"][name]["properties"]["inputs"]
        for name in ("fixed.InferRequest", "fixed.InferRequest.1")
    )
    assert [each["title"] for each in newest["items"]["oneOf"]] == ["a", "b"]
    assert first["items"]["properties"]["shape"]["enum"] == [[2, 3]]


def test_a_golden_row_is_the_example_where_there_is_one(document: dict[str, Any]) -> None:
    """Which a model takes that takes no zeros of length 1."""
    example = document["paths"]["/v2/models/wide/infer"]["post"]["requestBody"]["content"]["application/json"]
    (given,) = example["example"]["inputs"]
    assert (given["shape"], given["data"]) == ([1, 1, 5, 5], [0.1] * 25)
    lengths = "Open lengths are 1"
    assert lengths not in document["paths"]["/v2/models/wide/infer"]["post"]["description"]
    assert lengths in document["paths"]["/v2/models/of_fp32/infer"]["post"]["description"]
    assert lengths not in document["paths"]["/v2/models/lookup/infer"]["post"]["description"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the command lines use curl")
@pytest.mark.parametrize("path", ["/v2/models/{}/infer", "/v1/models/{}:predict"])
def test_the_command_line_of_a_large_model_works(document: dict[str, Any], path: str) -> None:
    """Pasted as it stands, it sends zeros of the right shapes: one input, and several."""
    one, several = (_pasted(document["paths"][path.format(name)]["post"]) for name in sorted(LARGE))
    if "v2" in path:
        assert [each["data"] for each in one] == [[0, 0, 0]]
        assert [each["data"] for each in several] == [[0] * 5000, [True] * 3, ["", ""]]
    else:
        assert one == [[[[0]]] * 3]
        assert several == {"c": [[0] * 5000], "d": [[True] * 3], "t": [["", ""]]}


def _pasted(operation: dict[str, Any]) -> Any:
    (command,) = re.findall(r"```sh\n(.*?)\n```", operation["description"], re.DOTALL)
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=30)
    return json.loads(done.stdout)["outputs"]


def test_a_file_of_the_size_that_is_named_is_a_request(
    document: dict[str, Any], client: httpx.Client
) -> None:
    """For a large model with one input; the page offers to choose one before anything else."""
    operation = document["paths"]["/v2/models/image/infer"]["post"]
    (size,) = re.findall(r"a file of (\d+) bytes", operation["description"])
    kind = next(iter(operation["requestBody"]["content"]))
    headers = {each["name"]: str(each["example"]) for each in operation["parameters"]}
    headers["content-type"] = kind
    answer = client.post("/v2/models/image/infer", content=bytes(int(size)), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] in operation["responses"]["200"]["content"]
    assert "bytes, chosen" not in document["paths"]["/v2/models/images/infer"]["post"]["description"]


def test_a_model_that_takes_pictures_offers_to_choose_one(
    document: dict[str, Any], client: httpx.Client
) -> None:
    """And what is then answered is described; a model that takes none offers nothing."""
    picture = ROOT / "examples/digits/seven.png"
    for path in ("/v2/models/digits/infer", "/v1/models/digits:predict"):
        operation = document["paths"][path]["post"]
        assert {"multipart/form-data", "image/png"} <= set(operation["requestBody"]["content"])
        answer = client.post(path, files={"picture": picture.read_bytes()})
        assert answer.status_code == 200
        described = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert fits(document, described, answer.json())
        assert not fits(document, described, {"predictions": [{"classes": [{"index": "7"}]}], "outputs": 3})
    assert "image/png" not in document["paths"]["/v2/models/image/infer"]["post"]["requestBody"]["content"]
