"""API keys as a TOML file has them: read and checked whole, or refused with the place. Pure.

The file has no secrets: of a key it holds the SHA-256 alone. That needs neither salt nor
many rounds, since a key is 256 random bits and no password.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from infold.errors import ConfigError
from infold.rest.access.scopes import GRANTED, KeyScope

__all__ = ["SANE_NAME", "Key", "digest_of", "entry_text", "key_from", "new_secret", "parse_keys"]

# A word in front, so that scanners for leaked secrets can tell what they have found.
PREFIX = "infold_"
RANDOM_BYTES = 32
SANE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")
KNOWN = ("name", "sha256", "scopes", "requests_per_s", "burst", "expires")
MOST_PER_S = 1e6


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; its secret is not.

    Attributes:
        digest: SHA-256 of the secret.
        scopes: What it is good for, in the order of the table.
        requests_per_s: How often it may be used; None is as often as you like.
        burst: How many of these at once.
        expires: The day from whose beginning, in UTC, it is good for nothing.
    """

    name: str
    digest: bytes = field(repr=False)
    scopes: tuple[KeyScope, ...]
    requests_per_s: float | None = None
    burst: int | None = None
    expires: date | None = None

    @property
    def ends_at(self) -> float:
        """When it expires, in Unix time."""
        if self.expires is None:
            return math.inf
        return datetime.combine(self.expires, datetime.min.time(), UTC).timestamp()


def new_secret() -> str:
    """A key that nobody has."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(secret: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(secret).digest()


def parse_keys(content: bytes, place: str) -> tuple[Key, ...]:
    """The keys of a file.

    Args:
        content: Of the file.
        place: What it is called in errors.

    Raises:
        ConfigError: It is no such file; names the place in it, and nothing that may be secret.
    """
    try:
        found = tomllib.loads(content.decode())
    except UnicodeDecodeError as broken:
        raise ConfigError(place, "is no UTF-8") from broken
    except tomllib.TOMLDecodeError as broken:
        raise ConfigError(place, f"is no TOML: {broken}") from None
    for name in found:
        if name != "key":
            raise ConfigError(place, f"{name}: unknown; known is [[key]]")
    entries = found.get("key")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(place, "holds no [[key]]")
    reader = _Reader(place)
    keys = tuple(reader.key(index, entry) for index, entry in enumerate(entries))
    _refuse_twins(keys, place)
    return keys


def key_from(entry: Mapping[str, Any]) -> Key:
    """A key from one entry.

    Raises:
        ConfigError: It makes no sense; the place in it is that of a file's first key.
    """
    return _Reader("key").key(0, entry)


def _refuse_twins(keys: tuple[Key, ...], place: str) -> None:
    names: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for index, key in enumerate(keys):
        if (first := names.setdefault(key.name, index)) != index:
            raise ConfigError(place, f"key[{index}].name: '{key.name}' is key[{first}] already")
        if (first := digests.setdefault(key.digest, index)) != index:
            raise ConfigError(place, f"key[{index}].sha256: is the same as that of key[{first}]")


class _Reader:
    """Reads entries of one file."""

    def __init__(self, place: str) -> None:
        self._place = place

    def key(self, index: int, entry: Any) -> Key:
        """One entry."""
        where = f"key[{index}]"
        if not isinstance(entry, Mapping):
            raise self._wrong(where, "must be a table, [[key]]")
        for name in entry:
            if name not in KNOWN:
                raise self._wrong(f"{where}.{name}", f"unknown; known are {', '.join(KNOWN)}")
        for name in KNOWN[:3]:
            if name not in entry:
                raise self._wrong(f"{where}.{name}", "is missing")
        per_s = self._rate(f"{where}.requests_per_s", entry.get("requests_per_s"))
        return Key(
            self._name(f"{where}.name", entry["name"]),
            self._digest(f"{where}.sha256", entry["sha256"]),
            self._scopes(f"{where}.scopes", entry["scopes"]),
            per_s,
            self._burst(f"{where}.burst", entry.get("burst"), per_s),
            self._day(f"{where}.expires", entry.get("expires")),
        )

    def _name(self, where: str, value: Any) -> str:
        if not isinstance(value, str) or not SANE_NAME.fullmatch(value):
            raise self._wrong(where, "must be 1 to 64 letters, digits, '.', '_', '@' or '-'")
        return value

    def _digest(self, where: str, value: Any) -> bytes:
        if not isinstance(value, str) or not DIGEST.fullmatch(value):  # never shown: it may be a key
            raise self._wrong(where, "must be 64 hexadecimal digits, the SHA-256 of the key")
        return bytes.fromhex(value)

    def _scopes(self, where: str, value: Any) -> tuple[KeyScope, ...]:
        known = ", ".join(GRANTED)
        if not isinstance(value, list) or not value:
            raise self._wrong(where, f"must be a list of {known}")
        for index, each in enumerate(value):
            if each not in GRANTED:
                raise self._wrong(f"{where}[{index}]", f"{_shown(each)} is none of {known}")
        return tuple(scope for scope in GRANTED if scope in value)

    def _rate(self, where: str, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_PER_S:
            raise self._wrong(where, f"must be a number above 0 and at most {MOST_PER_S:g}")
        return float(value)

    def _burst(self, where: str, value: Any, per_s: float | None) -> int | None:
        if value is None:
            return None
        if per_s is None:
            raise self._wrong(where, "goes with requests_per_s")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_PER_S:
            raise self._wrong(where, f"must be a whole number from 1 to {MOST_PER_S:g}")
        return value

    def _day(self, where: str, value: Any) -> date | None:
        if isinstance(value, str):
            try:
                value = date.fromisoformat(value)
            except ValueError:
                value = ...
        if value is None or type(value) is date:  # a date with a time of day is a date, too
            return value
        raise self._wrong(where, "must be a day, as 2027-01-31")

    def _wrong(self, where: str, detail: str) -> ConfigError:
        return ConfigError(self._place, f"{where}: {detail}")


def _shown(value: Any) -> str:
    return f"'{value[:20]}'" if isinstance(value, str) else "what stands there"


def entry_text(key: Key) -> str:
    """A key as an entry of a file."""
    lines = [
        "[[key]]",
        f'name = "{key.name}"',
        f'sha256 = "{key.digest.hex()}"',
        f"scopes = {json.dumps(key.scopes)}",
    ]
    if key.requests_per_s is not None:
        lines.append(f"requests_per_s = {key.requests_per_s!r}")
    if key.burst is not None:
        lines.append(f"burst = {key.burst}")
    if key.expires is not None:
        lines.append(f"expires = {key.expires.isoformat()}")
    return "\n".join(lines) + "\n"
