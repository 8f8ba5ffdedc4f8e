"""Where the files of models may lie in the folder that is served: a pure look at names.

A repository    <root>/<name>/<number>/model.onnx
                <root>/<name>/model.onnx             the only version of that model, number 1
One model       <root>/<number>/model.onnx
                <root>/model.onnx                    its only version, number 1; so KServe mounts it

What could be read in two ways is refused, and both are named.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infold.errors import ConfigError
from infold.runtime import CONFIG_FILE, MODEL_FILE, read_triton_config
from infold.tensors import MODEL_NAME

__all__ = ["Layout", "file_of", "is_one_model", "is_version", "name_of", "stray_model", "versions_in"]

UNNAMED = "model"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the file of a version lies.

    Attributes:
        is_flat: In the model's own folder: the version has none.
        is_alone: The folder that is served is the model's own.
    """

    is_flat: bool = False
    is_alone: bool = False

    def folder(self, path: Path) -> Path:
        """The model's own folder, with what speaks for all its versions.

        Args:
            path: Of the version's ONNX file.
        """
        return path.parent if self.is_flat else path.parent.parent

    def root(self, path: Path) -> Path:
        """The folder that is served, out of which no link may lead.

        Args:
            path: Of the version's ONNX file.
        """
        folder = self.folder(path)
        return folder if self.is_alone else folder.parent


def name_of(root: Path, asked: str = "") -> str:
    """What the model of a folder that holds just one is called.

    Args:
        root: The folder, whose name it has by default.
        asked: Its name, where its operator gave one.
    """
    own = os.path.basename(os.path.abspath(root))
    return asked or (own if MODEL_NAME.fullmatch(own) else UNNAMED)


def file_of(folder: Path) -> str:
    """What each version of a model calls its graph; the usual name where its `config.pbtxt` is broken."""
    try:
        triton = read_triton_config(folder / CONFIG_FILE)
    except ConfigError:
        return MODEL_FILE
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


def versions_in(folder: Path, file: str) -> list[int]:
    """Numbers of the folders in a model's that are versions, in rising order.

    Raises:
        OSError: It cannot be read.
    """
    return sorted(int(each.name) for each in folder.iterdir() if is_version(each, file))


def is_one_model(root: Path) -> bool:
    """The folder that is served is no repository but a model's own.

    Raises:
        OSError: It cannot be read.
    """
    file = file_of(root)
    return (root / file).is_file() or bool(versions_in(root, file))


def stray_model(root: Path) -> Path | None:
    """The graph of a model that lies in a folder which is a model's own, as in a repository; or None."""
    return next(_strays(root), None)


def _strays(root: Path) -> Iterator[Path]:
    for folder in sorted(root.iterdir()):
        if not MODEL_NAME.fullmatch(folder.name):
            continue
        with contextlib.suppress(OSError):  # it is no folder, or not ours to read
            file = file_of(folder)
            if numbers := versions_in(folder, file):
                yield folder / str(numbers[0]) / file
            elif (folder / file).is_file() and not is_version(folder, file):
                yield folder / file
