"""When to cut a batch, and of what: knows no clock, no I/O and no tensors.

Rows are counted, not requests. Requests share a batch only if their keys are
equal; the oldest request decides which key is next. Order of arrival is kept
within a key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from infold.errors import QueueFullError

__all__ = ["BatchQueue", "Ticket"]

Payload = TypeVar("Payload")


@dataclass(eq=False, slots=True)
class Ticket(Generic[Payload]):
    """One request that waits.

    Attributes:
        payload: Whatever the caller wants back.
        rows: How many rows it brings, at least 0.
        key: Only equal keys share a batch.
        arrived: When, in seconds of the caller's clock.
        deadline: When its answer is of no use any more; None means never.
    """

    payload: Payload
    rows: int
    key: Hashable
    arrived: float
    deadline: float | None = None


class BatchQueue(Generic[Payload]):
    """A bounded queue that knows when the next batch is due.

    Args:
        max_rows: Most rows in a batch.
        max_delay_s: How long the oldest request may wait for company.
        capacity_rows: Most rows that may wait.
        preferred_rows: Numbers of rows at which a batch is due at once.
    """

    def __init__(
        self,
        max_rows: int,
        max_delay_s: float,
        capacity_rows: int,
        preferred_rows: Collection[int] = (),
    ) -> None:
        self.max_rows = max_rows
        self.max_delay_s = max_delay_s
        self.capacity_rows = capacity_rows
        self.preferred_rows = frozenset(preferred_rows)
        self._waiting: OrderedDict[int, Ticket[Payload]] = OrderedDict()
        self._rows_by_key: dict[Hashable, int] = {}
        self._rows = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._rows

    @property
    def oldest(self) -> float | None:
        """When the request came that has waited longest; None while nothing waits."""
        return next(iter(self._waiting.values())).arrived if self._waiting else None

    def offer(self, ticket: Ticket[Payload]) -> None:
        """Let a request wait.

        Raises:
            QueueFullError: It would not fit; an empty queue takes any request.
        """
        if self._waiting and self.rows + ticket.rows > self.capacity_rows:
            raise QueueFullError(self.capacity_rows)
        self._waiting[id(ticket)] = ticket
        self._rows += ticket.rows
        self._rows_by_key[ticket.key] = self._rows_by_key.get(ticket.key, 0) + ticket.rows

    def withdraw(self, ticket: Ticket[Payload]) -> bool:
        """Take a request out again; False if it has left already."""
        if self._waiting.pop(id(ticket), None) is None:
            return False
        self._forget(ticket)
        return True

    def due(self) -> float | None:
        """When the next batch must be cut: the past once it is full, None while nothing waits."""
        if not self._waiting:
            return None
        oldest = next(iter(self._waiting.values()))
        rows = self._rows_by_key.get(oldest.key, 0)
        if rows >= self.max_rows or rows in self.preferred_rows:
            return oldest.arrived
        return oldest.arrived + self.max_delay_s

    def take(self, now: float) -> list[Ticket[Payload]]:
        """Cut a batch if one is due; whose deadline has passed leaves the queue without one.

        Returns:
            The batch, of one key and at most `max_rows` rows (a single request may
            exceed that by itself); empty unless due.
        """
        expired = [t for t in self._waiting.values() if t.deadline is not None and t.deadline <= now]
        for ticket in expired:
            self.withdraw(ticket)
        due = self.due()
        if due is None or due > now:
            return []
        batch: list[Ticket[Payload]] = []
        rows = 0
        key = next(iter(self._waiting.values())).key
        for ticket in list(self._waiting.values()):
            if ticket.key != key:
                continue
            if batch and rows + ticket.rows > self.max_rows:
                break  # a later, smaller one must not overtake
            batch.append(ticket)
            rows += ticket.rows
            self.withdraw(ticket)
        return batch

    def _forget(self, ticket: Ticket[Payload]) -> None:
        self._rows -= ticket.rows
        left = self._rows_by_key.get(ticket.key, 0) - ticket.rows
        if left:
            self._rows_by_key[ticket.key] = left
        else:
            self._rows_by_key.pop(ticket.key, None)
