"""Dockerfile, compose file and locks, as far as nobody needs an engine to read them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from infold import __version__
from infold.settings import Settings
from servers import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
LOCKS = ROOT / "deploy/locks"
PINNED = sorted(path.name for path in LOCKS.glob("*.txt") if path.name != "cpu-builds.txt")


def packages(lock: str) -> dict[str, str]:
    """Names and versions that a lock pins."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (LOCKS / lock).read_text(), re.MULTILINE))


def test_the_image_says_the_version_of_the_package() -> None:
    """Its label is a constant, so that a new revision does not build everything anew."""
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE


def test_a_plain_build_makes_the_image_for_cpus() -> None:
    """The last stage is what is built without a target; all three names are there."""
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert stages[-1] == "cpu" and {"cuda", "convert"} < set(stages)
    assert re.findall(r"^FROM (?!python:\$\{PYTHON\}-slim)(\S+)", DOCKERFILE, re.MULTILINE)[0] not in (
        "python",
    )


def test_what_runs_in_an_image_is_in_exec_form_and_without_rights() -> None:
    """No shell stands between the engine's signals and the service."""
    for word in ("ENTRYPOINT", "CMD"):
        for rest in re.findall(rf"^{word} (.*)$|\b{word} (\[.*)$", DOCKERFILE, re.MULTILINE):
            assert "".join(rest).startswith("["), rest
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*CMD \[\"infold\", \"health\"\]$", DOCKERFILE, re.MULTILINE)


def test_variables_of_the_images_are_settings() -> None:
    """A setting that is renamed is renamed here."""
    given = set(re.findall(r"\b(INFOLD_[A-Z_]+)=", DOCKERFILE))
    given |= {
        name for service in COMPOSE.values() for name in service.get("environment", {}) if "INFOLD" in name
    }
    assert len(given) >= 5
    assert given <= {f"INFOLD_{name.upper()}" for name in Settings.model_fields}


def test_whatever_is_installed_is_checked_by_its_hash() -> None:
    """Each call of pip names a lock, or takes no more than the wheel that was built beside it."""
    calls = re.findall(r"pip [^&]*?\binstall\b([^&]*)", DOCKERFILE.replace("\\\n", " "))
    assert len(calls) == 4
    for call in calls:
        assert "--require-hashes" in call
    finish = (ROOT / "deploy/image/finish").read_text()
    assert re.search(r"install .*--no-deps --no-index", finish)
    named = re.findall(r"deploy/locks/(\S+\.txt)", DOCKERFILE.replace("${FRAMEWORK}", "torch"))
    assert set(named) <= set(PINNED)


@pytest.mark.parametrize("lock", PINNED)
def test_a_lock_has_hashes_and_no_address(lock: str) -> None:
    """Where packages come from is the business of whoever installs them."""
    text = (LOCKS / lock).read_text()
    assert "://" not in text and not re.search(r"^--", text, re.MULTILINE)
    pinned = re.split(r"\n(?=\S)", text.strip())
    assert pinned and all("--hash=sha256:" in each for each in pinned)


def test_each_lock_holds_one_build_of_the_runtime_and_no_more_cuda_than_it_is_for() -> None:
    """The two builds overwrite each other; an image that converts needs no GPU."""
    assert {"onnxruntime-gpu", "nvidia-cudnn-cu13", "nvidia-cuda-runtime"} <= set(packages("gpu.txt"))
    assert "onnxruntime" not in packages("gpu.txt")
    for lock in ("serve.txt", "convert-torch.txt", "convert-keras.txt", "convert-tensorflow.txt"):
        found = packages(lock)
        assert "onnxruntime" in found and "onnxruntime-gpu" not in found
        assert not [name for name in found if name.startswith(("nvidia", "cuda", "triton"))], lock
    for lock in ("convert-torch.txt", "convert-keras.txt"):
        assert packages(lock)["torch"].endswith("+cpu")


@pytest.mark.parametrize(
    "lock", ["gpu.txt", "convert-torch.txt", "convert-keras.txt", "convert-tensorflow.txt"]
)
def test_images_agree_on_what_they_share(lock: str) -> None:
    """What is proven in one is what is served in another."""
    serving, other = packages("serve.txt"), packages(lock)
    shared = set(serving) & set(other) - {"numpy"}  # of which a universal lock has two
    assert len(shared) > 20
    assert {name: serving[name] for name in shared} == {name: other[name] for name in shared}


def test_the_compose_file_gives_each_service_its_bounds() -> None:
    """Ports on the loopback alone, pinned images, limits, a policy, a check of health."""
    for name, service in COMPOSE.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == ("no" if name in ("example", "convert") else "unless-stopped"), name
        if not service["image"].startswith("infold:"):
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
            assert "build" not in service
        if name not in ("convert",):
            assert service["deploy"]["resources"]["limits"]["memory"], name
        if name not in ("example", "convert"):
            assert service["healthcheck"]["test"][0] == "CMD", name
    api = COMPOSE["api"]
    assert api["read_only"] and api["depends_on"]["example"]["condition"] == "service_completed_successfully"
    assert int(api["stop_grace_period"].rstrip("s")) > Settings().drain_s
