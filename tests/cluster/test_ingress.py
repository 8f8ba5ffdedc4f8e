"""The ingress before replicas in this process: what callers are told is what infold alone would tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infold.cluster.arguments import settings_of
from infold.cluster.failures import QueuesFullError, ReplicaLostError, UnavailableError
from infold.cluster.ingress import Ingress
from infold.cluster.questions import Answer, Question, Told, json_answer
from infold.cluster.replica import ModelReplica, Task, cores_of
from infold.cluster.whole import merged
from infold.errors import ConfigError
from shelves import Shelf

# FastAPI silences this one while it makes an app; several apps in one process make theirs at once.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.UnsupportedFieldAttributeWarning")

BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]})
JSON = {"Content-Type": "application/json"}


class One:
    """A model with one replica, in this process."""

    def __init__(self, replica: ModelReplica) -> None:
        self._replica = replica

    async def ask(self, question: Question, body: bytes) -> Answer:
        return await self._replica.ask(question, body)

    async def tell(self) -> list[Told]:
        return [await self._replica.tell()]


class Stub:
    """A model whose replicas do as they are told."""

    def __init__(self, answer: Callable[[Question, bytes], Awaitable[Answer]]) -> None:
        self._answer = answer

    async def ask(self, question: Question, body: bytes) -> Answer:
        return await self._answer(question, body)

    async def tell(self) -> list[Told]:
        return []


def client(ingress: Ingress) -> httpx.AsyncClient:
    """A caller of it."""
    transport = httpx.ASGITransport(ingress, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://there")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logs stay as pytest has them, whatever a replica does in its own process."""
    import logging

    monkeypatch.setattr("infold.logs.configure", lambda level: None)
    yield
    logging.getLogger("infold.access").disabled = False


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Models `a` and `b`, and one that nobody has asked for."""
    found = Shelf(tmp_path / "models")
    for name, factor in (("a", 2.0), ("b", 3.0), ("other", 4.0)):
        found.put(name, 1, factor)
    return found


def task(shelf: Shelf, name: str, repository: str = "", **settings: Any) -> Task:
    settings = {"load_trial": False, "cache_dir": str(shelf.root.parent / "cache"), **settings}
    return Task(name, repository or str(shelf.root), settings)


async def started(task: Task, **config: Any) -> ModelReplica:
    """A replica as Ray starts it."""
    replica = ModelReplica(task, num_cpus=1)
    await replica.reconfigure({"versions": None, **config})
    return replica


@pytest.fixture
async def ingress(shelf: Shelf) -> AsyncIterator[Ingress]:
    """Before `a` and `b`."""
    replicas = {name: await started(task(shelf, name)) for name in ("a", "b")}
    settings = {name: settings_of({"max_body_bytes": 1000}) for name in replicas}
    yield Ingress(settings_of({}), settings, {name: One(each) for name, each in replicas.items()})
    for each in replicas.values():
        await each.close()


def before(stub: Callable[[Question, bytes], Awaitable[Answer]], **settings: Any) -> Ingress:
    """An ingress before a model of replicas that do this."""
    known = settings_of(settings)
    return Ingress(known, {"m": known}, {"m": Stub(stub)})


async def test_each_model_answers_for_itself(ingress: Ingress) -> None:
    """By the name in the path, and with the id that the caller gave."""
    async with client(ingress) as caller:
        for name, expected in (("a", [2.0, 4.0]), ("b", [3.0, 6.0])):
            answer = await caller.post(f"/v2/models/{name}/infer", content=BODY, headers=JSON)
            assert answer.json()["outputs"][0]["data"] == expected
            assert "server-timing" in answer.headers
            assert "x-request-id" not in answer.headers  # which Ray's proxy adds
        predicted = await caller.post("/v1/models/b:predict", json={"inputs": [1, 2]})
        assert predicted.json() == {"outputs": [3.0, 6.0]}


async def test_the_application_answers_as_a_whole(ingress: Ingress) -> None:
    """Health, lists, counts and the document are those of all models, and of no others."""
    async with client(ingress) as caller:
        await caller.post("/v2/models/a/infer", content=BODY, headers=JSON)
        assert (await caller.get("/v2/health/ready")).json() == {"ready": True}
        assert (await caller.get("/v2/models")).json() == {"models": ["a", "b"]}
        assert (await caller.get("/v2")).json()["name"] == "infold"
        counts = {
            e["name"]: e["inference_count"]
            for e in (await caller.get("/v2/models/stats")).json()["model_stats"]
        }
        assert counts == {"a": 1, "b": 0}
        assert len((await caller.get("/v2/models/a/stats")).json()["model_stats"]) == 1
        rows = (await caller.post("/v2/repository/index")).json()
        assert {(row["name"], row.get("state")) for row in rows} == {
            ("a", "READY"),
            ("b", "READY"),
            ("other", None),
        }
        paths = (await caller.get("/openapi.json")).json()["paths"]
        assert {"/v2/models/a/infer", "/v2/models/b/infer"} <= paths.keys()
        assert "swagger" in (await caller.get("/docs")).text
        page = (await caller.get("/metrics")).text
        assert 'infold_model_requests_total{model="a",version="1"} 1.0' in page


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/v2/models/nobody/infer", "{}", 404, "Request for unknown model: 'nobody' is not found"),
        ("POST", "/v2/models/other/infer", "{}", 404, "Request for unknown model: 'other' is not found"),
        ("GET", "/v2/models/nobody/stats", None, 404, "Request for unknown model: 'nobody' is not found"),
        ("GET", "/v2/models/a/versions/9/stats", None, 404, "Request for unknown model: 'a' version 9"),
        ("GET", "/nowhere", None, 404, "there is no /nowhere here"),
        ("GET", "/v2/models/a/infer", None, 405, "GET is not allowed on /v2/models/a/infer"),
        ("POST", "/v2/models/a/infer", "{}", 400, "Object missing"),
        ("POST", "/v2/models/a/infer", " " * 1001, 413, "the request body exceeds"),
        ("POST", "/v2/repository/index", "[]", 400, "request: must be a JSON object"),
        ("POST", "/v2/repository/models/a/load", "{}", 403, "a cluster does not load"),
        ("POST", "/v2/repository/models/a/rollback", "{}", 403, "a cluster does not load"),
    ],
)
async def test_a_refusal_is_infolds_own(
    ingress: Ingress, method: str, path: str, body: str | None, status: int, said: str
) -> None:
    """Its status and its words, whoever refuses."""
    async with client(ingress) as caller:
        answer = await caller.request(method, path, content=body)
    assert (answer.status_code, answer.json()["error"][: len(said)]) == (status, said)


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [(QueuesFullError("m", 7), 503, "1"), (ReplicaLostError("m"), 503, "1"), (KeyError("secret"), 500, None)],
)
async def test_what_a_cluster_cannot_do_is_no_traceback(
    failure: Exception, status: int, retry_after: str | None
) -> None:
    """503 where asking again helps, and a bare 500 where it is a bug."""

    async def fail(question: Question, body: bytes) -> Answer:
        raise failure

    async with client(before(fail)) as caller:
        answer = await caller.post("/v2/models/m/infer", content=b"{}")
        assert answer.status_code == status and answer.headers.get("retry-after") == retry_after
        assert "secret" not in answer.json()["error"]
        if status == 503:
            page = (await caller.get("/metrics")).text
            assert page  # what replicas do not tell is left out, and no failure


async def test_a_deadline_goes_along_and_ends_the_waiting() -> None:
    """The replica is told what is left; where it says nothing at all, the ingress does."""
    told: list[int] = []
    was_cancelled = asyncio.Event()

    async def never(question: Question, body: bytes) -> Answer:
        told.append(int(dict(question.headers)[b"x-request-timeout-ms"]))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise
        raise AssertionError

    async with client(before(never)) as caller:
        answer = await caller.post("/v2/models/m/infer", headers={"X-Request-Timeout-Ms": "50"})
    assert answer.status_code == 504 and "deadline passed" in answer.json()["error"]
    assert was_cancelled.is_set() and 0 < told[0] <= 50


async def test_bodies_and_answers_go_through_as_they_are() -> None:
    """Compressed bodies stay compressed, a query is kept, and no header is lost."""
    seen: list[tuple[Question, bytes]] = []

    async def echo(question: Question, body: bytes) -> Answer:
        seen.append((question, body))
        return Answer(202, [(b"content-type", b"x/y"), (b"content-encoding", b"gzip")], b"\x1f\x8b")

    async with client(before(echo)) as caller:
        headers = {"Content-Encoding": "gzip", "X-Request-Id": "mine"}
        request = caller.build_request(
            "POST", "/v2/models/m/infer?a=b", content=b"\x1f\x8b..", headers=headers
        )
        answer = await caller.send(request, stream=True)
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert (answer.status_code, answer.headers["content-type"], raw) == (202, "x/y", b"\x1f\x8b")
    ((question, body),) = seen
    assert (question.path, question.query, body) == ("/v2/models/m/infer", b"a=b", b"\x1f\x8b..")
    assert {(b"content-encoding", b"gzip"), (b"x-request-id", b"mine")} <= set(question.headers)


async def test_it_may_be_mounted_below_a_path() -> None:
    """`route_prefix` is no part of what replicas are asked."""

    async def echo(question: Question, body: bytes) -> Answer:
        return json_answer({"path": question.path})

    transport = httpx.ASGITransport(before(echo), root_path="/ml")
    async with httpx.AsyncClient(transport=transport, base_url="http://there") as caller:
        assert (await caller.get("/ml/v2/models/m")).json() == {"path": "/v2/models/m"}


async def test_keys_are_asked_for_where_callers_come_in(shelf: Shelf, tmp_path: Path) -> None:
    """Nobody reaches a replica without one, and no replica asks again."""
    keys = tmp_path / "keys.toml"
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    keys.write_text(f'[[key]]\nname = "me"\nsha256 = "{digest}"\nscopes = ["infer"]\n')
    replica = await started(task(shelf, "a", api_keys=str(keys)))
    known = settings_of({"api_keys": str(keys)})
    async with client(Ingress(known, {"a": known}, {"a": One(replica)})) as caller:
        assert (await caller.post("/v2/models/a/infer", content=BODY, headers=JSON)).status_code == 401
        header = {**JSON, "Authorization": "Bearer test"}
        assert (await caller.post("/v2/models/a/infer", content=BODY, headers=header)).status_code == 200
    await replica.close()


async def test_one_model_without_a_replica_is_not_ready() -> None:
    """Unless it may sleep."""
    known = settings_of({})

    async def never(question: Question, body: bytes) -> Answer:
        raise UnavailableError("m")

    for may_sleep, status in ((frozenset[str](), 503), (frozenset({"m"}), 200)):
        ingress = Ingress(known, {"m": known}, {"m": Stub(never)}, may_sleep)
        async with client(ingress) as caller:
            assert (await caller.get("/v2/health/ready")).status_code == status
            assert (await caller.get("/v2/health/live")).status_code == 200


async def test_a_model_that_is_asked_too_much_is_ready() -> None:
    """Or a load balancer would take every node away just then."""

    async def full(question: Question, body: bytes) -> Answer:
        raise QueuesFullError("m", 7)

    async with client(before(full)) as caller:
        assert (await caller.get("/v2/health/ready")).status_code == 200


async def test_a_user_config_swaps_versions_and_a_bad_one_changes_nothing(shelf: Shelf) -> None:
    """In the process that runs; what is served is served on where that fails."""
    replica = await started(task(shelf, "a"), versions=[1])
    shelf.put("a", 2, 5.0)
    shelf.spoil("a", 3)

    async def answer() -> Any:
        got = await replica.ask(
            Question("POST", "/v2/models/a/infer", b"", [(b"content-type", b"application/json")]),
            BODY.encode(),
        )
        return json.loads(got.body)["model_version"]

    await replica.reconfigure({"versions": [1], "revision": "again"})
    assert await answer() == "1"
    await replica.reconfigure({"versions": [2]})
    assert await answer() == "2"
    for bad in ({"versions": [3]}, {"versions": [9]}, {"version": 1}, {"versions": "newest"}):
        await replica.reconfigure(bad)
        assert await answer() == "2"
        await replica.check_health()
    await replica.close()


async def test_a_replica_that_cannot_start_says_why(shelf: Shelf, tmp_path: Path) -> None:
    """In words that survive the way to the controller."""
    for name, said in (("nobody", "is required, and is no model"), ("bad", "version 1: ")):
        shelf.spoil("bad")
        replica = ModelReplica(task(shelf, name), num_cpus=1)
        with pytest.raises(RuntimeError, match=said):
            await replica.reconfigure({"versions": None})
        await replica.close()


async def test_a_replica_is_healthy_while_its_model_answers(shelf: Shelf) -> None:
    """Ray replaces one whose model does not."""
    replica = await started(task(shelf, "a"))
    await replica.check_health()
    replica._service.models.begin_drain()
    with pytest.raises(RuntimeError, match="model 'a': no version answers"):
        await replica.check_health()
    await replica.close()


def test_cores_are_those_that_are_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets no affinity: a replica that took all cores would take those of its neighbours."""
    monkeypatch.setattr("infold.cluster.replica.available_cores", lambda: 4)
    assert [cores_of(each) for each in (0, 0.5, 1, 2.5, 8)] == [1, 1, 1, 3, 4]


async def test_a_replica_takes_no_more_cores(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sessions are made and runs are counted."""
    monkeypatch.setattr("infold.cluster.replica.available_cores", lambda: 4)
    replica = ModelReplica(task(shelf, "a"), num_cpus=2)
    assert replica._service.manager._runners.cores == 2
    await replica.close()


def test_a_user_without_a_home_is_told_where_to_pull_to(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL needs a folder of this node."""
    from infold.settings import Settings

    monkeypatch.setattr(Settings, "cache_folder", None)
    with pytest.raises(ConfigError, match=r"settings.cache_dir"):
        ModelReplica(task(shelf, "a", shelf.root.as_uri()), num_cpus=1)


def test_no_document_is_a_document() -> None:
    """Where no model answers, the page still loads."""
    assert merged([])["paths"] == {}
