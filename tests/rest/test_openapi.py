"""The OpenAPI document as a whole: valid, of what is loaded now, and cheap to ask for twice."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from fastapi.openapi.utils import get_openapi
from openapi_spec_validator import OpenAPIV30SpecValidator

from infold.rest.app import App, create_app
from infold.rest.codec import DTYPES
from infold.rest.docs_page import OPENAPI_VERSION
from infold.rest.model_paths import Served
from infold.rest.openapi import document
from infold.settings import Settings
from infold.tensors import Signature, TensorSpec

DOUBLE = """<ir_version: 8, opset_import: ["": 17]>
    double (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }"""
PAIR = """<ir_version: 8, opset_import: ["": 17]>
    pair (float[batch, 4] a, int64[batch] b) => (float[batch, 4] y, int64[batch] z)
    { y = Neg(a)  z = Identity(b) }"""


def put(root: Path, model: str, version: int, text: str = DOUBLE) -> None:
    folder = root / model / str(version)
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(text), str(folder / "model.onnx"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository of one model."""
    put(tmp_path / "models", "double", 1)
    (tmp_path / "models/double/model.toml").write_text('versions = "all"\n')
    return tmp_path / "models"


@pytest.fixture
async def app(models: Path) -> AsyncIterator[App]:
    made = create_app(Settings(repository=models, cache_dir=models.parent / "cache", load_trial=False))
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here:123") as opened:
        yield opened


