"""One thing that was looked at: how it is, in one line, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Level", "bad", "ok", "shown_bytes", "warn"]


class Level(StrEnum):
    """How something is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: BAD stops the service, WARN is worth a look.
        topic: What it is about.
        text: How it is, in one line.
        remedy: What to do; empty where nothing is to be done.
        facts: For programs, in types that JSON has.
    """

    level: Level
    topic: str
    text: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "level": str(self.level),
            "topic": self.topic,
            "text": self.text,
            "remedy": self.remedy,
            "facts": dict(self.facts),
        }

    def lines(self, width: int) -> list[str]:
        """For people.

        Args:
            width: Of the longest topic.
        """
        text = " ".join(self.text.split())
        lines = [f"{self.level:<4}  {self.topic:<{width}}  {text}"]
        return lines if not self.remedy else [*lines, f"{'':<{width + 8}}-> {self.remedy}"]


def ok(topic: str, text: str, **facts: Any) -> Finding:
    """A finding that nobody need do anything about."""
    return Finding(Level.OK, topic, text, "", facts)


def warn(topic: str, text: str, remedy: str, **facts: Any) -> Finding:
    """A finding that is worth a look."""
    return Finding(Level.WARN, topic, text, remedy, facts)


def bad(topic: str, text: str, remedy: str, **facts: Any) -> Finding:
    """A finding that stops the service."""
    return Finding(Level.BAD, topic, text, remedy, facts)


def shown_bytes(count: float) -> str:
    """A number of bytes as people read it: `512 MiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1023.5:
            return f"{count:.3g} {unit}" if count < 999.5 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"
