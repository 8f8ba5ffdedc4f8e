"""Where the time of each request went, however it is read, run and shared."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from infold.errors import InvalidInputError, SessionError
from infold.serving import Asked, Runners, Took, Work
from infold.serving.calls import Call
from infold.serving.plan import Plan
from infold.tensors import Array
from serving.fake_model import FakeModel, batcher, begun, row, settle, work

JOINED, ALONE, INLINE = (
    Plan(1, 1, join_rows=64),
    Plan(1, 1, join_rows=1),
    Plan(1, 1, join_rows=8, inline_rows=8),
)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one look at the clock to the next a second passes, in each thread by itself."""
    counters: dict[int, Iterator[int]] = {}

    def look() -> float:
        return float(next(counters.setdefault(threading.get_ident(), itertools.count())))

    monkeypatch.setattr("time.perf_counter", look)


def request(rows: int, *, is_cheap: bool = True) -> Work[Array]:
    """One of so many rows."""
    return work(lambda: Asked({"x": np.ones(rows, np.float32)}), is_cheap=is_cheap)


@pytest.mark.parametrize("is_cheap", [True, False], ids=["short", "long"])
@pytest.mark.parametrize("plan", [JOINED, ALONE, INLINE], ids=["joined", "alone", "on the loop"])
async def test_one_request_by_itself(runners: Runners[Any], ticks: None, plan: Plan, is_cheap: bool) -> None:
    """Each stage is one look at the clock; nobody shares its run, so there is nothing to join."""
    subject, asked = batcher(runners, FakeModel(), plan), request(3, is_cheap=is_cheap)
    await subject.answer(asked)
    await subject.close()
    assert asked.took._replace(queue_s=0.0) == Took(3, 1.0, 0.0, 0.0, 1.0, 1.0)
    assert asked.took.queue_s >= 0
    if plan is INLINE and is_cheap:
        assert asked.took.queue_s == 0


async def test_a_shared_run_counts_for_each_and_its_own_answer_for_each(
    runners: Runners[Any], ticks: None
) -> None:
    """Joining and splitting and the session are the run's; reading and writing are a request's own."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    asked = [request(rows) for rows in (1, 2, 3)]
    tasks = [asyncio.create_task(subject.answer(each)) for each in asked]
    await settle()
    model.gate.set()
    await asyncio.gather(busy, *tasks)
    await subject.close()
    assert model.batches == [1, 6]
    assert [each.took._replace(queue_s=0.0) for each in asked] == [
        Took(rows, 1.0, 0.0, 2.0, 1.0, 1.0) for rows in (1, 2, 3)
    ]
    assert all(each.took.queue_s > 0 for each in asked)


async def test_a_run_in_parts_is_put_together_again(runners: Runners[Any], ticks: None) -> None:
    """Which is a batch of one; all parts are computing."""
    limits = {"max_rows": 4, "capacity_rows": 8, "rows_are_independent": True}
    subject, asked = batcher(runners, FakeModel(), **limits), request(10)
    await subject.answer(asked)
    await subject.close()
    assert asked.took._replace(queue_s=0.0) == Took(10, 1.0, 0.0, 1.0, 3.0, 1.0)


async def test_filling_up_is_joining(runners: Runners[Any], ticks: None) -> None:
    """The rows that fill are nobody's."""
    subject, asked = batcher(runners, FakeModel(), pad_to=(8,)), request(2)
    await subject.answer(asked)
    await subject.close()
    assert asked.took._replace(queue_s=0.0) == Took(2, 1.0, 0.0, 2.0, 1.0, 1.0)


def test_a_wait_leaves_out_what_was_read_meanwhile() -> None:
    """What is read on the event loop is read before; clocks that disagree make no wait less than none."""
    for is_cheap, decode_s, now, waited in (
        (True, 2.0, 15.0, 5.0),
        (False, 2.0, 15.0, 3.0),
        (False, 0.0, 15.0, 5.0),
        (False, 9.0, 15.0, 0.0),
    ):
        call = Call(request(1, is_cheap=is_cheap), None, arrived=10.0, decode_s=decode_s)
        call.take(now)
        assert (call.is_taken, call.queue_s) == (True, waited)


async def test_after_a_failed_run_only_the_run_that_gave_the_answer_counts(
    runners: Runners[Any], ticks: None
) -> None:
    """What they lost together is not in any stage; the culprit took nothing."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    asked = [row(2, 3), row(13), row(4)]
    tasks = [asyncio.create_task(subject.answer(each)) for each in asked]
    await settle()
    model.gate.set()
    answers = await asyncio.gather(busy, *tasks, return_exceptions=True)
    await subject.close()
    assert isinstance(answers[2], SessionError)
    assert asked[0].took._replace(queue_s=0.0) == Took(2, 1.0, 0.0, 0.0, 1.0, 1.0)
    assert asked[2].took._replace(queue_s=0.0) == Took(1, 1.0, 0.0, 0.0, 1.0, 1.0)
    with pytest.raises(AttributeError):
        _ = asked[1].took


async def test_one_whose_answer_cannot_be_written_does_not_take_from_the_others(
    runners: Runners[Any], ticks: None
) -> None:
    """Its neighbour's writing is its neighbour's."""

    def refuse(_: dict[str, Array]) -> Array:
        raise InvalidInputError("outputs", "cannot be written")

    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    asked = [Work(lambda: Asked({"x": np.ones(1, np.float32)}), refuse), row(1)]
    tasks = [asyncio.create_task(subject.answer(each)) for each in asked]
    await settle()
    model.gate.set()
    await asyncio.gather(busy, *tasks, return_exceptions=True)
    await subject.close()
    assert asked[1].took.encode_s == 1.0


# -- what is logged by a runner ------------------------------------------------------------------------


async def test_a_run_that_nobody_foresaw_to_fail_is_logged_with_the_ids_of_its_requests(
    runners: Runners[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A runner knows no request by itself; one is told as every line tells it, several as a list."""

    class Broken(FakeModel):
        def __call__(self, *arguments: Any) -> dict[str, Array]:
            self.gate.wait(5)
            raise ZeroDivisionError

    model = Broken()
    model.gate.clear()
    subject = batcher(runners, model)
    asked = [row(1), row(2), row(3)]
    for number, each in enumerate(asked):
        each.identity = f"id-{number}"
    with caplog.at_level(logging.ERROR):
        tasks = [asyncio.create_task(subject.answer(asked[0]))]
        await settle()
        await begun(subject)
        tasks += [asyncio.create_task(subject.answer(each)) for each in asked[1:]]
        await settle()
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    await subject.close()
    assert [type(each) for each in answers] == [ZeroDivisionError] * 3
    told = [
        (record.message, record.__dict__.get("request_id"), record.__dict__.get("request_ids"))
        for record in caplog.records
    ]
    assert told == [("a run was lost", "id-0", None), ("a run was lost", None, ["id-1", "id-2"])]
