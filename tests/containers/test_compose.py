"""`docker compose up`, from an empty volume to SIGTERM under load."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pytest

from containers.asking import asking
from containers.engine import CONFINED, CONVERT, Container, docker, free_port, inputs, until
from servers import ROOT

pytestmark = pytest.mark.container

PROJECT = "infold-tests"


@dataclass(frozen=True)
class Stack(Container):
    """The service of the compose file."""

    port: int

    def compose(self, *arguments: object) -> str:
        return compose(self.port, *arguments)

    def versions(self) -> list[str]:
        """Of digits, that answer."""
        return list(httpx.get(f"{self.url}/v2/models/digits", timeout=20).json().get("versions", []))


def compose(port: int, *arguments: object) -> str:
    settings = {"INFOLD_PORT": str(port), "INFOLD_POLL_S": "1"}
    return docker("compose", "--project-name", PROJECT, *arguments, **settings)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Up from nothing and healthy; nothing of it stays."""
    port = free_port()
    compose(port, "down", "--volumes", "--timeout", "1")
    try:
        compose(port, "up", "--detach", "--no-build", "--wait", "api")
        yield Stack(compose(port, "ps", "--quiet", "api"), f"http://127.0.0.1:{port}", port)
    finally:
        compose(port, "down", "--volumes", "--timeout", "20")


def logits_of(stack: Stack, images: np.ndarray) -> np.ndarray:
    answer = httpx.post(f"{stack.url}/v2/models/digits/infer", json=inputs(images), timeout=30).json()
    return np.array(answer["outputs"][0]["data"]).reshape(-1, 10)


def test_it_is_healthy_and_reads_digits(stack: Stack, digits: tuple[np.ndarray, ...]) -> None:
    """One command converts the example and serves it: as the unfolded network says, and rightly."""
    images, reference, labels = digits
    assert stack.state()["Health"]["Status"] == "healthy"
    served = logits_of(stack, images)
    assert np.allclose(served, reference, rtol=1e-4, atol=1e-4)
    assert served.argmax(axis=1).tolist() == labels.tolist()
    picture = httpx.post(
        f"{stack.url}/v2/models/digits/infer",
        content=(ROOT / "examples/digits/seven.png").read_bytes(),
        headers={"content-type": "image/png"},
    )
    assert picture.status_code == 200  # the example's model.toml is in the volume too


def test_its_root_is_read_only_and_so_are_the_models(stack: Stack) -> None:
    """Nothing is writable but /tmp and the cache."""
    probe = """
import pathlib
for place in ("/", "/opt/infold", "/models", "/usr/bin", "/tmp", "/cache"):
    try: pathlib.Path(place, "probe").write_text("x"); print(place)
    except OSError as refused: assert refused.errno in (13, 30), refused
"""
    assert docker("exec", stack.name, "python", "-c", probe).split() == ["/tmp", "/cache"]
    assert docker("inspect", "-f", "{{.HostConfig.ReadonlyRootfs}}", stack.name) == "true"


def test_a_second_up_converts_nothing_and_restarts_nothing(stack: Stack) -> None:
    """The same version, from the same process."""
    before = stack.state()["StartedAt"]
    stack.compose("up", "--detach", "--no-build", "--wait", "api")
    assert "nothing to do" in stack.compose("logs", "example")
    assert stack.versions() == ["1"]
    assert stack.state()["StartedAt"] == before


def test_what_a_framework_left_is_converted_into_the_volume_and_served(
    stack: Stack, digits: tuple[np.ndarray, ...]
) -> None:
    """PyTorch's file, in the image `convert`; the swap loses no request, and no answer changes."""
    images, reference, _ = digits
    call = ("--repository", "/models", "--name", "digits", "--samples", "/in/samples.npz")
    volumes = ("--volume", f"{PROJECT}_models:/models", "--volume", f"{ROOT}/examples/digits:/in:ro")
    with asking(stack.port, images, reference, callers=2) as asked:
        docker(
            "run",
            "--rm",
            "--network",
            "none",
            *CONFINED,
            *volumes,
            CONVERT,
            "convert",
            "/in/digits.pt2",
            *call,
        )
        until(lambda: asked.versions == {"1", "2"}, "version 2 answers")
    assert (asked.wrong, asked.unanswered, asked.refused) == ([], set(), [])
    assert np.allclose(logits_of(stack, images), reference, rtol=1e-4, atol=1e-4)


def test_sigterm_under_load_loses_nothing(stack: Stack, digits: tuple[np.ndarray, ...]) -> None:
    """The last test: exit code 0, and whatever was taken was answered, and rightly."""
    images, reference, _ = digits
    with asking(stack.port, images, reference) as asked:
        until(lambda: len(asked.right) > 200, "load")
        assert not asked.unanswered  # from here on a connection may end where nobody had begun with it
        stack.compose("stop", "api")
        until(lambda: not stack.state()["Running"], "gone")
    assert stack.state()["ExitCode"] == 0
    log = stack.log()
    assert (asked.wrong, asked.taken_but_not_answered(log)) == ([], set())
    assert "Traceback" not in log
    done = {json.loads(line).get("request_id") for line in log.splitlines() if line.startswith("{")}
    assert asked.right <= done


def test_every_profile_is_one_that_compose_understands() -> None:
    """What cannot be pulled or run here: `cuda` on a GPU, Prometheus and Grafana."""
    told = json.loads(docker("compose", "--profile", "*", "config", "--format", "json"))["services"]
    assert set(told) == {"api", "api-cuda", "convert", "example", "grafana", "prometheus"}
    (device,) = told["api-cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert told["api-cuda"]["build"]["target"] == "cuda"
    simple = json.loads(docker("compose", "config", "--format", "json"))["services"]
    assert set(simple) == {"api", "example"}


def test_the_target_for_gpus_is_one_that_the_engine_can_build() -> None:
    """Read to the end by the builder, not built: gigabytes of CUDA."""
    command = ["docker", "buildx", "build", "--target", "cuda"]
    environment = os.environ | {"BUILDX_EXPERIMENTAL": "1"}
    told = ""
    for flag in ("--call=outline", "--print=outline"):  # the name since buildx 0.15, and the one before
        done = subprocess.run(
            [*command, flag, "."], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        told += done.stdout
    assert "TARGET: cuda" in told or "cuda" in told.split()
