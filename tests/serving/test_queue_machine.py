"""Requests arrive, leave, expire and are taken in any order, with a number for a clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infold.errors import QueueFullError
from infold.serving import BatchQueue, Ticket

KEYS = st.sampled_from("xyz")
SECONDS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0]) | st.floats(0, 3)


class QueueMachine(RuleBasedStateMachine):
    """A queue with any bounds, and a list beside it of what must be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.waiting: list[Ticket[int]] = []
        self.gone: list[Ticket[int]] = []  # given out, withdrawn or expired

    @initialize(
        max_rows=st.integers(1, 8),
        delay=st.sampled_from([0.0, 0.5]),
        capacity=st.integers(1, 24),
        preferred=st.sets(st.integers(1, 8), max_size=2),
    )
    def begin(self, max_rows: int, delay: float, capacity: int, preferred: set[int]) -> None:
        self.max_rows, self.delay, self.capacity = max_rows, delay, capacity
        self.preferred = preferred
        self.queue: BatchQueue[int] = BatchQueue(max_rows, delay, capacity, preferred)

    # -- what happens -----------------------------------------------------------------------------

    @rule(rows=st.integers(0, 10), key=KEYS, patience=st.none() | SECONDS)
    def arrive(self, rows: int, key: str, patience: float | None) -> None:
        self.count += 1
        deadline = None if patience is None else self.now + patience
        new = Ticket(self.count, rows, key, self.now, deadline)
        is_too_much = bool(self.waiting) and self.rows + rows > self.capacity
        if is_too_much:
            with pytest.raises(QueueFullError):
                self.queue.offer(new)
            assert not self.queue.withdraw(new)
        else:
            self.queue.offer(new)
            self.waiting.append(new)

    @rule(rows=st.lists(st.integers(0, 8), min_size=2, max_size=6), key=KEYS)
    def arrive_together(self, rows: list[int], key: str) -> None:
        for each in rows:
            self.arrive(each, key, None)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.waiting))
        assert self.queue.withdraw(chosen)
        self.lose(chosen)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_too_late(self, data: st.DataObject) -> None:
        """Whoever is out already is nobody's loss."""
        assert not self.queue.withdraw(data.draw(st.sampled_from(self.gone)))

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def wait_until_due(self) -> None:
        due = self.queue.due()
        self.now = max(self.now, -math.inf if due is None else due)

    @rule()
    def take(self) -> None:
        live = [each for each in self.waiting if each.deadline is None or each.deadline > self.now]
        batch = self.queue.take(self.now)
        for each in [each for each in self.waiting if each not in live]:
            assert each not in batch, "it expired, and runs all the same"
            self.lose(each)
        self.check_batch(batch, live)
        for each in batch:
            self.lose(each)

    @rule()
    def take_all(self) -> None:
        """Whatever waits comes out, each once, in as many batches as there are requests at most."""
        for _ in range(len(self.waiting)):
            self.wait_until_due()
            self.take()
        assert not self.waiting

    # -- what must hold ---------------------------------------------------------------------------

    def check_batch(self, batch: list[Ticket[int]], live: list[Ticket[int]]) -> None:
        if not live:
            assert not batch
            return
        group = [each for each in live if each.key == live[0].key]
        rows = sum(each.rows for each in group)
        is_full = rows >= self.max_rows or rows in self.preferred
        is_due = is_full or live[0].arrived + self.delay <= self.now
        assert bool(batch) == is_due
        if not batch:
            return
        assert batch == group[: len(batch)], "not the oldest of one group, in their order"
        taken = sum(each.rows for each in batch)
        assert taken <= self.max_rows or len(batch) == 1
        left = group[len(batch) :]
        assert not left or taken + left[0].rows > self.max_rows, "somebody was left who would have fitted"

    @invariant()
    def nobody_is_lost(self) -> None:
        """Who waits is in the queue, and counted."""
        if self.count == 0:
            return
        assert len(self.queue) == len(self.waiting)
        assert self.queue.rows == self.rows
        assert self.rows <= self.capacity or len(self.waiting) == 1
        assert (self.queue.due() is None) == (not self.waiting)
        assert self.queue.oldest == (self.waiting[0].arrived if self.waiting else None)

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.waiting)

    def lose(self, ticket: Ticket[int]) -> None:
        """It is out, for the first time and the last."""
        assert ticket not in self.gone, "given out twice"
        self.waiting.remove(ticket)
        self.gone.append(ticket)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=200, stateful_step_count=40)
