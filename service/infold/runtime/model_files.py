"""Whether the files of a model lie where a model's files may, before onnxruntime opens them.

A model comes from a stranger and names files. Links are followed, because stores and mounts of
Kubernetes are made of them, but only as far as they stay where the operator has put models.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from infold.errors import SessionError

__all__ = ["check_files", "check_place", "open_plain"]

MOST_BYTES = 2**31
# By which onnxruntime means an address in its own memory instead of a file.
MEMORY = "_ORT_MEM_ADDR_"
SHOWN_CHARACTERS = 100


def check_files(model: Path, weights: Iterable[str] = (), root: Path | None = None) -> None:
    """Pass if a model and its weights are plain files that lie where they may.

    Args:
        model: `<repository>/<name>/<version>/<file>`.
        weights: Names of files, as the model has them.
        root: The repository, where the model lies in another way than that.

    Raises:
        SessionError: One is not, or leads out; names it.
    """
    if problem := check_place(model, model, root) or _too_large(model):
        raise SessionError(str(model), problem)
    for name in weights:
        if problem := _problem(model, name, root):
            raise SessionError(str(model), f"weights in '{_shown(name)}': {problem}")


def check_place(path: Path, model: Path, root: Path | None = None) -> str | None:
    """What keeps a file from being one of a model, or None.

    It may lie in the repository, or in the folder that is the version's once links are followed.

    Args:
        path: The file.
        model: See `check_files`.
        root: See there.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        if not stat.S_ISREG(real.stat().st_mode):
            return "is no plain file"
    except (OSError, ValueError) as failure:
        return getattr(failure, "strerror", None) or str(failure)
    version = model.absolute().parent
    homes = (root or version.parent.parent, version)
    if not any(real.is_relative_to(os.path.realpath(each)) for each in homes):
        return "is a link that leads out of the repository"
    return None


def _too_large(model: Path) -> str | None:
    """Protobuf has lengths of 31 bits: nothing else is worth reading, however much of it is a hole."""
    try:
        size = model.stat().st_size
    except OSError as failure:  # it is gone since it was there
        return failure.strerror
    return None if size < MOST_BYTES else f"has {size} bytes; a graph has less than {MOST_BYTES}"


def _problem(model: Path, name: str, root: Path | None) -> str | None:
    parts = name.replace("\\", "/").split("/")
    if MEMORY in name or not name.strip("/\\."):
        return "is no file"
    if os.path.isabs(name) or parts[0] == "" or parts[0].endswith(":"):
        return "an absolute path; it must be one below the model's folder"
    if ".." in parts:
        return "leads out of the model's folder"
    return check_place(model.parent / name, model, root)


def open_plain(path: Path) -> int:
    """A descriptor of a plain file, to be read; opening never waits, whatever lies there.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("is no plain file")
    return descriptor


def _shown(name: str) -> str:
    text = name.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
