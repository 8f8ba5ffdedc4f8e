"""A model repository somewhere else, kept beside the replicas of this node.

One replica of a node pulls and the others wait for it. What has not changed is not pulled
again. A version is put together beside the place where it is looked for, and renamed to it,
so that nobody ever sees half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infold.cluster.remote import Remote, RemoteFile
from infold.errors import ConfigError
from infold.tensors import MODEL_NAME

__all__ = ["Pulled", "is_url"]

log = logging.getLogger(__name__)

STATE = ".pulled"
# What tells one state of a file from another: its name, size and whatever stamp the system gives.
Stamps = list[list[str | int]]


def is_url(repository: str) -> bool:
    """It names a repository that is to be pulled; a plain path is used as it is."""
    return "://" in repository or "::" in repository


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What lies there, in the parts that change each as one.

    Attributes:
        versions: Files of each version, by its number as the folder has it.
        beside: Files and folders beside the versions, by the first part of their names.
    """

    versions: Mapping[str, list[RemoteFile]]
    beside: Mapping[str, list[RemoteFile]]


class Pulled:
    """The copy of a repository on this node.

    Args:
        url: Of the repository, as fsspec takes it.
        cache_folder: Of this node; each URL has a folder of its own in it.
        marker: Name of a file without which a version is not finished, and not pulled; empty for none.

    Attributes:
        root: The copy, a model repository like any other.
    """

    def __init__(self, url: str, cache_folder: Path, marker: str = "") -> None:
        self._remote = Remote(url)
        self._marker = marker
        digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        self.root = cache_folder / "repositories" / digest

    def names(self) -> list[str]:
        """Models that lie there, in rising order.

        Raises:
            ConfigError: It cannot be listed; names the URL.
        """
        return sorted(name for name in self._remote.folders() if MODEL_NAME.fullmatch(name))

    def pull(self, model: str) -> None:
        """The copy of a model is as it lies there; other processes of this node wait meanwhile.

        Raises:
            ConfigError: It is not there, cannot be read, or changed while it was read; names the URL.
        """
        with self._alone(model):
            wanted = self._wanted(model)
            beside, target = self.root / STATE / f"{model}.new", self.root / model
            shutil.rmtree(beside, ignore_errors=True)  # of somebody who was killed
            target.mkdir(parents=True, exist_ok=True)
            try:
                for name, files in {**wanted.versions, **wanted.beside}.items():
                    self._refresh(model, name, files, beside / name)
                self._remove_others(model, {*wanted.versions, *wanted.beside})
            finally:
                shutil.rmtree(beside, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self, model: str) -> Iterator[None]:
        """No other process of this node pulls the model; a lock goes with whoever holds it."""
        try:
            (self.root / STATE).mkdir(parents=True, exist_ok=True)
            with (self.root / STATE / f"{model}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as failure:
            raise ConfigError(str(self.root), failure.strerror or str(failure)) from failure

    def _wanted(self, model: str) -> _Wanted:
        groups: dict[str, list[RemoteFile]] = {}
        for file in self._remote.files(model):
            groups.setdefault(file.name.partition("/")[0], []).append(file)
        versions = {name: files for name, files in groups.items() if _is_number(name)}
        for name, files in list(versions.items()):
            if self._marker and all(file.name != f"{name}/{self._marker}" for file in files):
                del versions[name]  # it is still being written
        beside = {name: files for name, files in groups.items() if not _is_number(name)}
        return _Wanted(versions, beside)

    def _refresh(self, model: str, name: str, files: list[RemoteFile], new: Path) -> None:
        """One version, or what lies beside the versions under one name, is as it lies there."""
        target, note = self.root / model / name, self.root / STATE / model / f"{name}.json"
        stamps: Stamps = [[file.name, file.size, file.stamp] for file in files]
        if target.exists() and _read(note) == stamps:
            return
        for file in files:
            path = new.parent / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._remote.fetch(model, file, path)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)  # from here on until it is written again nothing is known
        if target.is_dir() or (target.exists() and new.is_dir()):
            old = new.parent / f".old.{name}"
            target.rename(old)
        os.replace(new, target)
        note.write_text(json.dumps(stamps))
        log.info("pulled", extra={"url": self._remote.url, "model": model, "what": name})

    def _remove_others(self, model: str, kept: set[str]) -> None:
        """What lies there no more is here no more; a model that runs has what it needs in memory."""
        for path in (self.root / model).iterdir():
            if path.name not in kept:
                (self.root / STATE / model / f"{path.name}.json").unlink(missing_ok=True)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _read(note: Path) -> Any:
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None
