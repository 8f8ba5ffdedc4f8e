"""What is installed: infold, Python, the build of onnxruntime, and what the service is made of."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata

from infold import __version__
from infold.doctor.findings import Finding, bad, ok, warn
from infold.errors import RuntimeMissingError
from infold.runtime.ort import onnxruntime

__all__ = ["check_infold", "check_packages", "check_runtime"]

RUNTIME = "onnxruntime"
# Builds of it, by what they are called: each brings the same module.
BUILDS = {"onnxruntime": "the CPU build", "onnxruntime-gpu": "the GPU build"}
SHOWN = ("numpy", "fastapi", "uvicorn", "pydantic", "onnx", "onnx-ir")
# Only `infold convert` and its kin want these.
NOT_FOR_SERVING = ("onnx", "onnx-ir")
# Where infold itself is not installed, but lies on the path.
LEAST = (
    "fastapi",
    "httptools",
    "msgspec",
    "numpy",
    "orjson",
    "pydantic",
    "pydantic-settings",
    "uvicorn",
    "uvloop",
)


def check_infold() -> list[Finding]:
    """Versions of infold and of Python."""
    facts = {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.system(),
        "machine": platform.machine(),
        "user": os.geteuid(),
    }
    system = f"{facts['system']} {facts['machine']}"
    text = f"{__version__} on Python {facts['python']} ({system}), user {facts['user']}, {sys.executable}"
    return [ok("infold", text, **facts)]


def check_packages() -> list[Finding]:
    """Versions of what the service is made of; what is missing."""
    found = {name: _version(name) for name in dict.fromkeys((*_required(), *SHOWN))}
    missing = [name for name, version in found.items() if version is None and name not in NOT_FOR_SERVING]
    shown = ", ".join(f"{name} {found[name] or 'is not installed'}" for name in SHOWN)
    if missing:
        text = f"{', '.join(missing)} not installed; {shown}"
        return [bad("packages", text, f"pip install {' '.join(missing)}", **found)]
    return [ok("packages", shown, **found)]


def check_runtime() -> list[Finding]:
    """Which build of onnxruntime there is, and that it can be imported."""
    there = _builds()
    words = ", ".join(
        f"{name} {version} ({BUILDS.get(name, 'another build')})" for name, version in there.items()
    )
    try:
        module = onnxruntime()
    except RuntimeMissingError as missing:
        if not there:
            return [bad(RUNTIME, "is not installed", _install(str(missing)))]
        why = missing.__cause__ or "there is an empty folder of its name"
        remedy = f"pip install --force-reinstall --no-deps {next(iter(there))}"
        return [bad(RUNTIME, f"{words} cannot be imported: {why}", remedy, **there)]
    facts = {
        "version": str(module.__version__),
        "builds": there,
        "providers": module.get_available_providers(),
    }
    providers = ", ".join(str(each).removesuffix("ExecutionProvider") for each in facts["providers"])
    text = f"{words or module.__version__}, with providers {providers}"
    if len(there) > 1:
        remedy = (
            f"pip uninstall -y {' '.join(there)}, then install one of them: their files overwrite each other"
        )
        return [warn(RUNTIME, text, remedy, **facts)]
    return [ok(RUNTIME, text, **facts)]


def _install(missing: str) -> str:
    return missing.partition(": ")[2]


def _builds() -> dict[str, str]:
    """Installed packages that bring onnxruntime, with their versions."""
    found = {}
    for each in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
        if name == RUNTIME or (
            name.startswith("onnxruntime-") and not name.endswith(("extensions", "tools"))
        ):
            found[name] = each.version
    return dict(sorted(found.items()))


def _required() -> tuple[str, ...]:
    """Packages that infold says it needs, without those of extras."""
    try:
        lines = metadata.requires("infold") or []
    except metadata.PackageNotFoundError:
        return LEAST
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if "extra ==" not in line)
    return tuple(name[0].lower() for name in names if name)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
