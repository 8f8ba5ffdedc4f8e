"""Versions that take each other's place behind real sockets, in all workers; readiness; leaving."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from servers import Server, running, serve_fails
from shelves import Shelf

BODY = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 1]}]}
ADMIN = {"INFOLD_ADMIN": "true"}
PAIR = {"INFOLD_WORKERS": "2"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models")


def factors(url: str, path: str = "m", requests: int = 24) -> list[float]:
    """What a model multiplies by, over so many fresh connections."""
    found = []
    for _ in range(requests):
        answer = httpx.post(f"{url}/v2/models/{path}/infer", json=BODY).raise_for_status()
        found.append(float(answer.json()["outputs"][0]["data"][0]))
    return found


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def workers_of(server: Server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_a_roll_back_reaches_every_worker_and_whoever_takes_its_place(shelf: Shelf, tmp_path: Path) -> None:
    """One call; no request is refused meanwhile."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    with running(shelf.root, tmp_path / "log", **ADMIN, **PAIR) as server:
        assert set(factors(server.url)) == {2}
        stop, refused = threading.Event(), list[int]()

        def ask() -> None:
            with httpx.Client(base_url=server.url) as client:
                while not stop.is_set():
                    status = client.post("/v2/models/m/infer", json=BODY).status_code
                    if status != 200:
                        refused.append(status)

        asking = threading.Thread(target=ask)
        asking.start()
        answer = httpx.post(f"{server.url}/v2/repository/models/m/rollback", timeout=60)
        stop.set()
        asking.join()
        assert (answer.status_code, answer.json()) == (200, {"name": "m", "version": "1", "rejected": "2"})
        assert refused == []
        assert set(factors(server.url)) == {1}
        first = workers_of(server)[0]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: first not in workers_of(server) and len(workers_of(server)) == 2)
        eventually(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 200)
        assert set(factors(server.url)) == {1}
        again = httpx.post(f"{server.url}/v2/repository/models/m/load", timeout=60)
        assert again.status_code == 200
        assert set(factors(server.url)) == {2}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"version": "7"}', 404, "version 7"),
        (b'{"version": 1}', 404, "version 1"),
        (b'{"version": [1]}', 400, "Expected"),
        (b'{"versions": "2"}', 400, "versions"),
        (b"{", 400, "truncated"),
    ],
)
def test_a_roll_back_of_what_is_not_served_is_refused(
    shelf: Shelf, tmp_path: Path, body: bytes, status: int, text: str
) -> None:
    """And changes nothing."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    with running(shelf.root, tmp_path / "log", **ADMIN) as server:
        answer = httpx.post(f"{server.url}/v2/repository/models/m/rollback", content=body)
        assert (answer.status_code, text in answer.json()["error"]) == (status, True), answer.text
        assert set(factors(server.url, requests=2)) == {2}


def test_orders_are_off_unless_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    """All of them."""
    shelf.put("m", 1, 1)
    with running(shelf.root, tmp_path / "log") as server:
        for order in ("load", "unload", "rollback"):
            answer = httpx.post(f"{server.url}/v2/repository/models/m/{order}")
            assert answer.status_code == 403, order


def test_a_canary_gets_its_share_of_real_requests(shelf: Shelf, tmp_path: Path) -> None:
    """Asked by label, it is one or the other."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    shelf.configure("m", "versions = 'latest:2'\n[canary]\nshare = 0.25\n")
    with running(shelf.root, tmp_path / "log") as server:
        assert factors(server.url).count(2) == 6
        assert set(factors(server.url, "m/versions/@canary", 3)) == {2}
        assert set(factors(server.url, "m/versions/@stable", 3)) == {1}


def test_a_model_that_is_not_required_stops_neither_start_nor_readiness(shelf: Shelf, tmp_path: Path) -> None:
    """Its requests are told why; one that is required and is not there stops the start."""
    shelf.put("m", 1, 3)
    shelf.spoil("bad")
    required = {"INFOLD_REQUIRED_MODELS": '["m"]'}
    with running(shelf.root, tmp_path / "log", **required) as server:
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        assert factors(server.url, requests=1) == [3]
        assert httpx.post(f"{server.url}/v2/models/bad/infer", json=BODY).status_code == 503
    code, text = serve_fails(str(shelf.root), "--port", "0")
    assert (code, "bad" in text) == (1, True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("INFOLD_REQUIRED_MODELS", '["m", "gone"]')
        code, text = serve_fails(str(shelf.root), "--port", "0")
    assert (code, "gone: is required" in text) == (1, True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_in_the_grace_after_sigterm_requests_are_answered_but_it_is_not_ready(
    shelf: Shelf, tmp_path: Path, workers: str
) -> None:
    """New connections, too; then it ends with 0."""
    shelf.put("m", 1, 3)
    grace = {"INFOLD_GRACE_S": "2", "INFOLD_WORKERS": workers}
    with running(shelf.root, tmp_path / "log", **grace) as server:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 503)
        assert httpx.get(f"{server.url}/v2/health/live").status_code == 200
        assert factors(server.url, requests=4) == [3, 3, 3, 3]
        answer = httpx.post(f"{server.url}/v2/models/m/infer", json=BODY)
        assert answer.headers["connection"] == "close"  # so its client looks elsewhere
        assert server.process.wait(20) == 0


def test_on_ctrl_c_there_is_no_grace(shelf: Shelf, tmp_path: Path) -> None:
    """Whoever presses it waits."""
    shelf.put("m", 1, 3)
    with running(shelf.root, tmp_path / "log", INFOLD_GRACE_S="3600") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


def test_a_second_signal_in_the_grace_ends_it(shelf: Shelf, tmp_path: Path) -> None:
    """With 1."""
    shelf.put("m", 1, 3)
    with running(shelf.root, tmp_path / "log", INFOLD_GRACE_S="3600") as server:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(f"{server.url}/v2/health/ready").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 1
