"""The whole app behind its guard: what is answered, what is read, what is written down."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from starlette.types import Message

from graphs import model
from infold.rest.access.audit import AUDIT
from infold.rest.access.keys import Key, digest_of, entry_text
from infold.rest.access.scopes import GRANTED, KeyScope
from infold.rest.app import App, create_app
from infold.settings import Settings

LOAD, INFER = "/v2/repository/models/double/load", "/v2/models/double/infer"
BODY = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    held = [Key(scope, digest_of(scope.encode()), (scope,)) for scope in GRANTED]
    held.append(Key("slow", digest_of(b"slow"), (KeyScope.INFER,), 0.01, 1))
    path.write_text("\n".join(map(entry_text, held)))
    return path


@asynccontextmanager
async def serving(tmp_path: Path, **settings: Any) -> AsyncIterator[App]:
    folder = tmp_path / "models/double/1"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model("g (float[n, 2] x) => (float[n, 2] y) { y = Add(x, x) }"), str(folder / "model.onnx"))
    app = create_app(Settings(repository=tmp_path / "models", cache_dir=tmp_path / "cache", **settings))
    async with app.router.lifespan_context(app):
        yield app


def asking(app: App, secret: str | None = None, **more: Any) -> httpx.AsyncClient:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    transport = httpx.ASGITransport(app, client=("10.1.2.3", 4567), **more)
    return httpx.AsyncClient(transport=transport, base_url="http://here", headers=headers)


def audit(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Facts of the lines of the audit, and clear of them."""
    names = ("key", "certificate", "client", "action", "model", "status")
    found = [
        {"event": record.message} | {name: getattr(record, name) for name in names}
        for record in caplog.records
        if record.name == AUDIT
    ]
    caplog.clear()
    return found


async def test_refusals_are_in_the_form_of_all_errors(tmp_path: Path, keys: Path) -> None:
    """With the header that belongs to each, and the request's id."""
    async with serving(tmp_path, api_keys=keys) as app, asking(app) as client:
        answer = await client.post(INFER, json=BODY, headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["x-request-id"] == "mine"
        assert answer.json()["error"].startswith("a key is needed: send one as")
        client.headers["x-api-key"] = "observe"
        answer = await client.post(INFER, json=BODY)
        assert (answer.status_code, "www-authenticate" in answer.headers) == (403, False)
        assert answer.json() == {"error": "this takes the scope 'infer'; key 'observe' has observe"}
        client.headers["x-api-key"] = "slow"
        assert (await client.post(INFER, json=BODY)).json()["outputs"][0]["data"] == [2, 4]
        answer = await client.post(INFER, json=BODY)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "100")
        assert answer.json() == {"error": "key 'slow' may be used 0.01 times a second, and has been"}
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_refusals_are_counted_apart_from_routes(tmp_path: Path, keys: Path) -> None:
    """A stranger makes no new labels."""
    async with serving(tmp_path, api_keys=keys) as app, asking(app, "observe") as client:
        for path in ("/a", "/b", "/v2"):
            await client.get(path, headers={"authorization": "Bearer wrong"})
        await client.get("/v2")
        page = (await client.get("/metrics")).text
    assert 'infold_http_requests_total{method="GET",route="refused",status="401"} 3.0' in page
    assert 'infold_http_requests_total{method="GET",route="refused",status="403"} 1.0' in page


async def test_the_body_of_a_refused_request_is_not_read(tmp_path: Path, keys: Path) -> None:
    """Whoever may not come in cannot keep us busy; the connection ends with the answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        pytest.fail("read")

    async def send(message: Message) -> None:
        sent.append(message)

    async with serving(tmp_path, api_keys=keys) as app:
        for path in (INFER, LOAD, "/v1/models/double:predict"):
            scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"9")]}
            await app(scope | {"query_string": b"", "root_path": ""}, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert [message["status"] for message in starts] == [401] * 3
    assert all((b"connection", b"close") in message["headers"] for message in starts)


async def test_each_order_is_written_down_and_each_that_is_refused(
    tmp_path: Path, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who, from where, what, and what came of it; a request that only looks is no order."""
    caplog.set_level(logging.INFO)
    client_of = {"client": "10.1.2.3:4567", "certificate": None}
    async with serving(tmp_path, api_keys=keys, model_control="explicit") as app:
        for secret, name, status in (("admin", "admin", 200), ("infer", "infer", 403), ("wrong", None, 401)):
            async with asking(app, secret) as client:
                assert (await client.post(LOAD)).status_code == status
            given = "order given" if status == 200 else "order refused"
            told = {"event": given, "key": name, "action": "load", "model": "double", "status": status}
            assert audit(caplog) == [told | client_of]
        async with asking(app, "admin") as client:
            assert (await client.post(LOAD.replace("double", "none"))).status_code == 400
            (line,) = audit(caplog)
            assert (line["model"], line["status"], line["event"]) == ("none", 400, "order refused")
            await client.post(LOAD, content=b"{")
            assert audit(caplog)[0]["status"] == 400
            await client.get("/v2/logging")
            await client.get(LOAD)
        async with asking(app, "infer") as client:
            await client.post(INFER, json=BODY)
    assert audit(caplog) == []


