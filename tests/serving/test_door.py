"""Requests that are refused at the door: there is no room to wait, or no time."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from infold.errors import QueueFullError, QueueTooLongError
from infold.serving import Asked, Batcher, Runners, Work, clock
from infold.serving.pace import SETTLED_RUNS, UNCOUNTED_RUNS
from infold.serving.plan import Plan
from infold.tensors import Array
from serving.fake_model import FakeModel, batcher, begun, row, settle, work

ALONE, JOINED = Plan(1, 1, join_rows=1), Plan(1, 1, join_rows=64)
LONG_S = 100.0


def patient(timeout_s: float, *, is_cheap: bool = True) -> Work[Array]:
    """A request that says itself how long it will wait."""
    return work(lambda: Asked({"x": np.ones(1, np.float32)}, None, timeout_s), is_cheap=is_cheap)


def has_pace(subject: Batcher, seconds: float) -> None:
    """Let it have seen enough runs of one row that took so long."""
    for _ in range(UNCOUNTED_RUNS + SETTLED_RUNS):
        subject._pace.ran(1, seconds)


async def busy(subject: Batcher, model: FakeModel, waiting: int) -> list[asyncio.Task[Array]]:
    """A run under way that does not end before the gate is opened, and so many behind it."""
    model.gate.clear()
    tasks = [asyncio.create_task(subject.answer(row(1)))]
    await settle()
    await begun(subject)
    tasks += [asyncio.create_task(subject.answer(row(value))) for value in range(waiting)]
    await settle()
    return tasks


async def test_who_comes_where_nobody_waits_is_let_in_whatever_runs_took(runners: Runners[Any]) -> None:
    """Even while one is under way: nothing is known of how long that will take."""
    model = FakeModel()
    subject = batcher(runners, model, ALONE)
    has_pace(subject, LONG_S)
    tasks = await busy(subject, model, 0)
    subject.check_room(clock() + 0.001)
    tasks.append(asyncio.create_task(subject.answer(row(5), clock() + 20)))
    await settle()
    model.gate.set()
    assert [(await task).item() for task in tasks] == [2, 10]
    await subject.close()


async def test_who_would_wait_beyond_the_deadline_is_refused_at_the_door(runners: Runners[Any]) -> None:
    """And takes no place; who has the time is let in."""
    model = FakeModel()
    subject = batcher(runners, model, ALONE)
    has_pace(subject, LONG_S)
    tasks = await busy(subject, model, 2)
    with pytest.raises(QueueTooLongError) as refused:
        subject.check_room(clock() + LONG_S)
    assert refused.value.queue_s == pytest.approx(2 * LONG_S)
    assert refused.value.retry_after_s == 60
    subject.check_room(clock() + 3 * LONG_S)
    with pytest.raises(QueueTooLongError):
        await subject.answer(row(7), clock() + LONG_S)
    assert subject.waiting_rows == 2
    model.gate.set()
    await asyncio.gather(*tasks)
    assert len(model.batches) == 3
    await subject.close()


@pytest.mark.parametrize("is_cheap", [True, False])
@pytest.mark.parametrize("plan", [ALONE, JOINED], ids=["alone", "joined"])
async def test_a_timeout_that_cannot_be_kept_is_refused_as_soon_as_it_is_read(
    two: Runners[Any], plan: Plan, is_cheap: bool
) -> None:
    """Where a runner reads it, by the runner; it never runs."""
    model = FakeModel()
    subject = batcher(two, model, plan)
    has_pace(subject, LONG_S)
    tasks = await busy(subject, model, 2)
    late = asyncio.create_task(subject.answer(patient(50.0, is_cheap=is_cheap)))
    if is_cheap or plan is JOINED:  # else it is read in its run, and not before
        with pytest.raises(QueueTooLongError):
            await late
        assert subject.waiting_rows == 2
    else:
        await settle()
        late.cancel()
        await settle()
    model.gate.set()
    await asyncio.gather(*tasks)
    assert sum(model.batches) == 3
    assert subject.in_flight == 0
    await subject.close()


async def test_a_full_queue_tells_how_long_it_will_take(runners: Runners[Any]) -> None:
    """At the door, and where the last place went meanwhile."""
    model = FakeModel()
    subject = batcher(runners, model, ALONE, max_rows=4, capacity_rows=4)
    has_pace(subject, 2.0)
    tasks = await busy(subject, model, 4)
    with pytest.raises(QueueFullError) as refused:
        subject.check_room(clock() + LONG_S)
    assert (refused.value.retry_after_s, subject.retry_after_s) == (8, 8)
    with pytest.raises(QueueFullError) as refused:
        await subject.answer(row(1), clock() + LONG_S)
    assert refused.value.retry_after_s == 8
    model.gate.set()
    await asyncio.gather(*tasks)
    assert subject.retry_after_s == 1
    await subject.close()


async def test_the_pace_is_that_of_the_runs(runners: Runners[Any]) -> None:
    """Of those alone that ended in answers."""
    model = FakeModel()
    subject = batcher(runners, model, ALONE)
    for _ in range(UNCOUNTED_RUNS + SETTLED_RUNS):
        assert not subject._pace.is_settled
        await subject.answer(row(1, 2))
    assert subject._pace.is_settled
    assert 0 < subject._pace.seconds_of(2) < 5
    await subject.close()


@pytest.fixture
def two() -> Iterator[Runners[Any]]:
    """One runs what there is to run, and the other reads meanwhile."""
    made: Runners[Any] = Runners(2)
    yield made
    made.close()
