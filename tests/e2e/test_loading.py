"""A version that is bad in any way fails, and the server goes on; on real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from graphs import model
from servers import Server, running
from shelves import Shelf, scaled

# A loop of so many steps ends in no lifetime.
ENDLESS = """g (float[2] x) => (float[2] y) <bool yes = {1}, int64 most = {1000000000000000}> {
    y = Loop (most, yes, x) <body = b (int64 i, bool go, float[2] s) => (bool again, float[2] t)
        { again = Identity (go)  t = Neg (s) }> }"""
BODY = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 1]}]}
WAIT_S = 60.0


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models")


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """Numbers of all processes that it started, and that these did."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children_of(child)]
    return found


def reasons(server: Server) -> dict[str, str]:
    """By model and version, of those that have failed."""
    index = httpx.post(f"{server.url}/v2/repository/index").json()
    return {f"{each['name']}/{each['version']}": each["reason"] for each in index if each.get("reason")}


def golden(folder: Path, factor: float) -> None:
    """Samples of a model that multiplies by that."""
    x = np.float32([3, 4])
    np.savez(folder / "golden.npz", **{"in.x": x, "out.y": x * np.float32(factor)})


def test_a_bad_version_leaves_the_good_one_and_the_server_alone(shelf: Shelf, tmp_path: Path) -> None:
    """One that hangs, one whose weights lie in /etc, one that answers otherwise than it says it does."""
    for name in ("hangs", "leads_out", "differs"):
        golden(shelf.put(name, 1, 2), 2)
    environment = {
        "INFOLD_MODEL_CONTROL": "explicit",
        "INFOLD_LOAD_MODELS": '["*"]',
        "INFOLD_LOAD_TIMEOUT_S": "12",
    }
    with running(
        shelf.root, tmp_path / "log", INFOLD_CACHE_DIR=str(tmp_path / "cache"), **environment
    ) as server:
        shelf.put("hangs", 2, graph=model(ENDLESS).SerializeToString())
        proto = scaled(3)
        onnx.external_data_helper.set_external_data(proto.graph.initializer[0], "/etc/passwd")
        proto.graph.initializer[0].ClearField("raw_data")
        proto.graph.initializer[0].ClearField("float_data")
        shelf.put("leads_out", 2, graph=proto.SerializeToString())
        golden(shelf.put("differs", 2, 3), 2.5)
        expected = {
            "hangs": "the trial of it took longer than 12 s",
            "leads_out": "weights in '/etc/passwd': an absolute path",
            "differs": "golden.npz: out.y[1]: 12.0 is not 10.0 within 0.001 of 10; 2 of 2 differ",
        }
        for name, problem in expected.items():
            answer = httpx.post(f"{server.url}/v2/repository/models/{name}/load", timeout=WAIT_S)
            assert answer.status_code == 400
            assert problem in answer.json()["error"]
            assert problem in reasons(server)[f"{name}/2"]
            reply = httpx.post(f"{server.url}/v2/models/{name}/infer", json=BODY)
            assert reply.json()["outputs"][0]["data"] == [2, 2]
        assert children_of(server.process.pid) == []
        golden(shelf.put("differs", 2, 3), 3)
        assert (
            httpx.post(f"{server.url}/v2/repository/models/differs/load", timeout=WAIT_S).status_code == 200
        )
        assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_start_that_is_ended_leaves_nothing(
    shelf: Shelf, tmp_path: Path, workers: int, how: signal.Signals
) -> None:
    """In the midst of a trial: no process, and no half of an entry where there was time to tidy up."""
    shelf.put("m", 1, graph=model(ENDLESS).SerializeToString())
    cache = tmp_path / "cache"
    command = [
        sys.executable,
        "-m",
        "infold",
        "serve",
        str(shelf.root),
        "--port",
        "0",
        "--workers",
        str(workers),
    ]
    environment = os.environ | {"INFOLD_CACHE_DIR": str(cache)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
    try:
        own = 0 if workers == 1 else workers
        until(lambda: len(children_of(process.pid)) > own)
        until(lambda: (tmp_path / "log").read_text().count("model loading") >= workers)
        started = children_of(process.pid)
        process.send_signal(how)
        assert process.wait(WAIT_S) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
        assert not list(cache.glob(".new-*"))
        if how is signal.SIGTERM:
            lines = (tmp_path / "log").read_text().splitlines()
            assert all(json.loads(line)["level"] == "info" for line in lines)
    finally:
        process.kill()
        process.wait()


def test_a_second_start_needs_no_child(shelf: Shelf, tmp_path: Path) -> None:
    """What has passed is known by its content, wherever it lies."""
    shelf.put("m", 1, 2)
    trials = []
    for number in range(3):
        if number == 2:
            shelf.root.rename(tmp_path / "elsewhere")
            shelf.root = tmp_path / "elsewhere"
        log = tmp_path / f"log{number}"
        with running(shelf.root, log, INFOLD_CACHE_DIR=str(tmp_path / "cache")) as server:
            assert server.stop() == 0
        trials.append(log.read_text().count("version tried"))
    assert trials[0] == 1
    assert trials[2] == 0  # a busy machine is measured on twice
