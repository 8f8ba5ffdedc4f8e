"""The container of the Deployment, started here: its probes answer as the manifests count on."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from deploy.deployed import environment_of, probe, replaced, started
from servers import ROOT, Server, slow_model

LIVE, READY = probe("base", "liveness"), probe("base", "readiness")
get, post = partial(httpx.get, timeout=60), partial(httpx.post, timeout=60)  # a busy machine is no mistake
KEYS = {"admin": "the key of operations", "observe": "the key of the scrape"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that digits are measured once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one good model, and one that is none."""
    models = tmp_path_factory.mktemp("shared") / "models"
    models.mkdir()
    (models / "digits").symlink_to(ROOT / "models/digits")
    return models


def spoil(models: Path) -> None:
    """Somebody uploads what is no model."""
    (models / "broken" / "1").mkdir(parents=True, exist_ok=True)
    (models / "broken" / "1" / "model.onnx").write_bytes(b"no model")


@pytest.fixture(scope="module")
def base(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The base, with the models of the image."""
    paths = {"/models": ROOT / "models", "/cache": cache}
    with started("base", paths, tmp_path_factory.mktemp("base") / "log") as server:
        yield server


def test_the_base_answers_on_both_ports(base: Server) -> None:
    """Probes and requests on the one, metrics on the other alone."""
    assert base.docs is not None
    observed = base.docs.removesuffix("/docs")
    for path in {LIVE, READY, probe("base", "startup")}:
        assert get(base.url + path).status_code == 200
    assert get(f"{base.url}/metrics").status_code == 404
    assert "infold_model_state" in get(f"{observed}/metrics").text


def test_the_series_that_the_autoscaler_rests_on_exists(base: Server) -> None:
    """After a request, the sum and the count of the stage `queue`, with the label `stage`."""
    assert base.docs is not None
    described = get(f"{base.url}/v2/models/digits").json()["inputs"][0]
    shape = [1, *described["shape"][1:]]
    tensor = {"name": described["name"], "datatype": described["datatype"], "shape": shape}
    body = {"inputs": [tensor | {"data": np.zeros(shape).ravel().tolist()}]}
    assert post(f"{base.url}/v2/models/digits/infer", json=body).status_code == 200
    page = get(base.docs.removesuffix("/docs") + "/metrics").text
    for family in ("infold_stage_seconds_sum", "infold_stage_seconds_count"):
        series = [line for line in page.splitlines() if line.startswith(family + "{")]
        assert any('stage="queue"' in line and 'model="digits"' in line for line in series)


def test_a_pod_that_leaves_answers_on_through_its_grace(cache: Path, tmp_path: Path) -> None:
    """After SIGTERM it is not ready, still live, and takes requests: endpoints lag behind."""
    paths = {"/models": ROOT / "models", "/cache": cache}
    with started("base", paths, tmp_path / "log") as server:
        server.process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while client.get(READY).status_code == 200:  # the signal is on its way
                pass
            assert client.get(READY).status_code == 503
            assert client.get(LIVE).status_code == 200
            assert client.get("/v2/models/digits").status_code == 200
        assert server.process.poll() is None


def test_a_model_that_fails_makes_the_base_unready_and_never_dead(
    shared: Path, cache: Path, tmp_path: Path
) -> None:
    """So that nobody restarts a pod for a bad model; here it is loaded by name."""
    spoil(shared)
    paths = {"/models": shared, "/cache": cache}
    changed = {"INFOLD_MODEL_CONTROL": "explicit", "INFOLD_LOAD_MODELS": '["digits"]'}
    with started("base", paths, tmp_path / "log", **changed) as server:
        assert get(server.url + READY).status_code == 200
        assert post(f"{server.url}/v2/repository/models/broken/load").status_code == 400
        assert get(server.url + READY).status_code == 503
        assert get(server.url + LIVE).status_code == 200


def test_a_bad_upload_to_the_shared_volume_leaves_the_fleet_ready(
    shared: Path, cache: Path, tmp_path: Path
) -> None:
    """The pods follow one volume: what is bad there must not take all of them out at once."""
    spoil(shared)
    keys = tmp_path / "keys" / "keys.toml"
    keys.parent.mkdir()
    keys.write_text(
        "".join(
            f'[[key]]\nname = "{scope}"\nscopes = ["{scope}"]\n'
            f'sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
            for scope, key in KEYS.items()
        )
    )
    paths = {"/models": shared, "/cache": cache, "/etc/infold/keys": keys.parent}
    with started("overlays/fleet", paths, tmp_path / "log", INFOLD_ADMIN="true") as server:
        ordered = {"Authorization": f"Bearer {KEYS['admin']}"}
        load = f"{server.url}/v2/repository/models/broken/load"
        assert post(load).status_code == 401
        assert post(load, headers=ordered).status_code == 400
        for path in (READY, LIVE):  # which take no key
            assert get(server.url + path).status_code == 200
        assert server.docs is not None
        metrics = server.docs.removesuffix("/docs") + "/metrics"
        assert get(metrics).status_code == 401
        assert get(metrics, headers={"Authorization": f"Bearer {KEYS['observe']}"}).status_code == 200


def test_a_first_load_answers_no_probe_and_ends_when_told(tmp_path: Path) -> None:
    """Which is what the startup probe is for; a pod that is deleted meanwhile goes at once, with 0."""
    models = slow_model(tmp_path / "models")
    golden = {"in.n": np.array([2**60]), "out.total": np.float32(0)}
    np.savez(models / "slow/1/golden.npz", **golden)  # type: ignore[arg-type]  # numpy's stub takes no dict
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = environment_of("base") | {"INFOLD_HOST": "127.0.0.1", "INFOLD_PORT": str(port)}
    settings = replaced(
        settings | {"INFOLD_OBSERVE_PORT": "0"}, {"/models": models, "/cache": tmp_path / "cache"}
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "infold", "serve"],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stderr is not None
            assert any("model loading" in line for line in process.stderr)  # reads on until it is there
            with pytest.raises(httpx.ReadTimeout):
                get(f"http://127.0.0.1:{port}{LIVE}", timeout=0.3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
