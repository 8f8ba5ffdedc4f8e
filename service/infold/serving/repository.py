"""What is on disk: a pure listing of a model repository, which is never written here.

<root>/<name>/model.toml                optional, speaks for all versions
<root>/<name>/config.pbtxt              optional, Triton's own; model.toml overrides it key by key
<root>/<name>/<number>/model.onnx       a version; its number is a positive integer
<root>/<name>/<number>/model.toml       optional, overrides key by key
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from infold.errors import ConfigError, RepositoryError
from infold.runtime import (
    CONFIG_FILE,
    MODEL_FILE,
    ModelConfig,
    TritonConfig,
    parse_triton_json,
    read_config,
    read_triton_config,
)
from infold.tensors import MODEL_NAME

__all__ = ["Listing", "ModelRepository", "ModelVersion", "is_version"]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of one model, as it lies on disk; equal to another as long as nothing changes there.

    Attributes:
        name: Of the model.
        number: Of the version.
        path: Its ONNX file.
        config: What its owner says about serving it.
        stamp: Name, size, time and inode of each file that it consists of.
        triton: What its owner wrote for Triton, on which `config` stands; None if nothing.
    """

    name: str
    number: int
    path: Path
    config: ModelConfig
    stamp: tuple[tuple[str, int, int, int], ...] = ()
    triton: TritonConfig | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One model, as it lies on disk.

    Attributes:
        versions: All of them, in rising order.
        policy: Which of them are wanted, as `versions.wanted` takes it.
    """

    versions: tuple[ModelVersion, ...]
    policy: str | tuple[int, ...]


class ModelRepository:
    """A folder of models.

    Args:
        root: The folder.
        marker: Name of a file without which a version is not finished; empty where none is needed.
    """

    def __init__(self, root: Path, marker: str = "") -> None:
        self.root = root
        self._marker = marker

    def list(self) -> Mapping[str, tuple[ModelVersion, ...]]:
        """Every model with its versions, both in rising order.

        Names that start with a dot or hold anything but letters, digits, `.`, `_` and `-`
        are passed over; so are folders without a version.

        Raises:
            RepositoryError: The root is missing or no folder.
            ConfigError: A `model.toml` or `config.pbtxt` makes no sense, or asks for what is not served.
        """
        found = ((name, self.versions(name)) for name in self.names())
        return {name: versions for name, versions in found if versions}

    def names(self) -> tuple[str, ...]:
        """Every folder that may be a model, in rising order.

        Raises:
            RepositoryError: The root is missing or no folder, or cannot be read.
        """
        try:
            if not self.root.is_dir():
                raise RepositoryError(self.root, "there is no such model repository folder")
            found = [each for each in self.root.iterdir() if MODEL_NAME.fullmatch(each.name)]
            return tuple(sorted(each.name for each in found if each.is_dir()))
        except OSError as failure:
            raise RepositoryError(self.root, failure.strerror or str(failure)) from failure

    def identity(self) -> tuple[int, int] | None:
        """What tells one folder from another that takes its place; None of one that is not there."""
        try:
            about = self.root.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def policy(self, name: str) -> str | tuple[int, ...]:
        """Which versions of a model its owner wants served.

        Raises:
            ConfigError: As `list`.
        """
        return self._configured(name)[1].versions

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Every version of one model, in rising order.

        Args:
            name: Of its folder, which exists.

        Raises:
            ConfigError: As `list`.
        """
        return self.listing(name).versions

    def has_version(self, name: str) -> bool:
        """There is a version of a model, whatever is said about serving it."""
        try:
            file = _file(read_triton_config(self.root / name / CONFIG_FILE))
        except ConfigError:
            file = MODEL_FILE
        try:
            return any(self._is_finished(path, file) for path in (self.root / name).iterdir())
        except OSError:  # it is gone, or cannot be read
            return False

    def listing(self, name: str, override: str | None = None) -> Listing:
        """One model; without versions where it has none, or no folder.

        Args:
            name: Of the model.
            override: As JSON what a `config.pbtxt` may say; stands in the place of that, and of
                what `model.toml` says of versions, batching and the session.

        Raises:
            RepositoryError: Its folder cannot be read.
            ConfigError: As `list`.
        """
        folder = self.root / name
        try:
            if not MODEL_NAME.fullmatch(name) or not folder.is_dir():
                return Listing((), "latest")
            return self._listing(folder, override)
        except FileNotFoundError:  # it went while it was read
            return Listing((), "latest")
        except OSError as failure:
            raise RepositoryError(folder, failure.strerror or str(failure)) from failure

    def _listing(self, folder: Path, override: str | None) -> Listing:
        triton, shared = self._configured(folder.name, override)
        file = _file(triton)
        beside = _stamp(folder)
        numbers = sorted(int(p.name) for p in folder.iterdir() if self._is_finished(p, file))
        stamps = {number: _stamp(folder / str(number), is_deep=True) for number in numbers}
        versions = tuple(
            ModelVersion(
                folder.name,
                number,
                folder / str(number) / file,
                shared if override is not None else read_config(folder / str(number) / "model.toml", shared),
                (*beside, *stamp),
                triton,
            )
            for number, stamp in stamps.items()
            if stamp  # or it went meanwhile
        )
        return Listing(versions, shared.versions)

    def _is_finished(self, path: Path, file: str) -> bool:
        return is_version(path, file) and (not self._marker or (path / self._marker).is_file())

    def _configured(self, name: str, override: str | None = None) -> tuple[TritonConfig | None, ModelConfig]:
        """What a model's owner wrote for Triton, and what that and the `model.toml` come to."""
        folder = self.root / name
        if override is not None:
            triton: TritonConfig | None = parse_triton_json(override, f"{folder}: config")
        else:
            triton = read_triton_config(folder / CONFIG_FILE)
        if triton is None:
            return None, read_config(folder / "model.toml")
        if triton.name not in ("", name):
            raise ConfigError(f"{triton.place}: name", f"'{triton.name[:100]}' is not '{name}'")
        if override is None:
            return triton, read_config(folder / "model.toml", triton.base)
        own, said = read_config(folder / "model.toml"), triton.base
        return triton, replace(own, versions=said.versions, batching=said.batching, session=said.session)


def _stamp(folder: Path, *, is_deep: bool = False, above: str = "") -> tuple[tuple[str, int, int, int], ...]:
    """What tells that a file of a folder has changed, of each; nothing of a folder that is not there.

    Args:
        folder: The folder.
        is_deep: True looks into the folders in it, too: weights may lie there.
        above: Before each name.
    """
    stamps: list[tuple[str, int, int, int]] = []
    try:
        found = sorted(folder.iterdir())
    except FileNotFoundError:
        return ()
    for path in found:
        with contextlib.suppress(OSError):  # it is gone again
            if path.is_file():
                about = path.stat()
                stamps.append((above + path.name, about.st_size, about.st_mtime_ns, about.st_ino))
            elif is_deep and path.is_dir() and not path.is_symlink():  # which may lead in a circle
                stamps += _stamp(path, is_deep=True, above=f"{above}{path.name}/")
    return tuple(stamps)


def _file(triton: TritonConfig | None) -> str:
    """What each version of a model calls its graph."""
    return MODEL_FILE if triton is None else triton.filename


def is_version(path: Path, file: str = MODEL_FILE) -> bool:
    """A folder is a version of a model.

    Args:
        path: The folder.
        file: What its graph is called.
    """
    # '01' and '1' would be one number with two folders: only the plain spelling counts.
    name = path.name
    return name.isascii() and name.isdigit() and not name.startswith("0") and (path / file).is_file()
