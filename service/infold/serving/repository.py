"""What is on disk: a pure listing of a model repository, which is never written here.

<root>/<name>/model.toml                optional, speaks for all versions
<root>/<name>/<number>/model.onnx       a version; its number is a positive integer
<root>/<name>/<number>/model.toml       optional, overrides key by key
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infold.errors import RepositoryError
from infold.runtime import ModelConfig, read_config
from infold.tensors import MODEL_NAME

__all__ = ["Listing", "ModelRepository", "ModelVersion", "is_version"]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of one model, as it lies on disk; equal to another as long as nothing changes there.

    Attributes:
        stamp: Name, size, time and inode of each file that it consists of.
    """

    name: str
    number: int
    path: Path
    config: ModelConfig
    stamp: tuple[tuple[str, int, int, int], ...] = ()


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
    """A folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> Mapping[str, tuple[ModelVersion, ...]]:
        """Every model with its versions, both in rising order.

        Names that start with a dot or hold anything but letters, digits, `.`, `_` and `-`
        are passed over; so are folders without a version.

        Raises:
            RepositoryError: The root is missing or no folder.
            ConfigError: A `model.toml` makes no sense.
        """
        found = ((name, self.versions(name)) for name in self.names())
        return {name: versions for name, versions in found if versions}

    def names(self) -> tuple[str, ...]:
        """Every folder that may be a model, in rising order.

        Raises:
            RepositoryError: The root is missing or no folder.
        """
        if not self.root.is_dir():
            raise RepositoryError(self.root, "there is no such model repository folder")
        return tuple(
            sorted(
                each.name for each in self.root.iterdir() if MODEL_NAME.fullmatch(each.name) and each.is_dir()
            )
        )

    def policy(self, name: str) -> str | tuple[int, ...]:
        """Which versions of a model its `model.toml` wants served."""
        return read_config(self.root / name / "model.toml").versions

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Every version of one model, in rising order.

        Args:
            name: Of its folder, which exists.

        Raises:
            ConfigError: A `model.toml` of it makes no sense.
        """
        return self.listing(name).versions

    def has_version(self, name: str) -> bool:
        """There is a version of a model, whatever its `model.toml` says."""
        return any(is_version(path) for path in (self.root / name).iterdir())

    def listing(self, name: str, override: str | None = None) -> Listing:
        """One model; without versions where it has none, or no folder.

        Args:
            name: Of the model.
            override: Replaces the configuration beside it, as Triton's JSON.

        Raises:
            ConfigError: A `model.toml` of it makes no sense.
        """
        del override
        folder = self.root / name
        if not MODEL_NAME.fullmatch(name) or not folder.is_dir():
            return Listing((), "latest")
        shared = read_config(folder / "model.toml")
        beside = _stamp(folder)
        numbers = sorted(int(p.name) for p in folder.iterdir() if is_version(p))
        versions = tuple(
            ModelVersion(
                folder.name,
                number,
                folder / str(number) / "model.onnx",
                read_config(folder / str(number) / "model.toml", shared),
                (*beside, *_stamp(folder / str(number))),
            )
            for number in numbers
        )
        return Listing(versions, shared.versions)


def _stamp(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What tells that a file of a folder has changed, of each."""
    stamps = []
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(OSError):  # it is gone again
            if path.is_file():
                about = path.stat()
                stamps.append((path.name, about.st_size, about.st_mtime_ns, about.st_ino))
    return tuple(stamps)


def is_version(path: Path) -> bool:
    """A folder is a version of a model."""
    # '01' and '1' would be one number with two folders: only the plain spelling counts.
    name = path.name
    return name.isascii() and name.isdigit() and not name.startswith("0") and (path / "model.onnx").is_file()
