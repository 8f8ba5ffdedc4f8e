"""The container that a manifest describes, started here as a process: its arguments and its environment.

Only what this machine cannot have is replaced: paths, addresses and ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.kustomization import Document, compose
from servers import ROOT, Server, running_with

__all__ = ["DEPLOY", "OVERLAYS", "environment_of", "only", "pod_of", "probe", "started"]

DEPLOY = ROOT / "deploy"
OVERLAYS = ("base", "overlays/observed", "overlays/cuda", "overlays/fleet")

# Here the loopback and free ports stand for those of a pod.
HERE = {"INFOLD_HOST": "127.0.0.1", "INFOLD_PORT": "0"}


def only(objects: list[Document], kind: str, name: str = "infold") -> Any:
    """The one object of this kind and name."""
    (found,) = [
        each
        for each in objects
        if each["kind"] == kind
        and each["metadata"]["name"].startswith(name)
        and (kind == "ConfigMap" or each["metadata"]["name"] == name)
    ]
    return found


def pod_of(objects: list[Document]) -> Any:
    """The pod's specification in the Deployment."""
    return only(objects, "Deployment")["spec"]["template"]["spec"]


def environment_of(overlay: str) -> dict[str, str]:
    """What the container of an overlay finds in its environment, from its map of settings."""
    objects = compose(DEPLOY / "kubernetes" / overlay)
    (container,) = pod_of(objects)["containers"]
    (source,) = container["envFrom"]
    settings = only(objects, "ConfigMap")
    assert source["configMapRef"]["name"] == settings["metadata"]["name"]
    return dict(settings["data"])


@contextmanager
def started(overlay: str, paths: Mapping[str, Path], log: Path, **changed: str) -> Iterator[Server]:
    """The container of an overlay as a server here.

    Args:
        overlay: Below deploy/kubernetes.
        paths: What stands for each path of the container.
        log: Where it writes its log.
        changed: Settings that a test sets otherwise.
    """
    (container,) = pod_of(compose(DEPLOY / "kubernetes" / overlay))["containers"]
    environment = environment_of(overlay) | HERE | {"INFOLD_OBSERVE_PORT": "0"} | changed
    verb, *arguments = container["args"]
    assert verb == "serve" and "command" not in container  # the image's entry point is infold
    with running_with(arguments, log, **replaced(environment, paths)) as server:
        yield server


def replaced(environment: Mapping[str, str], paths: Mapping[str, Path]) -> dict[str, str]:
    """Every value that is a path of the container, or lies below one, as it is here."""
    found = {}
    for name, value in environment.items():
        for there, here in paths.items():
            if value == there or value.startswith(f"{there}/"):
                value = str(here) + value.removeprefix(there)
        found[name] = value
    return found


def probe(overlay: str, kind: str) -> str:
    """The path that a probe of the container asks for: `startup`, `readiness` or `liveness`."""
    (container,) = pod_of(compose(DEPLOY / "kubernetes" / overlay))["containers"]
    return str(container[f"{kind}Probe"]["httpGet"]["path"])
