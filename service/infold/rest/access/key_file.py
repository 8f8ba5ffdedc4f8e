"""A key is added to a file of keys: in one step, with everything that stands there kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from infold.errors import ConfigError, TargetError
from infold.rest.access.keys import Key, entry_text, parse_keys
from infold.rest.access.small_file import read_small

__all__ = ["add_key"]

OWNER_ONLY = 0o600


def add_key(path: Path, key: Key) -> None:
    """The file has this key, too; it is made if it is not there, for its owner alone.

    A file that is there keeps its comments, its mode and, where that is allowed, its owner.

    Args:
        path: Of the file; a link stays one.
        key: With a name that no other key has.

    Raises:
        ConfigError: What stands in the file makes no sense, or has a key of that name.
        TargetError: It cannot be written.
    """
    target = path.resolve()
    try:
        with _alone_in(target.parent):
            before = read_small(target) if target.exists() else b""
            if before.strip():
                _refuse_taken(path, before, key)
            gap = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
            content = before + gap + entry_text(key).encode()
            parse_keys(content, str(path))
            _replace(target, content)
    except OSError as failure:
        raise TargetError(path, failure.strerror or str(failure)) from failure


def _refuse_taken(path: Path, content: bytes, key: Key) -> None:
    for index, other in enumerate(_keys_in(path, content)):
        if other.name == key.name:
            detail = f"key[{index}].name: there is a key '{key.name}' already; give the new one another name"
            raise ConfigError(str(path), detail)


def _keys_in(path: Path, content: bytes) -> tuple[Key, ...]:
    """The keys of a file that may be nothing but comments yet."""
    lines = (line.strip() for line in content.splitlines())
    if all(not line or line.startswith(b"#") for line in lines):
        return ()
    return parse_keys(content, str(path))


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other process adds a key here meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(target: Path, content: bytes) -> None:
    """The file has this content, all of it or none, whatever happens meanwhile."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if target.exists():
                found = target.stat()
                os.fchmod(file.fileno(), found.st_mode & 0o777)
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), found.st_uid, found.st_gid)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
