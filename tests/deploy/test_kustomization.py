"""The reader of our kustomizations composes what kustomize would, and refuses the rest."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.deployed import DEPLOY, OVERLAYS
from deploy.kustomization import KustomizationError, compose, files_of

HEAD = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
POD = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "one"},
    "spec": {
        "template": {
            "spec": {
                "containers": [{"name": "c", "image": "i:1", "args": ["a", "b"], "env": [{"name": "A"}]}],
                "volumes": [{"name": "v"}],
            }
        }
    },
}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A folder with a kustomization and other files, as YAML."""

    def into(kustomization: dict[str, Any], **files: Any) -> Path:
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(HEAD | kustomization))
        for name, document in files.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
        return tmp_path

    return into


def test_a_map_of_settings_is_named_as_kustomize_names_it(write: Write) -> None:
    """The hash is of kustomize 5.5 itself, for this very map."""
    (made,) = compose(write({"configMapGenerator": [{"name": "s", "literals": ["A=b"]}]}))
    assert made["metadata"]["name"] == "s-b9t2424hkf"


def test_a_patch_merges_by_name_and_replaces_what_has_none(write: Write) -> None:
    """Containers, their variables and volumes are merged; arguments are replaced."""
    change = {
        "containers": [{"name": "c", "args": ["x"], "env": [{"name": "B"}]}],
        "volumes": [{"name": "w"}],
    }
    patch = {key: POD[key] for key in ("apiVersion", "kind", "metadata")} | {
        "spec": {"template": {"spec": change}}
    }
    folder = write({"resources": ["pod.yaml"], "patches": [{"path": "patch.yaml"}]}, pod=POD, patch=patch)
    spec = compose(folder)[0]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container == {"name": "c", "image": "i:1", "args": ["x"], "env": [{"name": "B"}, {"name": "A"}]}
    assert spec["volumes"] == [{"name": "w"}, {"name": "v"}]


@pytest.mark.parametrize(
    "kustomization",
    [
        {"namePrefix": "x-"},
        {"resources": ["absent.yaml"]},
        {"resources": ["pod.yaml"], "patches": [{"path": "other.yaml"}]},
        {"patches": [{"path": "pod.yaml", "target": {"kind": "Deployment"}}]},
        {"configMapGenerator": [{"name": "s", "behavior": "merge", "literals": ["A=b"]}]},
        {"configMapGenerator": [{"name": "s", "envs": ["file"]}]},
        {"resources": ["pod.yaml"], "images": [{"name": "i", "digest": "sha256:0"}]},
        {"kind": "Component"},
    ],
)
def test_what_the_reader_does_not_know_is_refused(write: Write, kustomization: dict[str, Any]) -> None:
    """Or CI would validate something other than what is applied."""
    other = POD | {"metadata": {"name": "two"}}
    with pytest.raises(KustomizationError):
        compose(write(kustomization, pod=POD, other=other))


@pytest.mark.parametrize("folder", [f"kubernetes/{overlay}" for overlay in OVERLAYS] + ["kserve"])
def test_kustomize_itself_composes_the_same(folder: str) -> None:
    """Where kubectl is at hand, which has kustomize built in."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    command = ["kubectl", "kustomize", str(DEPLOY / folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    theirs = [each for each in yaml.safe_load_all(shown) if each]
    assert _sorted(compose(DEPLOY / folder)) == _sorted(theirs)


def _sorted(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(documents, key=lambda each: (each["kind"], each["metadata"]["name"]))


def test_every_file_is_part_of_an_overlay() -> None:
    """What no overlay takes is validated by nobody, and applied by nobody."""
    taken: set[Path] = set().union(*(files_of(DEPLOY / "kubernetes" / each) for each in OVERLAYS))
    not_for_a_cluster = {DEPLOY / "kubernetes/prometheus-adapter.yaml"}
    assert set((DEPLOY / "kubernetes").rglob("*.yaml")) == taken | not_for_a_cluster
