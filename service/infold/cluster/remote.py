"""A model repository as fsspec sees it; the one module that speaks fsspec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infold.errors import ConfigError

__all__ = ["Remote", "RemoteFile"]

# What file systems call the thing that changes with a file; the first that one gives is taken.
STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "md5",
    "checksum",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that lies there.

    Attributes:
        name: Below the model's folder, with `/` between its parts.
        size: In bytes.
        stamp: Whatever changes when the file does; empty where the file system gives nothing.
        place: Its whole path, as the file system wants it.
    """

    name: str
    size: int
    stamp: str
    place: str


class Remote:
    """A repository at a URL.

    Args:
        url: As fsspec takes it.

    Raises:
        ConfigError: fsspec is not installed, or has no file system for it; names the URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            import fsspec
        except ImportError:
            raise ConfigError(
                "repository", f"'{url}' takes fsspec: pip install 'infold[ray]', or give a path"
            ) from None
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except Exception as failure:  # each backend has its own errors, and says what to install
            raise ConfigError(f"repository {url}", _said(failure)) from failure
        self._root = str(root).rstrip("/")

    def folders(self) -> list[str]:
        """Names of all folders right in it.

        Raises:
            ConfigError: It cannot be listed.
        """
        try:
            self._files.invalidate_cache()
            found = self._files.ls(self._root, detail=True)
        except Exception as failure:
            raise ConfigError(f"repository {self.url}", _said(failure)) from failure
        return [PurePosixPath(each["name"]).name for each in found if each["type"] == "directory"]

    def files(self, model: str) -> list[RemoteFile]:
        """Every file of a model, in the order of their names.

        Raises:
            ConfigError: There is none, or the folder cannot be listed.
        """
        folder, place = f"{self._root}/{model}", f"repository {self.url}/{model}"
        try:
            self._files.invalidate_cache()
            found = self._files.find(folder, detail=True)
        except Exception as failure:
            raise ConfigError(place, _said(failure)) from failure
        if not found:
            raise ConfigError(place, "there is no such model")
        files = []
        for path, about in sorted(found.items()):
            name = str(path)[len(folder) :].lstrip("/")
            if not name or any(part in ("", ".", "..") for part in name.split("/")):
                raise ConfigError(place, f"'{path}' is no name of a file in it")
            files.append(RemoteFile(name, int(about.get("size") or 0), _stamp(about), str(path)))
        return files

    def fetch(self, model: str, file: RemoteFile, target: Path) -> None:
        """The file lies at the target, whole.

        Raises:
            ConfigError: It cannot be read, or is of another size by now.
        """
        place = f"repository {self.url}/{model}/{file.name}"
        try:
            self._files.get_file(file.place, str(target))
        except Exception as failure:
            raise ConfigError(place, _said(failure)) from failure
        if target.stat().st_size != file.size:
            raise ConfigError(place, "changed while it was pulled")


def _stamp(about: dict[str, Any]) -> str:
    return next((str(about[key]) for key in STAMPS if about.get(key) is not None), "")


def _said(failure: Exception) -> str:
    """One line of what a file system says, which has a habit of saying nothing."""
    text = str(failure).strip().splitlines()[:1]
    return f"{type(failure).__name__}: {text[0][:300]}" if text else type(failure).__name__
