"""The proof goes on while a model is served: digits and their unfolded twin, over a real socket."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.http import InferenceServerClient

from infold.convert import Sampling, convert_to_repository
from servers import ROOT, Server, running

SAMPLES = ROOT / "examples/digits/samples.npz"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as converted with their twin, and with one that is another network."""
    root = tmp_path_factory.mktemp("shadowed") / "models"
    for name in ("digits", "wrong"):
        source = ROOT / "examples/digits/digits.onnx"
        done = convert_to_repository(source, root, name, Sampling(SAMPLES), keeps_unfolded=True)
        (root / name / "model.toml").write_text("[shadow]\nshare = 1.0\n")
    twin = done.destination.with_name("unfolded.onnx")
    proto = onnx.load(str(twin))
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("classifier") and tensor.name.endswith("weight"):
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name)
            )
            break
    else:
        pytest.fail("digits have no weight to scale")
    onnx.save(proto, str(twin))
    return root


@pytest.fixture(scope="module", params=["1", "2"])
def server(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One process, or two."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running(models, log, INFOLD_WORKERS=request.param) as started:
        yield started


@pytest.mark.parametrize(("name", "least", "most"), [("digits", 0.0, 1e-5), ("wrong", 1e-2, 10.0)])
def test_a_twin_agrees_and_another_network_does_not(
    server: Server, name: str, least: float, most: float
) -> None:
    """On the page for Prometheus and in the statistics, as Triton's client reads them."""
    compared(server, name, 20)
    found = told(server, name)
    assert found["failed"] == 0
    assert least <= found["mean"] <= most
    assert found["mean"] * (1 - 1e-9) <= found["max"] <= most
    samples = page(server, name)
    assert samples["infold_shadow_runs_total"] == samples["infold_shadow_divergence_count"] >= 20
    within = {float(le): n for le, n in samples.items() if le not in FAMILIES}
    if most <= 1e-5:
        assert within[1e-5] == within[float("inf")]
    else:
        assert within[1e-2] == 0


def test_what_diverges_is_in_the_log_once(server: Server) -> None:
    """With model, version, output and number; by each worker for itself."""
    compared(server, "wrong", 5)
    workers = 1 + ('"worker"' in server.log.read_text())
    found = [
        line
        for line in map(json.loads, server.log.read_text().splitlines())
        if line.get("event") == "shadow diverges"
    ]
    assert 1 <= len(found) <= workers
    for line in found:
        assert (line["level"], line["model"], line["version"], line["output"]) == (
            "warning",
            "wrong",
            1,
            "logits",
        )
        assert line["divergence"] > 1e-2


def test_a_broken_twin_does_not_keep_its_version_from_serving(tmp_path: Path, models: Path) -> None:
    """The index says what is wrong with it."""
    shutil.copytree(models / "digits", tmp_path / "models/digits")
    (tmp_path / "models/digits/1/unfolded.onnx").write_bytes(b"no graph")
    with running(tmp_path / "models", tmp_path / "log") as server:

        def reason() -> str:
            (row,) = httpx.post(f"{server.url}/v2/repository/index").json()
            assert row["state"] == "READY"
            return str(row["reason"])

        until(lambda: bool(reason()))
        assert "not held against its shadow" in reason()
        assert "unfolded.onnx" in reason()
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
        assert page(server, "digits")["infold_shadow_failures_total"] == 1
        ask(server, "digits")
        assert server.stop() == 0


def test_a_server_that_is_told_to_end_while_it_opens_a_shadow_ends(tmp_path: Path, models: Path) -> None:
    """At once, and in peace."""
    with running(models, tmp_path / "log") as server:
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


FAMILIES = {
    f"infold_shadow_{each}"
    for each in ("runs_total", "dropped_total", "failures_total", "divergence_sum", "divergence_count")
}
BUCKETS = "infold_shadow_divergence_bucket"


def ask(server: Server, name: str) -> None:
    """A few of the samples."""
    with np.load(SAMPLES) as saved:
        images = saved["in.image"][:3]
    tensor = {
        "name": "image",
        "shape": list(images.shape),
        "datatype": "FP32",
        "data": images.ravel().tolist(),
    }
    httpx.post(f"{server.url}/v2/models/{name}/infer", json={"inputs": [tensor]}).raise_for_status()


def told(server: Server, name: str) -> Any:
    """What the statistics say of a shadow; empty before there is one."""
    with InferenceServerClient(server.address) as client:
        (found,) = client.get_inference_statistics(name, "1")["model_stats"]
    return found.get("shadow", {})


def compared(server: Server, name: str, least: int) -> None:
    """Ask until so many runs have been compared."""

    def enough() -> bool:
        ask(server, name)
        return bool(told(server, name).get("count", 0) >= least)

    until(enough)


def until(holds: Callable[[], bool]) -> None:
    """Ask again until something holds."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def page(server: Server, name: str) -> dict[str, float]:
    """Samples of a model's shadow, buckets by their bound."""
    text = httpx.get(f"{server.url}/metrics").text
    return {
        sample.labels.get("le", sample.name): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in {*FAMILIES, BUCKETS} and sample.labels["model"] == name
    }
