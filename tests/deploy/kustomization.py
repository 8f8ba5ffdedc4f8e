"""Composes our own kustomizations as kustomize does, and refuses every field it does not know.

kustomize is no Python package, so what CI validates is composed here: resources, components,
strategic merge patches, image tags, and maps of settings whose name ends in a hash of what they say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["FIELDS", "Document", "KustomizationError", "compose", "documents_of", "files_of"]

Document = dict[str, Any]

FIELDS = {"apiVersion", "kind", "resources", "components", "patches", "images", "configMapGenerator"}
PLACES = {"Kustomization": "kustomize.config.k8s.io/v1beta1", "Component": "kustomize.config.k8s.io/v1alpha1"}

# By what items of a list are told apart in a merge; lists that are not here are replaced as a whole.
MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}


class KustomizationError(Exception):
    """A kustomization that kustomize would refuse, or that this reader does not know."""


def documents_of(path: Path) -> list[Document]:
    """Every document of a YAML file that is not empty."""
    return deepcopy(_parsed(path.read_text()))


@cache
def _parsed(text: str) -> list[Document]:
    """Parsing is what takes the time here."""
    return [each for each in yaml.safe_load_all(text) if each]


def compose(folder: Path) -> list[Document]:
    """The objects that `kubectl apply -k folder` would apply.

    Args:
        folder: That holds `kustomization.yaml`.

    Raises:
        KustomizationError: A field is not known, or names what is not there.
    """
    objects: list[Document] = []
    _add(folder.resolve(), objects)
    _finish_names(objects)
    return objects


def files_of(folder: Path) -> set[Path]:
    """Every file that a composition reads."""
    folder = folder.resolve()
    kustomization = _read(folder)
    found = {folder / "kustomization.yaml"}
    for entry in kustomization.get("resources", []) + kustomization.get("components", []):
        path = (folder / entry).resolve()
        found |= files_of(path) if path.is_dir() else {path}
    return found | {folder / patch["path"] for patch in kustomization.get("patches", [])}


def _read(folder: Path) -> Document:
    path = folder / "kustomization.yaml"
    if not path.is_file():
        raise KustomizationError(f"{folder}: no kustomization.yaml")
    (kustomization,) = documents_of(path)
    if unknown := kustomization.keys() - FIELDS:
        raise KustomizationError(f"{path}: {', '.join(sorted(unknown))}: not known here")
    if PLACES.get(kustomization.get("kind", "")) != kustomization.get("apiVersion"):
        raise KustomizationError(f"{path}: apiVersion or kind")
    return kustomization


def _add(folder: Path, objects: list[Document]) -> None:
    """A kustomization's own objects are added to those before it, then all are changed as it says."""
    kustomization = _read(folder)
    # What a component changes is all that is there already; another kustomization changes its own alone.
    own = objects if kustomization["kind"] == "Component" else []
    for entry in kustomization.get("resources", []):
        path = (folder / entry).resolve()
        if path.is_dir():
            _add(path, own)
        elif path.is_file():
            own.extend(documents_of(path))
        else:
            raise KustomizationError(f"{folder}: resources: {entry} is not there")
    for generator in kustomization.get("configMapGenerator", []):
        _generate(folder, generator, own)
    for entry in kustomization.get("components", []):
        _add((folder / entry).resolve(), own)
    for patch in kustomization.get("patches", []):
        if patch.keys() != {"path"}:
            raise KustomizationError(f"{folder}: patches: only `path` is known here")
        for change in documents_of(folder / patch["path"]):
            _patch(folder, change, own)
    for image in kustomization.get("images", []):
        _name_image(folder, image, own)
    if own is not objects:
        objects.extend(own)


def _identity(document: Document) -> tuple[str, str, str]:
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def _patch(folder: Path, change: Document, objects: list[Document]) -> None:
    matching = [each for each in objects if _identity(each) == _identity(change)]
    if len(matching) != 1:
        raise KustomizationError(f"{folder}: patches: {_identity(change)} is there {len(matching)} times")
    merged = _merge(matching[0], change)
    matching[0].clear()
    matching[0].update(merged)


def _merge(old: Any, new: Any, name: str = "") -> Any:
    """Strategic merge: objects key by key, known lists item by item, all else as the patch says."""
    if isinstance(old, dict) and isinstance(new, dict):
        if directives := [key for key in new if key.startswith("$")]:
            raise KustomizationError(f"patches: {directives[0]} is not known here")
        removed = {key for key, value in new.items() if value is None}
        kept = {key: value for key, value in old.items() if key not in removed}
        changes = {key: _merge(old.get(key), new[key], key) for key in new.keys() - removed}
        return kept | changes
    if isinstance(old, list) and isinstance(new, list) and name in MERGE_KEYS:
        key = MERGE_KEYS[name]
        theirs = {item[key]: item for item in new}
        mine = [_merge(item, theirs.pop(item[key], {})) for item in old]
        return [deepcopy(item) for item in theirs.values()] + mine  # new items first, as kustomize has it
    return deepcopy(new)


def _generate(folder: Path, generator: Document, objects: list[Document]) -> None:
    if unknown := generator.keys() - {"name", "behavior", "literals"}:
        raise KustomizationError(f"{folder}: configMapGenerator: {unknown} is not known here")
    said = dict(literal.split("=", 1) for literal in generator["literals"])
    existing = [
        each
        for each in objects
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == generator["name"]
    ]
    behavior = generator.get("behavior", "create")
    if (behavior, len(existing)) == ("create", 0):
        objects.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": said}
        )
    elif (behavior, len(existing)) == ("merge", 1):
        existing[0]["data"].update(said)
    else:
        raise KustomizationError(
            f"{folder}: configMapGenerator: {behavior} {generator['name']}, there {len(existing)} times"
        )


def _name_image(folder: Path, image: Document, objects: list[Document]) -> None:
    if unknown := image.keys() - {"name", "newName", "newTag"}:
        raise KustomizationError(f"{folder}: images: {unknown} is not known here")
    for container in _containers(objects):
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def _containers(objects: list[Document]) -> Iterator[Document]:
    for each in objects:
        if each["kind"] == "Deployment":
            yield from each["spec"]["template"]["spec"]["containers"]


def _finish_names(objects: list[Document]) -> None:
    """Every map of settings is named after what it says, and so is every use of it."""
    names = {}
    for each in objects:
        if each["kind"] == "ConfigMap":
            name = each["metadata"]["name"]
            names[name] = each["metadata"]["name"] = f"{name}-{_digest(each['data'])}"
    for container in _containers(objects):
        for source in container.get("envFrom", []):
            if reference := source.get("configMapRef"):
                reference["name"] = names.get(reference["name"], reference["name"])


def _digest(data: dict[str, str]) -> str:
    """Ten characters, as kustomize has them; it means to take in the name as well, and does not."""
    said = {"data": data, "kind": "ConfigMap", "name": ""}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))
