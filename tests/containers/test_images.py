"""What is in the images, and what is not."""

from __future__ import annotations

import json
import time

import pytest

from containers.engine import BASE, CONFINED, CONVERT, CPU, docker, running
from infold import __version__
from infold.settings import Settings

pytestmark = pytest.mark.container

SBOM = "/usr/share/doc/infold/sbom.cdx.json"
TOOLS = ("pip", "pip3", "uv", "gcc", "cc", "g++", "clang", "ld", "as", "make", "cmake", "strip", "protoc")
LOOK = f"""
import importlib.metadata, importlib.util, json, os, shutil
def licence(d):
    words = [d.metadata.get(key) for key in ("License", "License-Expression")]
    return any(words) or any(c.startswith("License ::") for c in d.metadata.get_all("Classifier", []))
print(json.dumps({{
    "undeclared": sorted(d.name for d in importlib.metadata.distributions() if not licence(d)),
    "installed": {{d.name: d.version for d in importlib.metadata.distributions()}},
    "sbom": json.load(open("{SBOM}")),
    "tools": [tool for tool in {TOOLS!r} if shutil.which(tool)],
    "modules": [name for name in ("pip", "ensurepip") if importlib.util.find_spec(name)],
    "user": [os.getuid(), os.getgid()],
    "writable": [p for p in ("/opt/infold", "/usr", "/etc", "/models") if os.access(p, os.W_OK)],
}}))
"""


@pytest.fixture(scope="module", params=[CPU, CONVERT])
def inside(request: pytest.FixtureRequest) -> dict[str, object]:
    """What a process in an image sees, on a root file system that is read-only."""
    told = docker("run", "--rm", *CONFINED, "--entrypoint", "python", request.param, "-c", LOOK)
    return {"image": request.param, **json.loads(told)}


def test_nothing_is_left_that_builds_or_installs(inside: dict[str, object]) -> None:
    """No compiler, no pip, not even the copy of it that comes with Python."""
    assert (inside["tools"], inside["modules"]) == ([], [])


def test_it_runs_without_rights(inside: dict[str, object]) -> None:
    """As a user that owns nothing but its models and its cache."""
    assert inside["user"] == [10001, 10001]
    assert inside["writable"] == []  # the volume for models is somewhere else's to mount


def test_the_bill_of_materials_names_what_is_installed(inside: dict[str, object]) -> None:
    """Every package with its version and the licence that it declares, and none that is not there."""
    sbom = inside["sbom"]
    assert isinstance(sbom, dict) and sbom["bomFormat"] == "CycloneDX"
    listed = {each["name"]: each["version"] for each in sbom["components"]}
    assert listed == inside["installed"]
    assert listed["infold"] == __version__
    unlicensed = [each["name"] for each in sbom["components"] if not each.get("licenses")]
    assert unlicensed == inside["undeclared"]
    assert len(unlicensed) <= 1
    assert "file://" not in json.dumps(sbom["components"])


@pytest.mark.parametrize("image", [CPU, CONVERT])
def test_labels_say_what_it_is(image: str) -> None:
    """Those that registries and scanners look at."""
    (told,) = json.loads(docker("image", "inspect", image))
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in told["Config"]["Labels"].items()
    }
    assert {"title", "description", "version", "source", "licenses", "revision", "created"} <= set(labels)
    assert (labels["title"], labels["version"], labels["licenses"]) == ("infold", __version__, "Apache-2.0")
    assert len(labels["revision"]) == 40  # `make image` gives it
    assert told["Config"]["User"] == "10001"
    assert told["Config"]["Entrypoint"] == ["infold"]


def test_the_service_asks_itself_whether_it_is_healthy() -> None:
    """Through its own command, in exec form; and each variable of the image is a setting."""
    (told,) = json.loads(docker("image", "inspect", CPU))
    assert told["Config"]["Healthcheck"]["Test"] == ["CMD", "infold", "health"]
    given = {each.partition("=")[0] for each in told["Config"]["Env"] if each.startswith("INFOLD_")}
    assert given and given <= {f"INFOLD_{name.upper()}" for name in Settings.model_fields}


def test_the_images_are_small(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, and bounded: what `cpu` adds to its base stays below 300 MB."""
    sizes = {
        image: int(docker("image", "inspect", "-f", "{{.Size}}", image)) for image in (BASE, CPU, CONVERT)
    }
    with capsys.disabled():
        print()
        for image in (CPU, CONVERT):
            added = (sizes[image] - sizes[BASE]) / 1e6
            print(f"{image}: {sizes[image] / 1e6:.0f} MB, {added:.0f} MB above its base")
    assert sizes[CPU] - sizes[BASE] < 300e6


def test_it_is_ready_soon(shipped: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed; the first start learns what later starts with the same cache know."""
    cache = docker("volume", "create")
    try:
        took = []
        for _ in range(2):
            began = time.monotonic()
            with running(*CONFINED, "--volume", f"{shipped}:/models:ro", "--volume", f"{cache}:/cache"):
                took.append(time.monotonic() - began)
    finally:
        docker("volume", "rm", "--force", cache)
    with capsys.disabled():
        print(f"\nfrom `docker run` to ready with digits: {took[0]:.2f} s, with a kept cache {took[1]:.2f} s")
    assert min(took) < 20