async def read(client: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    answer = await client.get("/openapi.json", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = answer.json()
    return found


def posts(found: dict[str, Any]) -> set[str]:
    return {
        path
        for path, operations in found["paths"].items()
        if "post" in operations and "{" not in path and "repository" not in path
    }


async def test_a_model_that_is_loaded_is_described_and_one_that_is_gone_is_not(
    app: App, client: httpx.AsyncClient, models: Path
) -> None:
    """The document is that of now."""
    before = await read(client)
    assert posts(before) == {"/v2/models/double/infer", "/v1/models/double:predict"}
    put(models, "pair", 3, PAIR)
    put(models, "double", 2)
    await app.state.service.manager.reconcile()
    during = await read(client)
    assert posts(during) - posts(before) == {
        "/v2/models/pair/infer",
        "/v1/models/pair:predict",
        "/v2/models/double/versions/1/infer",
        "/v1/models/double/versions/1:predict",
    }
    assert [tag["name"] for tag in during["tags"]][:2] == ["double", "pair"]
    assert during["tags"][0]["description"] == "version 2 answers; version 1 if asked for"
    shutil.rmtree(models / "pair")
    shutil.rmtree(models / "double/2")
    await app.state.service.manager.reconcile()
    assert await read(client) == before == app.openapi()


async def test_a_version_that_comes_back_changed_is_described_anew(
    app: App, client: httpx.AsyncClient, models: Path
) -> None:
    """Under the same name and number."""
    before = await read(client)
    kept = models.parent / "kept"
    shutil.move(models / "double/1", kept)
    put(models, "double", 2)
    await app.state.service.manager.reconcile()
    shutil.rmtree(models / "double/2")
    put(models, "double", 1, PAIR)
    await app.state.service.manager.reconcile()
    changed = await read(client)
    assert posts(changed) == posts(before)
    assert (
        "a"
        in changed["components"]["schemas"]["double.PredictRequest"]["oneOf"][1]["properties"]["inputs"][
            "properties"
        ]
    )


async def test_the_document_is_written_once_for_what_is_loaded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking again costs next to nothing."""
    before = await read(client)
    monkeypatch.setattr("infold.rest.openapi.document", None)
    assert await read(client) == before


async def test_a_service_without_models_has_a_valid_document(tmp_path: Path) -> None:
    """The paths for any model are there, without examples."""
    (tmp_path / "none").mkdir()
    app = create_app(Settings(repository=tmp_path / "none", cache_dir=tmp_path / "cache", load_trial=False))
    async with app.router.lifespan_context(app):
        found = app.openapi()
    OpenAPIV30SpecValidator(found).validate()
    infer = found["paths"]["/v2/models/{model}/infer"]["post"]
    assert "example" not in str(infer)
    assert posts(found) == set()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("models.example:8443", "http://models.example:8443"),
        ("[::1]:80", "http://[::1]:80"),
        ("$(reboot)", "http://localhost:8080"),
        ("a';reboot;'", "http://localhost:8080"),
    ],
)
async def test_command_lines_name_the_server_that_was_asked(
    app: App, client: httpx.AsyncClient, models: Path, host: str, shown: str
) -> None:
    """Unless that could not stand in a command line."""
    put(models, "large", 1, DOUBLE.replace("batch, 4", "batch, 5000"))
    await app.state.service.manager.reconcile()
    found = await read(client, host=host)
    texts = [found["paths"][path]["post"]["description"] for path in sorted(posts(found)) if "large" in path]
    assert len(texts) == 2
    for text in texts:
        assert re.findall(r"curl (\S+)/v[12]/", text) == [shown]


async def test_refusals_are_described(app: App, client: httpx.AsyncClient) -> None:
    """Of a model that is not there, of a body that is compressed, and while the service goes down."""
    paths = (await read(client))["paths"]
    for path, operations in paths.items():
        if "{model}" in path:
            ((method, operation),) = operations.items()
            answer = await client.request(method, path.format(model="none", version="1"))
            assert answer.status_code == (403 if path.endswith(("load", "rollback")) else 404)
            assert {"404", str(answer.status_code)} <= set(operation["responses"])
    strange = {"content-encoding": "pigeon"}
    for path in posts({"paths": paths}):
        assert (await client.post(path, content=b"{}", headers=strange)).status_code == 415
        assert "415" in paths[path]["post"]["responses"]
    app.state.service.models.begin_drain()
    assert (await client.get("/v2/health/ready")).status_code == 503
    assert set(paths["/v2/health/ready"]["get"]["responses"]) == {"200", "503"}


# -- what names and signatures can do to a document ---------------------------------------------------

SIGNATURES = {
    "plain": Signature(
        (TensorSpec("x", DTYPES["FP32"], ("n", 4)),), (TensorSpec("y", DTYPES["FP32"], ("n",)),)
    ),
    "odd": Signature(
        tuple(TensorSpec(f"{name}/`|'\"<b>:0", dtype, ("n", None, 2)) for name, dtype in DTYPES.items()),
        tuple(TensorSpec(name, dtype, ()) for name, dtype in DTYPES.items()),
    ),
    "open": Signature((TensorSpec("x", DTYPES["BYTES"], None),), (TensorSpec("y", DTYPES["UINT64"], None),)),
    "large": Signature(
        (TensorSpec("x", DTYPES["BOOL"], (5000,)), TensorSpec("z", DTYPES["FP16"], ())),
        (TensorSpec("y", DTYPES["INT8"], (0, 9000)),),
    ),
    "nothing": Signature((), (TensorSpec("y", DTYPES["FP64"], (1,)),)),
}


@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES)
async def test_the_document_is_valid_openapi(app: App, signature: Signature, tmp_path: Path) -> None:
    """Of any signature; FastAPI's own part included."""
    found = document(own_part(app), [Served("m", 1, signature, tmp_path / "model.onnx", True)])
    assert found["openapi"] == "3.0.3"
    OpenAPIV30SpecValidator(found).validate()


async def test_no_two_models_share_a_schema_or_an_operation(app: App, tmp_path: Path) -> None:
    """Whatever they are called, and in several versions."""
    names = [
        "a",
        "a.InferRequest",
        "a.InferRequest.1",
        "a_1",
        "a.1",
        "v2",
        "v1",
        "health",
        "InferRequest",
        "Error",
    ]
    plain = SIGNATURES["plain"]
    versions = [
        Served(name, number, plain, tmp_path / "model.onnx", number == 2)
        for name in names
        for number in (2, 1)
    ]
    found = document(own_part(app), versions)
    OpenAPIV30SpecValidator(found).validate()
    common = document(own_part(app), [])
    assert len(found["components"]["schemas"]) - len(common["components"]["schemas"]) == 4 * len(versions)
    assert len(found["paths"]) - len(common["paths"]) == 2 * len(versions)
    operations = [each for path in found["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    tags = [tag["name"] for tag in found["tags"]]
    assert len(set(tags)) == len(tags) == len(names) + 4
    assert {tag for each in operations for tag in each["tags"]} == set(tags)


def own_part(app: App) -> dict[str, Any]:
    """What FastAPI writes."""
    return get_openapi(title="infold", version="1", openapi_version=OPENAPI_VERSION, routes=app.routes)
