"""What a container may have is what the service plans with: quota, affinity, memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from containers.engine import CONFINED, CPU, docker, inputs, open_to_all, running, until

pytestmark = pytest.mark.container

CORES = """
import pathlib
from infold.runtime import available_cores
v2 = pathlib.Path("/v2")
print(available_cores(v2) if v2.exists() else available_cores())
"""


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A machine with cgroup v2 whose quota is half a core, as far as its files are looked at.

    An engine on v1 cannot mount the real ones, and a file that lies over another is no such mount.
    """
    files = {"sys/fs/cgroup/cpu.max": "50000 100000\n", "proc/self/cgroup": "0::/\n"}
    for name, text in files.items():
        file = tmp_path / "v2" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
    open_to_all(tmp_path / "v2")
    return tmp_path / "v2"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is no limit here")
def test_quota_and_affinity_set_the_threads(half: Path) -> None:
    """Half a core by the engine, half by cgroup v2's file, and a set of one: each is one thread."""
    limits = {
        "none": (),
        "cpus": ("--cpus", "0.5"),
        "cpu.max": ("--volume", f"{half}:/v2:ro"),
        "cpuset": ("--cpuset-cpus", str(min(os.sched_getaffinity(0)))),
    }
    found = {
        name: int(docker("run", "--rm", *CONFINED, *limit, "--entrypoint", "python", CPU, "-c", CORES))
        for name, limit in limits.items()
    }
    assert found == {"none": len(os.sched_getaffinity(0)), "cpus": 1, "cpu.max": 1, "cpuset": 1}


def test_the_plan_at_the_start_is_that_of_the_quota(shipped: Path, digits: tuple[np.ndarray, ...]) -> None:
    """`--cpus 0.5` is told in the first line, and predictions are the same."""
    images, logits, _ = digits
    limits = ("--cpus", "0.5", "--memory", "512m")
    with running(*CONFINED, *limits, "--volume", f"{shipped}:/models:ro") as service:
        assert "1 core (quota 0.5)" in service.log()
        answer = httpx.post(f"{service.url}/v2/models/digits/infer", json=inputs(images), timeout=30).json()
        served = np.array(answer["outputs"][0]["data"]).reshape(logits.shape)
        assert np.allclose(served, logits, rtol=1e-4, atol=1e-4)


def test_out_of_memory_ends_it_and_the_policy_begins_it_again(shipped: Path) -> None:
    """A request that takes more than there is kills the process (137); the next one is answered."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    greedy (int64[1] n) => (float total) { ones = ConstantOfShape <value = float[1] {1}> (n)
                                           total = ReduceSum <keepdims = 0> (ones) }"""
    folder = shipped.parent / "greedy" / "greedy" / "1"
    folder.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(text), str(folder / "model.onnx"))
    open_to_all(folder.parents[1])
    limits = ("--memory", "320m", "--memory-swap", "320m", "--restart", "on-failure:3")
    with running(*CONFINED, *limits, "--volume", f"{folder.parents[1]}:/models:ro") as service:
        began = docker("info", "-f", "{{.SystemTime}}")
        ask = f"{service.url}/v2/models/greedy/infer"
        tensor = {"name": "n", "shape": [1], "datatype": "INT64"}
        with pytest.raises(httpx.TransportError):
            httpx.post(ask, json={"inputs": [tensor | {"data": [10**9]}]}, timeout=60)
        until(lambda: service.state()["RestartCount"] == 1, "started again")
        until(service.is_ready, "ready again")
        until(lambda: service.state()["Health"]["Status"] == "healthy", "healthy again")
        total = httpx.post(ask, json={"inputs": [tensor | {"data": [1000]}]}, timeout=30).json()
        assert total["outputs"][0]["data"] == [1000.0]
        ended = docker("info", "-f", "{{.SystemTime}}")
        query = ("events", "--since", began, "--until", ended, "--filter", f"container={service.name}")
        told = [json.loads(line) for line in docker(*query, "--format", "{{json .}}").splitlines()]
        codes = [each["Actor"]["Attributes"]["exitCode"] for each in told if each["Action"] == "die"]
        assert (codes, "oom" in {each["Action"] for each in told}) == (["137"], True)