async def test_orders_are_written_down_without_keys_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An open service most of all; also where nobody may give any."""
    caplog.set_level(logging.INFO)
    async with serving(tmp_path) as app, asking(app) as client:
        assert (await client.post(LOAD)).status_code == 403
    (line,) = audit(caplog)
    assert (line["key"], line["status"], line["action"]) == (None, 403, "load")


async def test_an_order_with_a_line_break_in_its_path_is_one(
    tmp_path: Path, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A router takes it for the same path; so do scope and audit."""
    caplog.set_level(logging.INFO)
    async with serving(tmp_path, api_keys=keys, model_control="explicit") as app:
        for secret, status in (("infer", 403), ("admin", 200)):
            async with asking(app, secret) as client:
                assert (await client.post(LOAD + "%0A")).status_code == status
            assert [line["action"] for line in audit(caplog)] == ["load"]
        async with asking(app, "infer") as client:
            assert (await client.get("/metrics%0A")).status_code == 403


async def test_nothing_of_a_failure_leaves_but_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way of tensors and on every other: a plain 500, and the log has the rest."""

    async def fail(*_: object) -> None:
        secret = "what nobody is to see"
        raise ZeroDivisionError(secret)

    async with serving(tmp_path) as app:
        service = app.state.service
        monkeypatch.setattr(service, "is_ready", fail)
        monkeypatch.setattr(service.manager, "models_on_disk", fail)
        monkeypatch.setattr(service.endpoints[0], "_answer", fail)
        async with asking(app, raise_app_exceptions=False) as client:
            answers = [
                await client.get("/v2/health/ready", headers={"x-request-id": "r1"}),
                await client.post("/v2/repository/index", headers={"x-request-id": "r1"}),
                await client.post(INFER, json=BODY, headers={"x-request-id": "r1"}),
            ]
    for answer in answers:
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] == "r1"
        assert answer.headers["content-type"] == "application/json"
        text = "internal error; the server's log has it under request id r1"
        assert json.loads(answer.content) == {"error": text}
    failed = [record for record in caplog.records if record.message == "request failed"]
    assert [record.exc_info and record.exc_info[0] for record in failed] == [ZeroDivisionError] * 3


async def test_a_guard_that_breaks_lets_nobody_in(tmp_path: Path, keys: Path) -> None:
    """500, and not what was asked for."""
    async with serving(tmp_path, api_keys=keys) as app:
        edge: Any = app.edge
        edge._guard._keyring.find = None
        async with asking(app, "observe") as client:
            answer = await client.get("/metrics")
    assert answer.status_code == 500
    assert "infold_" not in answer.text


async def test_pages_of_other_origins_may_call_if_they_are_named(tmp_path: Path, keys: Path) -> None:
    """A browser asks beforehand without a key; what it then sends still takes one."""
    origin = {"origin": "https://app.example.org"}
    before = origin | {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,inference-header-content-length",
    }
    origins = ("https://app.example.org", "https://other.example.org:8443")
    async with serving(tmp_path, api_keys=keys, cors_origins=origins) as app:
        async with asking(app) as client:
            asked = await client.options(INFER, headers=before)
            assert asked.status_code == 200
            assert asked.headers["access-control-allow-origin"] == "https://app.example.org"
            allowed = asked.headers["access-control-allow-headers"]
            assert "authorization" in allowed and "inference-header-content-length" in allowed
            strange = await client.options(INFER, headers=before | {"origin": "https://evil.example.org"})
            assert strange.status_code == 400
            assert "access-control-allow-origin" not in strange.headers
            refused = await client.post(INFER, json=BODY, headers=origin)
            assert refused.status_code == 401
            assert refused.headers["access-control-allow-origin"] == "https://app.example.org"
            assert (await client.options(INFER)).status_code == 401  # no browser's question
        async with asking(app, "infer") as client:
            answer = await client.post(INFER, json=BODY, headers=origin)
            assert answer.status_code == 200
            assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in answer.headers


async def test_without_named_origins_nothing_is_said_of_them(tmp_path: Path) -> None:
    """A browser keeps the answer from the page."""
    async with serving(tmp_path) as app, asking(app) as client:
        answer = await client.get("/v2", headers={"origin": "https://app.example.org"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        asked = {"origin": "https://app.example.org", "access-control-request-method": "GET"}
        assert (await client.options("/v2", headers=asked)).status_code == 405


async def test_docs_of_the_second_port_call_the_first(tmp_path: Path) -> None:
    """A page that called where it came from would show examples that fail."""
    async with serving(tmp_path, port=8080, observe_port=9090) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here:9090") as client:
            document = (await client.get("/openapi.json")).json()
            assert document["servers"] == [{"url": "http://here:8080"}]
            assert ":9090" not in json.dumps(document)
            strange = await client.get("/openapi.json", headers={"host": 'a"b<c'})
            assert "b<c" not in json.dumps(strange.json())
            refused = await client.post(INFER, json=BODY)
            assert refused.status_code == 404
            assert refused.json() == {"error": f"{INFER} is served on port 8080, not here"}
        async with httpx.AsyncClient(transport=transport, base_url="http://here:8080") as client:
            assert (await client.get("/metrics")).status_code == 404
            assert (await client.post(INFER, json=BODY)).status_code == 200
