"""What is on disk: a pure listing of a model repository, which is never written here.

<root>/<name>/model.toml                optional, speaks for all versions
<root>/<name>/config.pbtxt              optional, Triton's own; model.toml overrides it key by key
<root>/<name>/<number>/model.onnx       a version; its number is a positive integer
<root>/<name>/<number>/model.toml       optional, overrides key by key

A model may lie there in other ways, and be the only one: `serving/layouts.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from infold.serving.layouts import (
    Layout,
    file_of,
    is_one_model,
    is_version,
    name_of,
    stray_model,
    versions_in,
)
from infold.tensors import MODEL_NAME

__all__ = ["Listing", "ModelRepository", "ModelVersion"]


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
        layout: Where its files lie.
    """

    name: str
    number: int
    path: Path
    config: ModelConfig
    stamp: tuple[tuple[str, int, int, int], ...] = ()
    triton: TritonConfig | None = None
    layout: Layout = field(default_factory=Layout)

    @property
    def folder(self) -> Path:
        """The model's own, with what speaks for all versions."""
        return self.layout.folder(self.path)

    @property
    def root(self) -> Path:
        """The folder that is served, out of which no link may lead."""
        return self.layout.root(self.path)


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
    """A folder of models, or of one.

    Args:
        root: The folder.
        marker: Name of a file without which a version is not finished; empty where none is needed.
        model_name: What the model is called of a folder that holds just one; by default as the folder.
    """

    def __init__(self, root: Path, marker: str = "", model_name: str = "") -> None:
        self.root = root
        self._marker = marker
        self._is_named = bool(model_name)
        self._only_name = name_of(root, model_name)

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
            RepositoryError: The root is missing or no folder, cannot be read, or is both a repository
                and a model's own folder.
        """
        try:
            if not self.root.is_dir():
                raise RepositoryError(self.root, "there is no such model repository folder")
            if is_one_model(self.root):
                self._check_alone()
                return (self._only_name,)
            found = [each for each in self.root.iterdir() if MODEL_NAME.fullmatch(each.name)]
            return tuple(sorted(each.name for each in found if each.is_dir()))
        except OSError as failure:
            raise RepositoryError(self.root, failure.strerror or str(failure)) from failure

    def folder(self, name: str) -> Path:
        """Where a model of that name lies, or would.

        Raises:
            OSError: The root cannot be read.
        """
        return self.root if self._is_alone(name) else self.root / name

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
            folder = self.folder(name)
            file = file_of(folder)
            found = [folder / str(number) for number in versions_in(folder, file)]
            if (folder / file).is_file():
                found.append(folder)
            return any(map(self._is_finished, found))
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
            is_alone = self._is_alone(name)
            folder = self.root if is_alone else folder
            if not MODEL_NAME.fullmatch(name) or not folder.is_dir():
                return Listing((), "latest")
            return self._listing(name, folder, override, is_alone=is_alone)
        except FileNotFoundError:  # it went while it was read
            return Listing((), "latest")
        except OSError as failure:
            raise RepositoryError(folder, failure.strerror or str(failure)) from failure

    def _is_alone(self, name: str) -> bool:
        return name == self._only_name and self.root.is_dir() and is_one_model(self.root)

    def _check_alone(self) -> None:
        if (stray := stray_model(self.root)) is not None:
            raise RepositoryError(
                self.root,
                f"holds a version of one model itself, and {stray.relative_to(self.root)} as a repository "
                "of models would; only one of the two may lie here",
            )

    def _listing(self, name: str, folder: Path, override: str | None, *, is_alone: bool) -> Listing:
        triton, shared = self._configured(name, override)
        file = _file(triton)
        numbers = versions_in(folder, file)
        is_flat = (folder / file).is_file() and (is_alone or not is_version(folder, file))
        if is_flat and numbers:
            detail = f"holds {file} as its only version, and {numbers[0]}/{file} as one of several"
            raise RepositoryError(folder, f"{detail}; move {file} into a folder with a number, or away")
        layout = Layout(is_flat, is_alone)
        if is_flat:
            found = {1: folder}
        else:
            found = {number: folder / str(number) for number in numbers}
        found = {number: path for number, path in found.items() if self._is_finished(path)}
        beside = () if is_flat else _stamp(folder)
        stamps = {number: _stamp(path, is_deep=True) for number, path in found.items()}
        versions = tuple(
            ModelVersion(
                name,
                number,
                found[number] / file,
                shared
                if override is not None or is_flat
                else read_config(found[number] / "model.toml", shared),
                (*beside, *stamp),
                triton,
                layout,
            )
            for number, stamp in stamps.items()
            if stamp  # or it went meanwhile
        )
        return Listing(versions, shared.versions)

    def _is_finished(self, version: Path) -> bool:
        return not self._marker or (version / self._marker).is_file()

    def _configured(self, name: str, override: str | None = None) -> tuple[TritonConfig | None, ModelConfig]:
        """What a model's owner wrote for Triton, and what that and the `model.toml` come to."""
        is_alone = self._is_alone(name)
        folder = self.root if is_alone else self.root / name
        if override is not None:
            triton: TritonConfig | None = parse_triton_json(override, f"{folder}: config")
        else:
            triton = read_triton_config(folder / CONFIG_FILE)
        if triton is None:
            return None, read_config(folder / "model.toml")
        if triton.name not in ("", name) and not (is_alone and self._is_named):
            remedy = "; --model-name says what it is called" if is_alone else ""
            raise ConfigError(f"{triton.place}: name", f"'{triton.name[:100]}' is not '{name}'{remedy}")
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
