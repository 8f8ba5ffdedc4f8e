"""Models loaded, swapped and unloaded while a real server answers, on real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from servers import Server, running, slow_model
from shelves import Shelf

BODY = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 1]}]}
EXPLICIT = {"INFOLD_MODEL_CONTROL": "explicit"}
POLL = {"INFOLD_MODEL_CONTROL": "poll", "INFOLD_POLL_S": "0.2"}
PAIR = {"INFOLD_WORKERS": "2"}
FRESH = 12  # connections, so many that both workers take some


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models")


@contextmanager
def serving(shelf: Shelf, **environment: str) -> Iterator[tuple[Server, httpx.Client]]:
    """A server over a shelf, with a client."""
    with (
        running(shelf.root, shelf.root.with_name("log"), **environment) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield server, client


def order(client: httpx.Client, what: str, name: str, **body: object) -> tuple[int, str]:
    """Status and text of a load or an unload."""
    answer = client.post(f"/v2/repository/models/{name}/{what}", json=body or None)
    return answer.status_code, answer.json()["error"] if answer.content else ""


def factor(client: httpx.Client, name: str, version: int | None = None) -> float | int:
    """What a model multiplies by, or the status of what is no answer."""
    path = f"/v2/models/{name}" if version is None else f"/v2/models/{name}/versions/{version}"
    answer = client.post(f"{path}/infer", json=BODY)
    if answer.status_code != 200:
        return answer.status_code
    return float(answer.json()["outputs"][0]["data"][0])


def factors(server: Server, name: str) -> set[float | int]:
    """What all workers say, asked over fresh connections that are open at once."""
    with contextlib.ExitStack() as stack:
        connections = [http.client.HTTPConnection(server.address, timeout=60) for _ in range(FRESH)]
        for each in connections:
            stack.enter_context(contextlib.closing(each))
            each.connect()
        answers = [infer(each, name) for each in connections]
        return {
            float(json.loads(body)["outputs"][0]["data"][0]) if status == 200 else status
            for status, body in answers
        }


def infer(connection: http.client.HTTPConnection, name: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection.request("POST", f"/v2/models/{name}/infer", json.dumps(BODY))
    answer = connection.getresponse()
    return answer.status, answer.read()


def rows(client: httpx.Client, **body: object) -> dict[tuple[str, str], tuple[str, str]]:
    """The index: state and reason, by name and version."""
    found = client.post("/v2/repository/index", json=body or None).raise_for_status().json()
    return {
        (row["name"], row.get("version", "")): (row.get("state", ""), row.get("reason", "")) for row in found
    }


def shown(client: httpx.Client) -> dict[tuple[str, str], str]:
    """States on the page of metrics."""
    page = client.get("/metrics").text
    pattern = r'^infold_model_state\{model="(.*)",state="(.*)",version="(.*)"\} 1\.0$'
    return {(model, version): state for model, state, version in re.findall(pattern, page, re.MULTILINE)}


def is_ready(client: httpx.Client) -> bool:
    return client.get("/v2/health/ready").status_code == 200


# -- explicit -----------------------------------------------------------------------------------------


def test_a_model_is_loaded_answers_and_is_unloaded(shelf: Shelf) -> None:
    """By name and not before; the service is ready all the time."""
    shelf.put("m", 1, 2)
    shelf.put("other", 1, 3)
    with serving(shelf, **EXPLICIT) as (_, client):
        assert is_ready(client)
        assert (factor(client, "m"), client.get("/v2/models").json()) == (404, {"models": []})
        assert rows(client) == {("m", ""): ("", ""), ("other", ""): ("", "")}
        assert (rows(client, ready=True), shown(client)) == ({}, {})
        assert order(client, "load", "m") == (200, "")
        assert (factor(client, "m"), factor(client, "m", 1), factor(client, "other")) == (2, 2, 404)
        assert rows(client, ready=True) == {("m", "1"): ("READY", "")}
        assert shown(client) == {("m", "1"): "ready"}
        shelf.put("m", 2, 3)
        assert factor(client, "m") == 2
        assert order(client, "load", "m") == (200, "")
        assert (factor(client, "m"), factor(client, "m", 1)) == (3, 404)
        assert rows(client)["m", "1"] == ("UNAVAILABLE", "unloaded")
        assert order(client, "unload", "m", parameters={"unload_dependents": True}) == (200, "")
        assert is_ready(client)
        for path in ("/v2/models/m", "/v2/models/m/ready", "/v2/models/m/stats", "/v1/models/m/metadata"):
            assert client.get(path).status_code == 404
        assert (factor(client, "m"), client.get("/v2/models").json()) == (404, {"models": []})
        assert shown(client) == {("m", "1"): "unloaded", ("m", "2"): "unloaded"}
        assert rows(client)["m", "2"] == ("UNAVAILABLE", "unloaded")


def test_only_what_is_named_is_loaded_at_the_start(shelf: Shelf) -> None:
    """Or all there is."""
    for name in ("a", "b", "c"):
        shelf.put(name, 1, 2)
    for names, found in (('["b"]', ["b"]), ('["*"]', ["a", "b", "c"])):
        with serving(shelf, **EXPLICIT, INFOLD_LOAD_MODELS=names) as (_, client):
            assert client.get("/v2/models").json() == {"models": found}


def test_what_does_not_load_is_refused_and_what_is_served_stays(shelf: Shelf) -> None:
    """The index and metrics tell it; unloading it makes the service ready again."""
    shelf.put("m", 1, 2)
    shelf.spoil("bad")
    with serving(shelf, **EXPLICIT) as (_, client):
        status, text = order(client, "load", "gone")
        assert (status, text.startswith("failed to load 'gone', ")) == (400, True)
        assert is_ready(client)
        assert order(client, "load", "m") == (200, "")
        shelf.spoil("m")
        shelf.spoil("m", 2)
        for name in ("m", "bad"):
            status, text = order(client, "load", name)
            assert (status, text.startswith(f"failed to load '{name}', version")) == (400, True)
        assert (factor(client, "m"), factor(client, "bad")) == (2, 503)
        state, reason = rows(client)["bad", "1"]
        assert (state, "bad/1/model.onnx" in reason) == ("UNAVAILABLE", True)
        assert shown(client) == {("m", "1"): "ready", ("m", "2"): "failed", ("bad", "1"): "failed"}
        assert not is_ready(client)
        assert order(client, "unload", "bad") == (200, "")
        assert is_ready(client)
        assert shown(client)["bad", "1"] == "unloaded"
        assert order(client, "unload", "gone") == (404, "Request for unknown model: 'gone' is not found")


def test_orders_that_make_no_sense_are_refused(shelf: Shelf) -> None:
    """With what is wrong; none of them is carried out, and the next one is."""
    shelf.put("m", 1, 2)
    with serving(shelf, **EXPLICIT) as (_, client):
        load = "/v2/repository/models/m/load"
        cases: list[tuple[bytes, int, str]] = [
            (b"{", 400, "request: "),
            (b"[]", 400, "request: "),
            (b"null", 400, "request: "),
            (b'{"parameters": 1}', 400, "request: "),
            (b"\xff", 400, "request: "),
            (b'{"parameters": {"config": 1}}', 400, "parameters.config: must be a string"),
            (b'{"parameters": {"config": {}}}', 400, "parameters.config: must be a string"),
            (b'{"parameters": {"config": "{"}}', 400, "failed to load 'm', "),
            (b'{"parameters": {"file:1/model.onnx": "AAAA"}}', 400, "parameters.file:1/model.onnx: is not"),
            (b'{"parameters": {"config": "{}", "other": 1}}', 400, "parameters.other: is not served"),
            (b" " * (2**20 + 1), 413, "the request body exceeds"),
        ]
        for body, status, text in cases:
            answer = client.post(load, content=body)
            assert (answer.status_code, answer.json()["error"][: len(text)]) == (status, text)
        for path in ("/v2/repository/index", "/v2/repository/models/m/unload"):
            assert client.post(path, content=b"{").status_code == 400
        for name in ("..%2fm", "%2e%2e", "m%00", "m%2f1", "ü", "x" * 200):
            assert client.post(f"/v2/repository/models/{name}/load").status_code in (400, 404)
        assert client.get(load).status_code == 405
        assert (factor(client, "m"), is_ready(client)) == (404, True)
        assert client.post(load, content=b"\n").status_code == 200
        assert factor(client, "m") == 2


def test_the_index_tells_what_lies_there_whatever_becomes_of_it(shelf: Shelf) -> None:
    """A folder that vanished is no failure of the call."""
    shelf.put("m", 1, 2)
    shelf.put("other")
    shelf.configure("odd", "nonsense")
    with serving(shelf, **EXPLICIT) as (_, client):
        assert order(client, "load", "m") == (200, "")
        shelf.take("m")
        shelf.take("other")
        assert rows(client) == {("m", "1"): ("READY", "")}
        assert factor(client, "m") == 2
        assert order(client, "load", "m")[0] == 400
        assert factor(client, "m") == 2


@pytest.mark.parametrize(
    ("mode", "triton", "status", "text"),
    [
        ("none", "false", 403, "--model-control explicit"),
        ("poll", "false", 403, "--model-control explicit"),
        ("none", "true", 503, "explicit model load / unload is not allowed if polling is enabled"),
    ],
)
def test_where_models_are_not_loaded_by_name_callers_are_told(
    shelf: Shelf, mode: str, triton: str, status: int, text: str
) -> None:
    """The index is open to all."""
    shelf.put("m", 1, 2)
    with serving(shelf, INFOLD_MODEL_CONTROL=mode, INFOLD_TRITON_COMPAT=triton) as (_, client):
        for what in ("load", "unload"):
            found, said = order(client, what, "m")
            assert (found, text in said) == (status, True)
        assert (factor(client, "m"), rows(client)) == (2, {("m", "1"): ("READY", "")})


# -- several workers ----------------------------------------------------------------------------------


def test_an_order_is_obeyed_by_all_workers_and_by_those_that_come_later(shelf: Shelf) -> None:
    """Also by one that was down when it was given; and orders do not fail because of that."""
    for name, value in (("m", 2), ("n", 3)):
        shelf.put(name, 1, value)
    with serving(shelf, **EXPLICIT, **PAIR) as (server, client):
        assert factors(server, "m") == {404}
        assert order(client, "load", "m") == (200, "")
        assert factors(server, "m") == {2}
        shelf.put("m", 1, 4)
        assert order(client, "load", "m") == (200, "")
        assert factors(server, "m") == {4}
        kill_a_worker(server)
        with httpx.Client(base_url=server.url, timeout=60) as living:
            assert order(living, "load", "n") == (200, "")
            assert order(living, "unload", "m") == (200, "")
            until(lambda: is_ready(living))
            until(lambda: (factors(server, "m"), factors(server, "n")) == ({404}, {3}))
            assert order(living, "unload", "m") == (200, "")  # though one worker never knew it
            assert order(living, "load", "m") == (200, "")
            assert order(living, "unload", "n") == (200, "")
            assert (factors(server, "m"), factors(server, "n")) == ({4}, {404})
        kill_a_worker(server)
        with httpx.Client(base_url=server.url, timeout=60) as living:
            until(lambda: is_ready(living))
            assert (factors(server, "m"), factors(server, "n")) == ({4}, {404})
        assert server.stop() == 0


def test_a_worker_comes_back_though_somebody_tried_to_load_what_does_not(shelf: Shelf) -> None:
    """It serves what the other one does: a version beside the broken one, and the other models."""
    shelf.put("m", 1, 2)
    shelf.put("all", 1, 3)
    shelf.spoil("all", 2)
    shelf.configure("all", "versions = 'all'")
    shelf.spoil("bad")
    with serving(shelf, **EXPLICIT, **PAIR) as (server, client):
        assert [order(client, "load", name)[0] for name in ("m", "bad", "all")] == [200, 400, 400]
        kill_a_worker(server)
        until(lambda: events_of(server).count("worker ready") == 3)
        assert events_of(server).count("worker died") == 1
        assert (factors(server, "m"), factors(server, "all")) == ({2}, {3})


# -- poll ---------------------------------------------------------------------------------------------


def test_what_appears_on_disk_is_served_and_what_vanishes_is_not(shelf: Shelf) -> None:
    """New versions, new models; a bad one leaves the old one, and says why."""
    shelf.put("m", 1, 2)
    with serving(shelf, **POLL) as (_, client):
        assert factor(client, "m") == 2
        shelf.put("m", 2, 3)
        until(lambda: factor(client, "m") == 3)
        until(lambda: factor(client, "m", 1) == 404)
        assert shown(client) == {("m", "1"): "unloaded", ("m", "2"): "ready"}
        shelf.spoil("m", 2)
        until(lambda: "m/2/model.onnx" in rows(client)["m", "2"][1])
        assert (factor(client, "m"), rows(client)["m", "2"][0]) == (3, "READY")
        shelf.spoil("m", 3)
        until(lambda: ("m", "3") in rows(client) and rows(client)["m", "3"][0] == "UNAVAILABLE")
        assert "m/3/model.onnx" in rows(client)["m", "3"][1]
        assert (factor(client, "m"), is_ready(client), shown(client)["m", "3"]) == (3, True, "failed")
        shelf.put("n", 1, 4)
        until(lambda: factor(client, "n") == 4)
        shelf.take("n")
        until(lambda: factor(client, "n") == 404)
        assert client.get("/v2/models").json() == {"models": ["m"]}
        shelf.put("m", 3, 2)
        until(lambda: factor(client, "m") == 2)
        assert (is_ready(client), shown(client)["m", "3"]) == (True, "ready")


def test_a_worker_that_could_not_serve_all_stays_away_until_it_can(shelf: Shelf) -> None:
    """The old version is in the memory of the other one alone: that one answers, and nobody notices."""
    shelf.put("m", 1, 2)
    with serving(shelf, **POLL, **PAIR) as (server, client):
        shelf.spoil("m")
        until(lambda: "m/1/model.onnx" in rows(client)["m", "1"][1])
        kill_a_worker(server)
        seen = set[float | int]()

        def holds(done: Callable[[], bool]) -> bool:
            seen.update(factors(server, "m"))
            return done()

        until(lambda: holds(lambda: events_of(server).count("worker died") == 2))
        assert not is_ready(client)
        assert seen == {2}
        shelf.put("m", 1, 3)
        until(lambda: holds(lambda: is_ready(client)))
        assert seen <= {2, 3}
        until(lambda: factors(server, "m") == {3})


def test_a_repository_that_is_away_for_a_while_is_served_on(shelf: Shelf) -> None:
    """And followed again once it is back."""
    shelf.put("m", 1, 2)
    with serving(shelf, **POLL) as (server, client):
        away = shelf.root.with_name("away")
        shelf.root.rename(away)
        until(lambda: events_of(server).count("repository not listed") >= 3)
        assert (factor(client, "m"), is_ready(client)) == (2, True)
        assert client.post("/v2/repository/index").status_code == 500
        away.rename(shelf.root)
        shelf.put("m", 2, 3)
        until(lambda: factor(client, "m") == 3)
        assert server.stop() == 0


# -- under way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment", [EXPLICIT, EXPLICIT | PAIR, POLL], ids=["explicit", "explicit, two workers", "poll"]
)
def test_no_request_fails_while_versions_are_swapped(shelf: Shelf, environment: Mapping[str, str]) -> None:
    """Ten times, in turn a new version and another file in the place of the old."""
    shelf.put("m", 1, 2)
    with (
        serving(shelf, **environment, INFOLD_LOAD_MODELS='["m"]') as (server, client),
        asking(server) as seen,
    ):
        version = 1
        for swap in range(10):
            value = (3, 2)[swap % 2]
            version += swap % 2
            shelf.put("m", version, value)
            if environment is not POLL:
                assert order(client, "load", "m") == (200, "")
                assert factors(server, "m") == {value}
            until(lambda value=value: factor(client, "m") == value)
    answers = [json.loads(body) for status, body in seen if status == 200]
    assert [body for status, body in seen if status != 200] == []
    found = {(each["model_version"], each["outputs"][0]["data"][0]) for each in answers}
    assert found >= {("1", 2), ("1", 3), ("6", 2)}


def test_sigterm_during_a_load_answers_what_was_accepted(tmp_path: Path) -> None:
    """The order too, as it takes no longer than it may; exit code 0."""
    with loading_slowly(tmp_path, 40_000) as (server, order_is_answered):
        assert server.stop() == 0
        assert order_is_answered() == 200


def test_sigterm_during_a_load_waits_no_longer_than_told(tmp_path: Path) -> None:
    """A load that takes for ever does not hold up the end; there is nothing to be lost by it."""
    with loading_slowly(tmp_path, 10**9, INFOLD_DRAIN_S="1") as (server, order_is_answered):
        assert server.stop() == 0
        assert order_is_answered() != 200


def test_sigterm_during_a_load_of_two_workers_waits_no_longer_than_told(tmp_path: Path) -> None:
    """Nor does any of them."""
    with loading_slowly(tmp_path, 10**9, INFOLD_DRAIN_S="1", **PAIR) as (server, order_is_answered):
        assert server.stop() == 0
        assert order_is_answered() != 200


@contextmanager
def loading_slowly(
    tmp_path: Path, spins: int, **environment: str
) -> Iterator[tuple[Server, Callable[[], int]]]:
    """A server in the midst of a load that runs a loop so often; and the status it is answered with."""
    root = slow_model(tmp_path / "models")
    np.savez(root / "slow" / "1" / "golden.npz", **{"in.n": np.array([spins])})
    log, cache = tmp_path / "log", str(tmp_path / "cache")
    found: list[int] = []
    with running(root, log, INFOLD_CACHE_DIR=cache, **EXPLICIT, **environment) as server:

        def load() -> None:
            try:
                answer = httpx.post(f"{server.url}/v2/repository/models/slow/load", timeout=60)
                found.append(answer.status_code)
            except httpx.HTTPError:
                found.append(0)

        caller = threading.Thread(target=load)
        caller.start()
        until(lambda: "model loading" in events_of(server))

        def answered() -> int:
            caller.join(20)
            return found[0]

        yield server, answered
        caller.join(20)


@contextmanager
def asking(server: Server) -> Iterator[list[tuple[int, bytes]]]:
    """Requests one after another from two threads until the end; status and body of each answer."""
    seen: list[tuple[int, bytes]] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            with contextlib.closing(http.client.HTTPConnection(server.address, timeout=20)) as connection:
                for _ in range(50):
                    seen.append(infer(connection, "m"))

    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        yield seen
    finally:
        is_over.set()
        for caller in callers:
            caller.join()


def kill_a_worker(server: Server) -> None:
    """The one that was started first of those there; returns once it is known to be gone."""
    died = events_of(server).count("worker died")
    os.kill(workers_of(server)[died], signal.SIGKILL)
    until(lambda: events_of(server).count("worker died") == died + 1)


def log_of(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.endswith("}")]


def events_of(server: Server) -> list[object]:
    return [line["event"] for line in log_of(server)]


def workers_of(server: Server) -> list[int]:
    """Processes in the order they were started."""
    return [int(str(line["pid"])) for line in log_of(server) if line["event"] == "worker started"]


def until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait, but not for ever."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
