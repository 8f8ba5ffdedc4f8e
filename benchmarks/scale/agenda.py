"""What happens when: the clock of the simulation, and what is held by one at a time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["Agenda", "Link", "Lock"]

Action = Callable[[Any], None]


class Agenda:
    """Calls in the order of their times; those of one time in the order they were made."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._calls: list[tuple[float, int, Action, Any]] = []

    def at(self, time: float, action: Action, about: Any) -> None:
        """Call it then."""
        heapq.heappush(self._calls, (time, next(self._numbers), action, about))

    def run(self) -> None:
        """All calls have been made."""
        calls, pop = self._calls, heapq.heappop
        while calls:
            self.now, _, action, about = pop(calls)
            action(about)


class Lock:
    """Held by one at a time, first come first served: an interpreter."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._waiting: deque[tuple[float, Action, Any]] = deque()
        self._is_held = False

    def hold(self, seconds: float, then: Action, about: Any) -> None:
        """Hold it for so long as soon as it is free, and go on."""
        if self._is_held:
            self._waiting.append((seconds, then, about))
        else:
            self._take(seconds, then, about)

    def _take(self, seconds: float, then: Action, about: Any) -> None:
        if not seconds:
            then(about)
            return
        self._is_held = True
        self._agenda.at(self._agenda.now + seconds, self._free, (then, about))

    def _free(self, done: tuple[Action, Any]) -> None:
        self._is_held = False
        while self._waiting and not self._is_held:
            self._take(*self._waiting.popleft())
        then, about = done
        then(about)


class Link:
    """One after the other, each for a known time: a network card, or a thread of a proxy."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._free_at = 0.0

    def send(self, seconds: float, then: Action, about: Any) -> None:
        """Go on once all before it and this have passed."""
        self._free_at = max(self._agenda.now, self._free_at) + seconds
        self._agenda.at(self._free_at, then, about)
