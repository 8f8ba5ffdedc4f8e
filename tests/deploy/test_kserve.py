"""The runtimes for KServe, the samples that use them, and the container that they describe."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deploy.deployed import DEPLOY, HERE, replaced
from deploy.kustomization import documents_of
from infold.settings import PREFIX, Settings
from servers import ROOT, running_with

KSERVE = DEPLOY / "kserve"
SAMPLES = sorted((KSERVE / "samples").glob("*.yaml"))


def runtime(name: str) -> Any:
    """One of the two."""
    return documents_of(KSERVE / f"{name}.yaml")[0]


@pytest.fixture(params=["infold", "infold-cuda"])
def container(request: pytest.FixtureRequest) -> Any:
    """The one container of each runtime."""
    (found,) = runtime(request.param)["spec"]["containers"]
    return found


def test_the_container_is_what_kserve_looks_for(container: Any) -> None:
    """Its name, the folder that models are put in, the model's name, the port."""
    assert container["name"] == "kserve-container"
    assert container["args"][:2] == ["serve", "/mnt/models"]
    assert "--model-name={{.Name}}" in container["args"]
    (port,) = container["ports"]
    assert f"--port={port['containerPort']}" in container["args"]
    for kind in ("startup", "readiness", "liveness"):
        assert container[f"{kind}Probe"]["httpGet"]["port"] == port["containerPort"]


def test_the_container_has_settings_that_are(container: Any) -> None:
    """Real ones; and what leaves is done within the time that Kubernetes gives by default."""
    settings = {each["name"]: each["value"] for each in container["env"]}
    assert settings.keys() <= {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    assert float(settings["INFOLD_GRACE_S"]) + float(settings["INFOLD_DRAIN_S"]) < 30
    assert float(settings["INFOLD_DEADLINE_S"]) <= float(settings["INFOLD_DRAIN_S"])


def test_the_container_is_as_bound_as_the_one_without_kserve(container: Any) -> None:
    """No root, no writing but to volumes that are there; the scrape finds its port."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/cache", "/tmp"}


@pytest.mark.parametrize("name", ["infold", "infold-cuda"])
def test_a_runtime_is_taken_by_name_alone(name: str) -> None:
    """It never takes over models of others; it speaks both protocols, v2 first."""
    found = runtime(name)
    spec = found["spec"]
    assert found["metadata"]["name"] == name
    assert [each["name"] for each in spec["supportedModelFormats"]] == ["onnx"]
    assert not any(each["autoSelect"] for each in spec["supportedModelFormats"])
    assert spec["protocolVersions"] == ["v2", "v1"]
    assert {volume["name"] for volume in spec["volumes"]} == {"cache", "tmp"}
    (container,) = spec["containers"]
    assert spec["annotations"]["prometheus.kserve.io/port"] == str(container["ports"][0]["containerPort"])
    is_cuda = name == "infold-cuda"
    assert container["image"] == ("infold:cuda" if is_cuda else "infold:cpu")
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) is is_cuda
    assert ({"name": "INFOLD_DEVICE", "value": "cuda"} in container["env"]) is is_cuda


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_a_sample_names_a_runtime_of_ours(path: Path) -> None:
    """With a format that it supports and a protocol that it speaks."""
    spec = documents_of(path)[0]["spec"]
    for predictor in [spec["predictor"]] + [each["predictor"] for each in spec.get("canary", [])]:
        model = predictor["model"]
        offered = runtime(model["runtime"])["spec"]
        formats = [
            {key: each[key] for key in ("name", "version")} for each in offered["supportedModelFormats"]
        ]
        assert model["modelFormat"] in formats
        assert model["protocolVersion"] in offered["protocolVersions"]


def test_there_is_a_sample_of_each() -> None:
    """And the page names every file."""
    names = {path.name for path in SAMPLES}
    assert {"plain.yaml", "canary-knative.yaml", "canary-standard.yaml", "gpu.yaml"} <= names
    page = (ROOT / "docs/kubernetes.md").read_text()
    assert names == set(re.findall(r"deploy/kserve/samples/([\w-]+\.yaml)", page))


@pytest.mark.skipif("model_name" not in Settings.model_fields, reason="there is no --model-name yet")
def test_the_runtime_serves_what_kserve_mounts(tmp_path: Path) -> None:
    """A folder with model.onnx alone, under the InferenceService's name, ready, in both protocols."""
    mounted = tmp_path / "mnt" / "models"
    mounted.mkdir(parents=True)
    shutil.copyfile(ROOT / "models/digits/1/model.onnx", mounted / "model.onnx")
    (container,) = runtime("infold")["spec"]["containers"]
    paths = {"/mnt/models": mounted, "/cache": tmp_path / "cache"}
    verb, *arguments = [each.replace("{{.Name}}", "numerals") for each in container["args"]]
    assert verb == "serve"
    arguments = [str(mounted) if each == "/mnt/models" else each for each in arguments]
    arguments = [each.replace("0.0.0.0", "127.0.0.1").replace("8080", "0") for each in arguments]
    environment = {each["name"]: each["value"] for each in container["env"]}
    # As a Service named `infold` in the same namespace would have it: the flag stands above it.
    environment |= HERE | {"INFOLD_PORT": "tcp://10.0.0.1:8080"}
    with (
        running_with(arguments, tmp_path / "log", **replaced(environment, paths)) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for kind in ("startup", "readiness", "liveness"):
            assert client.get(container[f"{kind}Probe"]["httpGet"]["path"]).status_code == 200
        told = client.get("/v2/models/numerals").json()
        (described,) = told["inputs"]
        assert told["versions"] == ["1"]
        shape = [1, *described["shape"][1:]]
        image = np.zeros(shape, np.float32)
        tensor = {"name": described["name"], "shape": shape, "datatype": described["datatype"]}
        body = {"inputs": [tensor | {"data": image.ravel().tolist()}]}
        v2 = client.post("/v2/models/numerals/infer", json=body).json()
        v1 = client.post("/v1/models/numerals:predict", json={"instances": image.tolist()}).json()
    assert v2["model_name"] == "numerals"
    np.testing.assert_allclose(np.ravel(v1["predictions"]), v2["outputs"][0]["data"], rtol=1e-6)
