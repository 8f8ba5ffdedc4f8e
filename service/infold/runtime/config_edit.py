"""Sets keys of a `model.toml`; every other line stays as its owner wrote it.

The text is edited line by line, since no TOML library at hand keeps comments.
What comes out is parsed and compared with what was meant before anything is
written: a spelling that this cannot edit is refused, never damaged.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from infold.errors import ConfigError, TargetError
from infold.runtime.model_config import ModelConfig, parse_config, read_config

__all__ = ["Changes", "Value", "add_disabled_optimizers", "edited", "set_keys", "shown"]

Value = bool | int | float | str | tuple[str, ...]
# By section, then by key.
Changes = Mapping[str, Mapping[str, Value]]


def set_keys(path: Path, changes: Changes, base: ModelConfig | None = None) -> ModelConfig:
    """Set keys in a `model.toml`, which is made if it is missing, and read it back.

    Args:
        path: The file; it changes in one step.
        changes: What is to stand there.
        base: What the file overrides.

    Raises:
        ConfigError: What stands there, or would, makes no sense, or cannot be edited.
        TargetError: It cannot be written.
    """
    text = edited(path, changes, base)
    target = path.resolve()  # a link stays one
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        if target.exists():
            temporary.chmod(target.stat().st_mode)
        temporary.replace(target)
    except OSError as failure:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise TargetError(path, failure.strerror or str(failure)) from failure
    config = read_config(path, base)
    if config != parse_config(text, path, base):
        raise TargetError(path, "was changed by another process meanwhile")
    return config


def add_disabled_optimizers(path: Path, names: Sequence[str]) -> None:
    """Switch optimizers off in a `model.toml`, keeping everything else that stands there.

    Raises:
        ConfigError: What stands there makes no sense.
        TargetError: It cannot be written.
    """
    already = read_config(path).session.disabled_optimizers
    wanted = (*already, *(name for name in names if name not in already))
    set_keys(path, {"session": {"disabled_optimizers": wanted}})


def edited(path: Path, changes: Changes, base: ModelConfig | None = None) -> str:
    """The text of a `model.toml` with keys set; nothing is written.

    Raises:
        ConfigError: See `set_keys`.
    """
    before = _text(path)
    parse_config(before, path, base)
    newline = "\r\n" if "\r\n" in before else "\n"
    lines = before.replace("\r\n", "\n").rstrip("\n").split("\n") if before.strip() else []
    for section, values in changes.items():
        for key, value in values.items():
            lines = _with(lines, section, key, value)
    after = newline.join([*lines, ""])
    if not _says(after, before, changes):
        wanted = ", ".join(shown(changes))
        raise ConfigError(str(path), f"is spelled in a way that cannot be edited; set {wanted} by hand")
    parse_config(after, path, base)
    return after


def shown(changes: Changes) -> list[str]:
    """Each change as a line of its own would say it, section in front."""
    return [
        f"{section}.{key} = {_toml(value)}"
        for section, values in changes.items()
        for key, value in values.items()
    ]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # line ends as they are
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as broken:
        raise ConfigError(str(path), f"not valid TOML: {broken}") from broken
    except OSError as failure:
        raise ConfigError(str(path), failure.strerror or str(failure)) from failure


def _says(after: str, before: str, changes: Changes) -> bool:
    """The new text says what the old one did, but for the changes."""
    wanted = tomllib.loads(before)
    for section, values in changes.items():
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        wanted[section] = {**wanted.get(section, {}), **plain}
    try:
        return tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _with(lines: list[str], section: str, key: str, value: Value) -> list[str]:
    """The lines with one key set: in its place, else as the last of its section, else in a new one."""
    assignment = f"{key} = {_toml(value)}"
    start = next((n for n, text in enumerate(lines, 1) if _names(text, rf"\[\s*{_key(section)}\s*\]")), None)
    if start is None:
        return [*lines, *([""] if lines else []), f"[{section}]", assignment]
    rest = range(start, len(lines))
    end = next((n for n in rest if lines[n].lstrip().startswith("[")), len(lines))
    for n in range(start, end):
        if _names(lines[n], rf"{_key(key)}\s*=", whole=False):
            last, tail = _extent(lines, n)
            indent = lines[n][: len(lines[n]) - len(lines[n].lstrip())]
            return [*lines[:n], f"{indent}{assignment}{tail}", *lines[last:]]
    filled = (n for n in range(start, end) if lines[n].strip() and not lines[n].lstrip().startswith("#"))
    after = max(filled, default=start - 1) + 1
    return [*lines[:after], assignment, *lines[after:]]


def _extent(lines: Sequence[str], start: int) -> tuple[int, str]:
    """Where an assignment that begins on a line ends, and the comment behind it."""
    for end in range(start + 1, len(lines) + 1):
        text = "\n".join(lines[start:end])
        if (whole := _parsed(text)) is None:
            continue
        for mark in (n for n, letter in enumerate(text) if letter == "#"):
            if _parsed(text[:mark]) == whole:  # not one inside a string
                return end, text[len(text[:mark].rstrip()) :]
        return end, ""
    return start + 1, ""


def _parsed(text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _names(line: str, pattern: str, *, whole: bool = True) -> bool:
    return re.match(rf"\s*{pattern}" + (r"\s*(#.*)?$" if whole else ""), line) is not None


def _key(name: str) -> str:
    """A pattern for the ways to write a key."""
    return rf"(?:{name}|\"{name}\"|'{name}')"


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
