"""The image and the compose file, built and run for real. `make container` runs these."""

import json
import subprocess
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from servers import ROOT

pytestmark = pytest.mark.container

URL = "http://127.0.0.1:8080"


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """The compose service, up and healthy; its container's id."""
    docker("compose", "build")
    docker("compose", "up", "-d", "--wait", "api")
    yield docker("compose", "ps", "-q", "api")
    docker("compose", "down", "-v", "--timeout", "20")


def test_the_service_is_healthy_and_reads_digits(api: str) -> None:
    """`docker compose up` is all a user types."""
    assert docker("inspect", "-f", "{{.State.Health.Status}}", api) == "healthy"
    with np.load(ROOT / "examples/digits/samples.npz") as saved:
        images, labels = saved["in.image"], saved["label"]
    request = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "data": images.tolist()}
    answer = httpx.post(f"{URL}/v2/models/digits/infer", json={"inputs": [request]})
    logits = np.array(answer.json()["outputs"][0]["data"]).reshape(-1, 10)
    assert logits.argmax(axis=1).tolist() == labels.tolist()


def test_it_runs_without_rights_on_a_read_only_root(api: str) -> None:
    """Non-root, nothing writable but /tmp, no build tools inside."""
    assert docker("exec", api, "id", "-u") == "10001"
    assert docker("inspect", "-f", "{{.HostConfig.ReadonlyRootfs}}", api) == "true"
    probe = "import pathlib; pathlib.Path('/models/x').write_text('x')"
    denied = subprocess.run(["docker", "exec", api, "python", "-c", probe], capture_output=True, text=True)
    assert "Read-only file system" in denied.stderr
    for tool in ("gcc", "/opt/infold/bin/pip", "/opt/build/bin/pip"):
        missing = subprocess.run(
            ["docker", "exec", api, "sh", "-c", f"command -v {tool}"], capture_output=True
        )
        assert missing.returncode != 0, tool


def test_the_quota_of_the_container_sets_the_threads() -> None:
    """Half a core is one thread, whatever the host has."""
    code = "from infold.runtime import available_cores; print(available_cores())"
    arguments = ["run", "--rm", "--entrypoint", "python", "infold:cpu", "-c", code]
    assert docker(arguments[0], "--cpus", "0.5", *arguments[1:]) == "1"


def test_the_image_converts_too() -> None:
    """The command line is in the image; a folder is mounted for the result."""
    report = json.loads(
        docker(
            "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/out:mode=1777",
            "-v", f"{ROOT}/examples/digits:/in:ro", "infold:cpu",
            "convert", "/in/digits.onnx", "/out/digits.onnx", "--json",
        )
    )  # fmt: skip
    assert (report["folded"], report["kept"]) == (5, 0)


def test_sigterm_ends_it_with_exit_code_0(api: str) -> None:
    """The last test: it stops the service."""
    started = time.monotonic()
    docker("compose", "stop", "api")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", api) == "0"
    assert time.monotonic() - started < 30


def test_the_image_is_small() -> None:
    """Printed, and bounded: what it adds to its base stays below 300 MB."""
    image = int(docker("image", "inspect", "-f", "{{.Size}}", "infold:cpu"))
    base = int(docker("image", "inspect", "-f", "{{.Size}}", "python:3.11-slim"))
    print(f"\nimage: {image / 1e6:.0f} MB, of which its base {base / 1e6:.0f} MB")
    assert image - base < 300e6
