"""The first load of a version happens in a child process: what goes wrong there is its end, not the server's.

A file may make onnxruntime crash, loop or take all memory. So everything that is done with a version
before it answers is done once beforehand in a process that is thrown away. A version that has passed
is remembered in the cache, and the next start needs no trial.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from infold.errors import InfoldError, RuntimeCrashError, SessionError
from infold.runtime import Cache, RunOptions
from infold.runtime.confinement import tells_of_no_memory
from infold.runtime.throwaway import Ending, Throwaway
from infold.serving.preparing import Findings, known, mark_of, remember
from infold.serving.repository import ModelVersion
from infold.serving.telling import LONGEST_TEXT, Said, met, note_of, too_much

__all__ = ["ENTRY", "Order", "Trial"]

log = logging.getLogger(__name__)

ENTRY = "from infold.serving.tried import main; main()"


@dataclass(frozen=True, slots=True)
class Order:
    """What a child is to try.

    Attributes:
        version: What is on disk.
        narrow: How its session runs that is not the wide one.
        cores: That runs may take in all.
        folder: Of the cache.
        label: Of what the child has not finished there.
        memory_bytes: As `Trial`.
    """

    version: ModelVersion
    narrow: RunOptions
    cores: int
    folder: Path | None
    label: str
    memory_bytes: int


class Trial:
    """Tries versions, one at a time, each in a child process of its own; a `preparing.Prepare`.

    Args:
        timeout_s: A child is given.
        memory_bytes: It may take; 0 leaves it to the size of the model.
    """

    def __init__(self, timeout_s: float = 600.0, memory_bytes: int = 0) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._under_way: tuple[Throwaway, Cache, str] | None = None
        self._is_closed = False

    def __call__(self, version: ModelVersion, narrow: RunOptions, cores: int, cache: Cache) -> Findings:
        """What was found of a version that has passed, now or earlier.

        Raises:
            RuntimeCrashError: The child died, took too long or too much memory.
            SessionError, DeviceError, ConfigError, GoldenError: It met one.
        """
        if (found := known(version, narrow, cores, cache)) is not None:
            return found
        asked_at = time.time()
        # Processes that start together try it one after another; the others find what the first found.
        place = f"trial-{hashlib.sha256(os.fsencode(version.path.absolute())).hexdigest()}"
        with cache.alone(place, lambda: self._is_closed):
            if (found := known(version, narrow, cores, cache)) is not None:
                return found
            subject = [cache.key(version.path, narrow), mark_of(version, cache)]
            if failed := met(cache.noted(place), subject, asked_at, str(version.path)):
                raise failed
            try:
                found = self._passed(version, narrow, cores, cache, *subject)
            except InfoldError as failure:
                if not self._is_closed:
                    cache.note(place, note_of(failure, subject))
                raise
        return found

    def close(self) -> None:
        """End what is being tried, and try nothing more; no process is left then, nor half an entry."""
        with self._lock:
            self._is_closed = True
            under_way = self._under_way
        if under_way is not None:
            child, cache, label = under_way
            child.end()
            cache.tidy_after(label)

    def _passed(
        self, version: ModelVersion, narrow: RunOptions, cores: int, cache: Cache, key: str, mark: str
    ) -> Findings:
        began = time.monotonic()
        found = self._tried(version, narrow, cores, cache)
        if found.key != key:
            raise SessionError(str(version.path), "has changed while it was tried")
        remember(found, mark, cache)
        seconds = round(time.monotonic() - began, 3)
        about = {"model": version.name, "version": version.number, "seconds": seconds}
        log.info("version tried", extra=about)
        return found

    def _tried(self, version: ModelVersion, narrow: RunOptions, cores: int, cache: Cache) -> Findings:
        label = secrets.token_hex(8)
        order = Order(version, narrow, cores, cache.folder, label, self._memory_bytes)
        said = Said(version)
        model = str(version.path)
        try:
            with self._lock:
                if self._is_closed:
                    raise RuntimeCrashError(model, "the trial of it was called off")
                try:
                    child = Throwaway(ENTRY)
                except OSError as failure:
                    raise RuntimeCrashError(model, f"the trial of it does not start: {failure}") from failure
                self._under_way = child, cache, label
            ending = child.work(pickle.dumps(order), self._timeout_s, said.hear)
        finally:
            with self._lock:
                self._under_way = None
            cache.tidy_after(label)
        if said.failure is not None:
            raise said.failure
        if said.found is None or ending is not None:
            raise RuntimeCrashError(model, self._cause(ending, said.bound_bytes))
        return said.found

    def _cause(self, ending: Ending | None, bound_bytes: int | None) -> str:
        if self._is_closed:
            return "the trial of it was called off"
        if ending is None:
            return "the trial of it answered what makes no sense"
        if ending.is_late:
            return f"the trial of it took longer than {self._timeout_s:g} s"
        if bound_bytes is not None and tells_of_no_memory(ending.said):
            return too_much(bound_bytes)
        last = ending.said.splitlines()[-1:] or [""]
        return f"the trial of it was {ending.cause}; {last[0][:LONGEST_TEXT]}".rstrip("; ")
