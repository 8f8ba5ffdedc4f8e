"""What one process of the service may hold at a time, and what it has refused below the app."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from infold.rest.descriptors import fitting_connections
from infold.rest.in_flight import InFlight
from infold.settings import Settings

__all__ = ["REFUSED", "Bounds"]

log = logging.getLogger(__name__)

# Connections that the second port has for itself when there is no room for others: probes come there.
RESERVED = 64
# Why a connection is refused or cut, before there is a request to answer.
REFUSED = ("connections", "header_timeout", "write_timeout")


@dataclass(slots=True, eq=False)
class Bounds:
    """Limits of one process: where there are several, each has its part of those of the service.

    Attributes:
        max_body_bytes: Of one request.
        max_connections: At a time.
        header_timeout_s: That the headers of a request may take.
        write_timeout_s: That an answer may stay unread.
        in_flight: What requests hold together.
        refused: How often connections were refused or cut, by reason: `connections`,
            `header_timeout`, `write_timeout` (`REFUSED`).
        second_port: Where health is asked even if the main port has all its connections; None
            where there is one port.
        lingering: Connections that have been refused and are not closed yet.
        is_leaving: The process goes down: every answer from now on is the last of its connection.
    """

    max_body_bytes: int
    max_connections: int
    header_timeout_s: float
    write_timeout_s: float
    in_flight: InFlight
    second_port: int | None = None
    refused: Counter[str] = field(default_factory=Counter)
    lingering: int = 0
    is_leaving: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Those of one of the processes that share these settings."""
        # One body always fits, or some would never be answered.
        in_flight = max(settings.max_in_flight_bytes // settings.workers, settings.max_body_bytes)
        return cls(
            settings.max_body_bytes,
            max(1, settings.max_connections // settings.workers),
            settings.header_timeout_s,
            settings.write_timeout_s,
            InFlight(in_flight),
        )

    def fit(self) -> None:
        """No more connections than this process can have descriptors for; tells if that is fewer."""
        self.max_connections = fitting_connections(self.max_connections)

    @property
    def most_connections(self) -> int:
        """At a time, those of the second port's own room included."""
        return self.max_connections + (0 if self.second_port is None else RESERVED)

    def has_room(self, connections: int, port: Callable[[], int]) -> bool:
        """One connection more may come in.

        Args:
            connections: That there are.
            port: Tells which port it came to; asked only where that matters.
        """
        if connections < self.max_connections:
            return True
        return connections < self.most_connections and port() == self.second_port

    def refuse(self, reason: str) -> None:
        """A connection was refused or cut: counted, and told of now and then, or a flood fills the log."""
        self.refused[reason] += 1
        count = self.refused[reason]
        if count & (count - 1) == 0:  # 1, 2, 4, 8, ...
            log.warning("connection refused", extra={"reason": reason, "count": count})
