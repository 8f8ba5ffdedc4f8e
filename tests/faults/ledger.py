"""The books: every request that was sent, and what became of it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from faults.questions import Kind, Verdict

__all__ = ["Ledger", "Unanswered"]

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request whose connection broke before its answer was there.

    Attributes:
        identity: Its id; begins with the connection's.
        connection: Over which it was sent.
        opened: When that was opened.
        sent: When the request was.
        failed: When the connection broke.
        received: Bytes of an answer that had come.
        why: What broke it.
    """

    identity: str
    connection: str
    opened: float
    sent: float
    failed: float
    received: int
    why: str


@dataclass(slots=True)
class Ledger:
    """What all callers have met.

    Attributes:
        sent: Requests.
        answered: With the reference's very bits.
        refused: By status and reason.
        unanswered: Not yet told apart.
        cut: Those that were in a process that was killed.
        untaken: Those that met a service on its way down, which had never begun with them.
        again: Sent once more after that.
        wrong: Anything else that came.
        lost: Those that nothing excuses.
        faults: By name and outcome.
        broken: Faults that did not go as they must.
    """

    sent: int = 0
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: list[Unanswered] = field(default_factory=list)
    cut: int = 0
    untaken: int = 0
    again: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    faults: dict[str, Counter[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, *, again: bool = False) -> None:
        """A request is on its way."""
        with self._lock:
            self.sent += 1
            self.again += again

    def judge(self, verdict: Verdict) -> None:
        """Something came back."""
        with self._lock:
            match verdict.kind:
                case Kind.ANSWERED:
                    self.answered += 1
                case Kind.REFUSED:
                    self.refused[verdict.detail] += 1
                case Kind.WRONG:
                    self.wrong.append(verdict.detail)

    def miss(self, unanswered: Unanswered) -> None:
        """Nothing came back."""
        with self._lock:
            self.unanswered.append(unanswered)

    def lose(self, why: str) -> None:
        """A request could not even be sent, or is lost without doubt."""
        with self._lock:
            self.lost.append(why)

    def fault(self, name: str, outcome: str) -> None:
        """A fault was tried."""
        with self._lock:
            self.faults.setdefault(name, Counter())[outcome] += 1

    def fail(self, name: str, why: str) -> None:
        """A fault did not go as it must."""
        with self._lock:
            self.faults.setdefault(name, Counter())["FAILED"] += 1
            self.broken.append(f"{name}: {why}")

    @property
    def is_balanced(self) -> bool:
        """Every request has exactly one fate."""
        fates = self.answered + self.refused.total() + len(self.wrong) + self.cut + self.untaken
        return self.sent == fates + len(self.lost)

    def table(self) -> str:
        """All of it, to be printed."""
        lines = [
            f"{'requests sent':<48}{self.sent:>9}",
            f"{'answered, and equal to the reference':<48}{self.answered:>9}",
            f"{'refused with a reason':<48}{self.refused.total():>9}",
            *(f"    {reason:<76}{count:>7}" for reason, count in sorted(self.refused.items())),
            f"{'cut by kill -9, and asked again':<48}{self.cut:>9}",
            f"{'met a service going down, and asked again':<48}{self.untaken:>9}",
            f"{'wrong':<48}{len(self.wrong):>9}",
            f"{'lost':<48}{len(self.lost):>9}",
            "",
            f"{'fault':<48}{'times':>9}  outcomes",
        ]
        for name, outcomes in sorted(self.faults.items()):
            told = ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes.items()))
            lines.append(f"{name:<48}{outcomes.total():>9}  {told}")
        for title, found in (("WRONG", self.wrong), ("LOST", self.lost), ("BROKEN", self.broken)):
            lines += [f"{title}: {each}" for each in found[:SHOWN]]
        return "\n".join(lines)
