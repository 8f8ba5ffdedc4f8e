"""What happened in the serving floor, for whoever keeps count: metrics, logs, tests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from infold.serving.took import Took

__all__ = ["Observer", "Shadowed", "SilentObserver", "Spent"]


@dataclass(slots=True)
class Spent:
    """Where the time of one run went, in seconds.

    Attributes:
        input_s: Reading and joining requests.
        infer_s: In the session.
        output_s: Splitting and writing answers.
    """

    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.input_s + self.infer_s + self.output_s


class Shadowed(StrEnum):
    """What became of a version's shadow, or of a run that was to be repeated on it."""

    OPENED = "opened"
    RAN = "ran"
    DROPPED = "dropped"
    FAILED = "failed"


class Observer(Protocol):
    """Told of everything worth counting; must return at once and never raise."""

    def state_changed(self, model: str, version: int, state: str, reason: str) -> None:
        """A version entered a state."""

    def batch_ran(self, model: str, version: int, requests: int, rows: int, spent: Spent) -> None:
        """The session ran once, for so many requests with so many rows in all."""

    def ran_at_once(self, model: str, version: int, took: Took) -> None:
        """The session ran once, for one request that had not waited, and answered it."""

    def batch_failed(self, model: str, version: int, requests: int) -> None:
        """A run failed; its requests are tried again one by one."""

    def waited(self, model: str, version: int, seconds: float) -> None:
        """A request left the queue after so long."""

    def shadowed(self, model: str, version: int, outcome: Shadowed, divergence: float) -> None:
        """Something became of a version's shadow; where it ran, the answers were so far apart."""


class SilentObserver:
    """Counts nothing."""

    def state_changed(self, model: str, version: int, state: str, reason: str) -> None:
        """See `Observer`."""

    def batch_ran(self, model: str, version: int, requests: int, rows: int, spent: Spent) -> None:
        """See `Observer`."""

    def ran_at_once(self, model: str, version: int, took: Took) -> None:
        """See `Observer`."""

    def batch_failed(self, model: str, version: int, requests: int) -> None:
        """See `Observer`."""

    def waited(self, model: str, version: int, seconds: float) -> None:
        """See `Observer`."""

    def shadowed(self, model: str, version: int, outcome: Shadowed, divergence: float) -> None:
        """See `Observer`."""
