"""The keys that hold now: those of the file, which may be replaced while the service runs."""

from __future__ import annotations

import hmac
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infold.errors import ConfigError, KeyRefusedError, QuotaExceededError
from infold.rest.access.bucket import Bucket
from infold.rest.access.keys import Key, digest_of, parse_keys
from infold.rest.access.small_file import read_small
from infold.rest.access.watched import Watched

__all__ = ["Held", "Keyring"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """A key and what is left of its quota in this process."""

    key: Key
    bucket: Bucket | None


class Keyring:
    """Finds the key that a caller presents.

    Args:
        path: The file.
        workers: Processes of the service; each gives out its part of a quota.
        clock: For quotas, and for when to look at the file.
        today: For the day on which a key expires.

    Raises:
        ConfigError: The file is not to be had, or makes no sense.
    """

    def __init__(
        self,
        path: Path,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._workers = workers
        self._clock = clock
        self._today = today
        self._watched = Watched([path], clock, today)
        self._watched.may_have_changed()  # before it is read, so that no change is missed
        self._content = read_small(path)
        self._held = self._hold(parse_keys(self._content, str(path)), ())
        self._problem: str | None = None

    def find(self, secret: bytes) -> Held:
        """The key that has this secret, and is good today.

        Raises:
            KeyRefusedError: None has, or it has expired.
        """
        if self._watched.may_have_changed():
            self._read_again()
        digest = digest_of(secret)
        found = None
        for held in self._held:  # all of them, whichever it is: the time tells nothing
            if hmac.compare_digest(held.key.digest, digest):
                found = held
        if found is None:
            raise KeyRefusedError("the key is not known")
        if found.key.expires is not None and self._today() >= found.key.ends_at:
            raise KeyRefusedError(f"key '{found.key.name}' has expired")
        return found

    def spend(self, held: Held) -> None:
        """Take one request from a key's quota.

        Raises:
            QuotaExceededError: Nothing is left of it for now.
        """
        if held.bucket is None:
            return
        wait_s = held.bucket.take(self._clock())
        if wait_s:
            raise QuotaExceededError(held.key.name, held.key.requests_per_s or 0.0, wait_s)

    def _read_again(self) -> None:
        """Take what stands in the file now; what cannot be read changes nothing."""
        try:
            content = read_small(self._path)
            if content != self._content:
                self._held = self._hold(parse_keys(content, str(self._path)), self._held)
                self._content = content
                log.info("keys replaced", extra={"keys": len(self._held)})
            elif self._problem is not None:
                log.info("keys are as they were", extra={"keys": len(self._held)})
            self._problem = None
        except ConfigError as failure:
            if str(failure) != self._problem:  # told once, not once a second
                log.error("keys not replaced, the old ones hold", extra={"reason": str(failure)})
            self._problem = str(failure)

    def _hold(self, keys: tuple[Key, ...], before: tuple[Held, ...]) -> tuple[Held, ...]:
        """Keys with their quotas; who has used one up does not get it back by a change of another key."""
        kept = {_quota(held.key): held for held in before}
        return tuple(
            Held(key, kept[_quota(key)].bucket if _quota(key) in kept else self._bucket(key)) for key in keys
        )

    def _bucket(self, key: Key) -> Bucket | None:
        if key.requests_per_s is None:
            return None
        burst = key.burst or max(1, math.ceil(key.requests_per_s))
        return Bucket(key.requests_per_s / self._workers, max(1.0, burst / self._workers))


def _quota(key: Key) -> tuple[bytes, float | None, int | None]:
    return key.digest, key.requests_per_s, key.burst
