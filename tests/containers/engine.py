"""The Docker engine as tests use it: images that `make image` built, containers that leave nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from servers import ROOT

__all__ = [
    "BASE",
    "CONFINED",
    "CONVERT",
    "CPU",
    "Container",
    "docker",
    "free_port",
    "inputs",
    "open_to_all",
    "running",
    "until",
]

BASE, CPU, CONVERT = "python:3.11-slim", "infold:cpu", "infold:convert"
# As the compose file runs them.
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
PATIENCE_S = 90.0


def docker(*arguments: object, check: bool = True, **environment: str) -> str:
    """What a command prints; a failure of it is one of the test."""
    command = ["docker", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, env=os.environ | environment
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def open_to_all(folder: Path) -> None:
    """A container's user can read a folder of a test that is mounted for it."""
    for each in (folder, *folder.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


def until(holds: Callable[[], object], what: str) -> float:
    """Return once it holds; how many seconds that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_S, f"still not: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass(frozen=True)
class Container:
    """A service in a container of its own."""

    name: str
    url: str

    def state(self) -> dict[str, Any]:
        """What the engine says of it."""
        (told,) = json.loads(docker("inspect", self.name))
        return {**told["State"], "RestartCount": told["RestartCount"]}

    def log(self) -> str:
        """Both streams of it, from its first start on."""
        done = subprocess.run(
            ["docker", "logs", self.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return done.stdout

    def is_ready(self) -> bool:
        """It answers that it is."""
        try:
            return httpx.get(f"{self.url}/v2/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running(*options: object, image: str = CPU) -> Iterator[Container]:
    """A service with these options of `docker run`, ready; gone afterwards."""
    port = free_port()
    name = f"infold-test-{port}"
    try:
        docker("run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:8080", *options, image)
        container = Container(name, f"http://127.0.0.1:{port}")
        try:
            until(container.is_ready, "ready")
        except AssertionError:
            raise AssertionError(container.log()) from None
        yield container
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


def inputs(images: np.ndarray) -> dict[str, Any]:
    """The body of a request for digits."""
    tensor = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "data": images.tolist()}
    return {"inputs": [tensor]}
