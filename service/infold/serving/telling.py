"""What is told of a trial, as JSON: by the child line by line, and to processes that wait for the outcome.

A bad file may have taken the child over, so what it says is held against what it may say.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from infold.errors import (
    ConfigError,
    DeviceError,
    GoldenError,
    InfoldError,
    NoKernelError,
    RuntimeCrashError,
    SessionError,
)
from infold.runtime.confinement import tells_of_no_memory
from infold.serving.preparing import Findings
from infold.serving.repository import ModelVersion

__all__ = ["LONGEST_TEXT", "Said", "met", "note_of", "too_much", "words_of"]

log = logging.getLogger(__name__)

# Errors that a child tells of, and the fact that stands in each before its detail.
FACTS_OF: dict[type[InfoldError], str] = {
    NoKernelError: "model",
    RuntimeCrashError: "model",
    SessionError: "model",
    DeviceError: "device",
    ConfigError: "place",
    GoldenError: "place",
}
LONGEST_TEXT = 2000


def words_of(failure: InfoldError) -> list[str]:
    """An error as `_failure_of` takes it."""
    fact = FACTS_OF.get(type(failure))
    if fact is None:
        return [type(failure).__name__, "", str(failure)]
    return [type(failure).__name__, str(getattr(failure, fact)), str(getattr(failure, "detail", ""))]


def _failure_of(name: str, fact: str, detail: str, model: str) -> InfoldError:
    """The error of that name; one that no child should meet is a `SessionError`."""
    kinds = {each.__name__: each for each in FACTS_OF}
    if name not in kinds:
        return SessionError(model, f"{name}: {detail}"[:LONGEST_TEXT])
    return kinds[name](fact[:LONGEST_TEXT], detail[:LONGEST_TEXT])


def note_of(failure: InfoldError, subject: Sequence[str]) -> dict[str, Any]:
    """What processes that wait for the same trial are told of one that failed.

    Args:
        failure: That it ended with.
        subject: What was tried.
    """
    return {"subject": list(subject), "at": time.time(), "error": words_of(failure)}


def met(note: Mapping[str, Any], subject: Sequence[str], since: float, model: str) -> InfoldError | None:
    """The error that a trial of the same ended with since then; whoever waited need not try too."""
    try:
        if note["subject"] != list(subject) or not since <= note["at"] <= time.time():
            return None
        name, fact, detail = map(str, note["error"])
    except (KeyError, TypeError, ValueError):
        return None
    return _failure_of(name, fact, detail, model)


class Said:
    """What a child says: lines of its log, and in the end what it found or met.

    Attributes:
        bound_bytes: Of its memory, once it has told.
        found: What it found.
        failure: What it met.
    """

    def __init__(self, version: ModelVersion) -> None:
        self._version = version
        self.bound_bytes: int | None = None
        self.found: Findings | None = None
        self.failure: InfoldError | None = None

    def hear(self, line: bytes) -> bool:
        """Take note of a line; True once it is the last."""
        try:
            told = json.loads(line)
            if "log" in told:
                _log(*told["log"])
                return False
            if "bound" in told:
                self.bound_bytes = None if told["bound"] is None else int(told["bound"])
                return False
            if "error" in told:
                self.failure = self._failure(*map(str, told["error"]))
            else:
                self.found = Findings.of_json(told["found"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            log.error("trial not understood", extra=self._about | {"line": line[:200].decode("latin-1")})
        return True

    @property
    def _about(self) -> dict[str, object]:
        return {"model": self._version.name, "version": self._version.number}

    def _failure(self, name: str, fact: str, detail: str) -> InfoldError:
        model = str(self._version.path)
        if self.bound_bytes is not None and tells_of_no_memory(f"{name} {detail}"):
            return RuntimeCrashError(model, too_much(self.bound_bytes))
        return _failure_of(name, fact, detail, model)


def too_much(bound_bytes: int) -> str:
    """The reason of a child that went beyond the bound of its memory."""
    return f"the trial of it took more than {bound_bytes // 2**20} MiB"


def _log(name: str, level: int, message: str, extra: Mapping[str, Any]) -> None:
    """A record of the child's, as one of ours."""
    taken = {*logging.makeLogRecord({}).__dict__, "message", "asctime"}
    if name.startswith("infold.") and name in logging.Logger.manager.loggerDict:
        facts = {key: value for key, value in extra.items() if key not in taken}
        logging.getLogger(name).log(int(level), "%s", str(message)[:LONGEST_TEXT], extra=facts)
