"""Is a document of deploy/ one that a cluster would take? Says what is wrong with it, and where.

Kubernetes' own kinds are asked of its published schemas, for the oldest release we name and the
newest we know; other kinds of our tables in custom_kinds.py. A kind of neither is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate

from deploy.fields import Own
from deploy.kustomization import documents_of

__all__ = [
    "CONTAINER",
    "OLDEST",
    "POD_TEMPLATE",
    "SERVICE",
    "VOLUME",
    "is_core",
    "manifests_below",
    "problems_of_core",
]

OLDEST = "1.30"  # docs/kubernetes.md says so
GROUPS = ("", "apps", "autoscaling", "policy", "networking.k8s.io")
IN_POD = ("spec", "containers", 0)


@cache
def newest() -> str:
    """The newest release whose schemas we have."""
    return str(kubernetes_validate.latest_version())


def is_core(document: dict[str, Any]) -> bool:
    """Whether Kubernetes itself defines the kind."""
    group, _, _ = str(document.get("apiVersion", "")).rpartition("/")
    return group in GROUPS


def problems_of_core(document: dict[str, Any]) -> Iterator[str]:
    """What the schemas of the oldest and of the newest release say; each the first thing that is wrong."""
    for release in dict.fromkeys((OLDEST, newest())):
        try:
            kubernetes_validate.validate(document, release, strict=True)
        except kubernetes_validate.ValidationError as wrong:
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in wrong.path)
            yield f"{place}: {wrong.message} (Kubernetes {release})"
        except kubernetes_validate.SchemaNotFoundError as unknown:
            yield f": {unknown.message}"


def manifests_below(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every document of a YAML file that names a kind, other than kustomize's; with its file."""
    for path in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.yml"))):
        for document in documents_of(path):
            if not isinstance(document, dict) or not {"kind", "apiVersion"} <= document.keys():
                continue  # what other programs read
            if not document["apiVersion"].startswith("kustomize.config.k8s.io/"):
                yield path, document


def _container(value: object) -> Iterator[str]:
    pod = {"containers": [value]}
    yield from _inside("Pod", "spec", pod, ".spec.containers[0]")


def _volume(value: object) -> Iterator[str]:
    pod = {"containers": [{"name": "any"}], "volumes": [value]}
    yield from _inside("Pod", "spec", pod, ".spec.volumes[0]")


def _pod_template(value: object) -> Iterator[str]:
    yield from _inside("PodTemplate", "template", value, ".template")


def _service(value: object) -> Iterator[str]:
    if not isinstance(value, dict):
        yield ": not an object"
    else:
        yield from problems_of_core({"apiVersion": "v1", "kind": "Service"} | value)


def _inside(kind: str, field: str, value: object, prefix: str) -> Iterator[str]:
    """What the schema of a kind says of a part of it; places are as seen from that part."""
    for problem in problems_of_core({"apiVersion": "v1", "kind": kind, field: value}):
        yield problem.removeprefix(prefix)


CONTAINER = Own(_container)
VOLUME = Own(_volume)
POD_TEMPLATE = Own(_pod_template)
SERVICE = Own(_service)
