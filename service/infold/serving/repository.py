"""What is on disk: a pure listing of a model repository, which is never written here.

<root>/<name>/model.toml                optional, speaks for all versions
<root>/<name>/<number>/model.onnx       a version; its number is a positive integer
<root>/<name>/<number>/model.toml       optional, overrides key by key
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infold.errors import RepositoryError
from infold.runtime import ModelConfig, read_config
from infold.tensors import MODEL_NAME

__all__ = ["ModelRepository", "ModelVersion", "is_version"]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of one model, as it lies on disk."""

    name: str
    number: int
    path: Path
    config: ModelConfig


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
        if not self.root.is_dir():
            raise RepositoryError(self.root, "there is no such model repository folder")
        found = {}
        for folder in sorted(self.root.iterdir()):
            if not MODEL_NAME.fullmatch(folder.name) or not folder.is_dir():
                continue
            if versions := self.versions(folder.name):
                found[folder.name] = versions
        return found

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
        folder = self.root / name
        shared = read_config(folder / "model.toml")
        numbers = sorted(int(p.name) for p in folder.iterdir() if is_version(p))
        return tuple(
            ModelVersion(
                folder.name,
                number,
                folder / str(number) / "model.onnx",
                read_config(folder / str(number) / "model.toml", shared),
            )
            for number in numbers
        )


def is_version(path: Path) -> bool:
    """A folder is a version of a model."""
    # '01' and '1' would be one number with two folders: only the plain spelling counts.
    name = path.name
    return name.isascii() and name.isdigit() and not name.startswith("0") and (path / "model.onnx").is_file()
