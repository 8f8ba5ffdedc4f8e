"""What is tuned: a model found by its repository, its folder, a version's folder, or its file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from infold.errors import RepositoryError
from infold.runtime import CONFIG_FILE, MODEL_FILE, ModelConfig, read_triton_config
from infold.serving import ModelRepository, ModelVersion
from infold.serving.layouts import is_version
from infold.serving.versions import wanted

__all__ = ["Subject", "find"]

CONFIG = "model.toml"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model.

    Attributes:
        version: The one that the plan is for.
        others: Versions that are measured beside it, in rising order.
        folder: Of the model in its repository; None for a file that lies in none.
        is_one_version: That version alone was asked for, so its own `model.toml` speaks for it.
    """

    version: ModelVersion
    others: tuple[ModelVersion, ...] = ()
    folder: Path | None = None
    is_one_version: bool = False

    @property
    def versions(self) -> tuple[ModelVersion, ...]:
        """All of them, the one that the plan is for first."""
        return (self.version, *self.others)

    @property
    def config_path(self) -> Path | None:
        """The `model.toml` that speaks for it; None where there can be none."""
        if self.folder is None:
            return None
        return self.version.path.with_name(CONFIG) if self.is_one_version else self.folder / CONFIG


def find(path: Path) -> Subject:
    """The model that a path means.

    Raises:
        RepositoryError: There is none, or more than one.
        ConfigError: A `model.toml` or `config.pbtxt` of it makes no sense.
    """
    if path.is_file():
        folder = _named(path.parent)
        if is_version(folder, path.name) and path.name == _file(folder.parent):
            return _one_version(folder)
        return Subject(ModelVersion(path.stem, 1, path, ModelConfig()))
    if not path.is_dir():
        raise RepositoryError(path, "there is no such file or folder")
    folder = _named(path)
    if is_version(folder, _file(folder.parent)):
        return _one_version(folder)
    file = _file(folder)
    if (folder / file).is_file() or any(is_version(each, file) for each in folder.iterdir()):
        return _served(folder)
    found = list(ModelRepository(path).list())
    if not found:
        raise RepositoryError(path, "holds no models")
    if len(found) > 1:
        raise RepositoryError(path, f"holds {', '.join(found)}; name one, as {path / found[0]}")
    return _served(path / found[0])


def _one_version(folder: Path) -> Subject:
    model = folder.parent
    every = ModelRepository(model.parent).versions(model.name)
    number = int(folder.name)
    return _subject(every, number, model, is_one_version=True)


def _served(model: Path) -> Subject:
    """The plan is for the version that a request gets which names none."""
    repository = ModelRepository(model.parent)
    every = repository.versions(model.name)
    served = wanted([each.number for each in every], repository.policy(model.name))
    if not served:
        raise RepositoryError(model, "its model.toml wants no version that is here")
    return _subject(every, served[0], model, is_one_version=False)


def _subject(every: tuple[ModelVersion, ...], number: int, model: Path, *, is_one_version: bool) -> Subject:
    chosen = next(each for each in every if each.number == number)
    others = tuple(each for each in every if each.number != number)
    return Subject(chosen, others, model, is_one_version)


def _file(model: Path) -> str:
    """What each version of a model calls its graph."""
    triton = read_triton_config(model / CONFIG_FILE)
    return MODEL_FILE if triton is None else triton.filename


def _named(folder: Path) -> Path:
    """The folder by a path that names it and the one above."""
    has_names = all(each.name not in ("", "..") for each in (folder, folder.parent))
    return folder if has_names else Path(os.path.abspath(folder))
