"""What an observer is told of requests and runs: what ran, for whom, and where the time went."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from infold.errors import DeadlineExceededError, InvalidInputError, SessionError
from infold.serving import Asked, Runners, SilentObserver, Spent, Took, Work
from infold.serving.plan import Plan
from infold.tensors import Array
from serving.fake_model import FakeModel, batcher, begun, row, settle, work

ALONE, INLINE = Plan(1, 1, join_rows=1), Plan(1, 1, join_rows=64, inline_rows=8)


class Told(SilentObserver):
    """Remembers what it was told, and on which thread."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self.spent: list[Spent] = []
        self.waits: list[float] = []
        self.failed: list[int] = []
        self.threads: set[str] = set()

    def batch_ran(self, model: str, version: int, requests: int, rows: int, spent: Spent) -> None:
        """See `Observer`."""
        assert (model, version) == ("fake", 1)
        self.runs.append((requests, rows))
        self.spent.append(spent)
        self.threads.add(threading.current_thread().name)

    def ran_at_once(self, model: str, version: int, took: Took) -> None:
        """See `Observer`."""
        self.waited(model, version, took.queue_s)
        self.batch_ran(model, version, 1, took.rows, Spent(took.decode_s, took.compute_s, took.encode_s))

    def batch_failed(self, model: str, version: int, requests: int) -> None:
        """See `Observer`."""
        self.failed.append(requests)

    def waited(self, model: str, version: int, seconds: float) -> None:
        """See `Observer`."""
        self.waits.append(seconds)
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one look at the clock to the next a second passes, in each thread by itself."""
    counters: dict[int, Iterator[int]] = {}

    def look() -> float:
        return float(next(counters.setdefault(threading.get_ident(), itertools.count())))

    monkeypatch.setattr("time.perf_counter", look)


def refuse(_: dict[str, Array]) -> Array:
    raise InvalidInputError("outputs", "cannot be written")


def broken() -> Asked:
    raise InvalidInputError("inputs[0].shape", "does not fit")


async def test_a_joined_run_is_one_of_all_its_requests_and_rows(runners: Runners[Any], told: Told) -> None:
    """Three requests of eight rows in all; each of them has waited."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, observer=told)
    tasks = [asyncio.create_task(subject.answer(row(1)))]
    await settle()
    await begun(subject)
    tasks += [asyncio.create_task(subject.answer(row(*range(count)))) for count in (1, 3, 4)]
    await settle()
    model.gate.set()
    await asyncio.gather(*tasks)
    assert told.runs == [(1, 1), (3, 8)]
    assert len(told.waits) == 4
    assert all(wait >= 0 for wait in told.waits)
    assert told.threads == {threading.current_thread().name}
    await subject.close()


async def test_a_run_on_the_loop_counts_too(runners: Runners[Any], told: Told) -> None:
    """It waited for nothing."""
    subject = batcher(runners, FakeModel(), INLINE, observer=told)
    await subject.answer(row(1, 2))
    assert (told.runs, told.waits, told.failed) == ([(1, 2)], [0.0], [])
    await subject.close()


async def test_every_stage_of_a_run_counts_once(runners: Runners[Any], told: Told, ticks: None) -> None:
    """Read, run, written, wherever that is done."""
    subject = batcher(runners, FakeModel(), INLINE, observer=told)
    await subject.answer(row(1))
    await subject.answer(work(lambda: Asked({"x": np.ones(1, np.float32)}), is_cheap=False))
    await subject.close()
    subject = batcher(runners, FakeModel(), ALONE, observer=told)
    await subject.answer(row(1))
    await subject.answer(work(lambda: Asked({"x": np.ones(1, np.float32)}), is_cheap=False))
    await subject.close()
    assert told.spent == [Spent(1.0, 1.0, 1.0)] * 4


async def test_reading_and_joining_of_all_requests_of_a_run_count_as_its_input(
    runners: Runners[Any], told: Told, ticks: None
) -> None:
    """Two are read and once they are joined; padding is joining, too."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, observer=told, pad_to=(8,))
    tasks = [asyncio.create_task(subject.answer(row(1, 2)))]
    await settle()
    await begun(subject)
    tasks += [asyncio.create_task(subject.answer(row(value))) for value in (1, 2)]
    await settle()
    model.gate.set()
    await asyncio.gather(*tasks)
    assert model.batches == [8, 8]
    assert told.runs == [(1, 2), (2, 2)], "rows that fill up are nobody's"
    assert told.spent == [Spent(2.0, 1.0, 2.0), Spent(3.0, 1.0, 3.0)], "splitting is one, and each answer"
    await subject.close()


async def test_a_run_in_parts_counts_as_one_that_took_as_long(
    runners: Runners[Any], told: Told, ticks: None
) -> None:
    """Ten rows, four at a time."""
    limits = {"max_rows": 4, "capacity_rows": 8, "rows_are_independent": True}
    subject = batcher(runners, FakeModel(), observer=told, **limits)
    await subject.answer(row(*range(10)))
    assert (told.runs, told.spent) == ([(1, 10)], [Spent(1.0, 3.0, 2.0)])
    await subject.close()


@pytest.mark.parametrize("plan", [None, ALONE, INLINE], ids=["joined", "alone", "on the loop"])
@pytest.mark.parametrize("is_cheap", [True, False], ids=["short", "long"])
async def test_what_is_never_run_is_no_run(
    runners: Runners[Any], told: Told, plan: Plan | None, is_cheap: bool
) -> None:
    """A body that does not fit, found out on the loop or by a runner, and one that has waited too long."""
    model = FakeModel()
    subject = batcher(runners, model, plan, observer=told)
    with pytest.raises(InvalidInputError):
        await subject.answer(work(broken, is_cheap=is_cheap))
    rows = np.ones((2, 2), np.float32)
    with pytest.raises(InvalidInputError, match="shape"):
        await subject.answer(work(lambda: Asked({"x": rows}), is_cheap=is_cheap))
    if plan is not INLINE or not is_cheap:
        late = Asked({"x": np.ones(1, np.float32)}, None, 1e-9)
        with pytest.raises(DeadlineExceededError):
            await subject.answer(work(lambda: late, is_cheap=is_cheap))
    await subject.close()
    assert (model.batches, told.runs, told.waits, told.failed) == ([], [], [], [])


@pytest.mark.parametrize("plan", [None, ALONE, INLINE], ids=["joined", "alone", "on the loop"])
async def test_a_run_that_fails_answers_nobody(runners: Runners[Any], told: Told, plan: Plan | None) -> None:
    """No request, no row, no time of a run that gave nothing."""
    subject = batcher(runners, FakeModel(), plan, observer=told)
    with pytest.raises(SessionError):
        await subject.answer(row(13))
    await subject.close()
    assert (told.runs, told.failed) == ([], [])


async def test_after_a_failed_run_each_run_of_one_request_counts_by_itself(
    runners: Runners[Any], told: Told, ticks: None
) -> None:
    """What they took together is not one run; the culprit is none. Reading them counts once."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, observer=told)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    tasks = [asyncio.create_task(subject.answer(row(*values))) for values in ((2, 3), (13,), (4,))]
    await settle()
    model.gate.set()
    answers = await asyncio.gather(busy, *tasks, return_exceptions=True)
    assert [isinstance(each, SessionError) for each in answers] == [False, False, True, False]
    assert model.batches == [1, 4, 2, 1, 1]
    assert told.failed == [3]
    assert told.runs == [(1, 1), (1, 2), (1, 1)]
    assert told.spent == [Spent(1.0, 1.0, 1.0)] * 3
    assert len(told.waits) == 4
    await subject.close()


@pytest.mark.parametrize("plan", [None, ALONE, INLINE], ids=["joined", "alone", "on the loop"])
async def test_an_answer_that_cannot_be_written_is_none(
    runners: Runners[Any], told: Told, plan: Plan | None
) -> None:
    """It ran, for nobody."""
    subject = batcher(runners, FakeModel(), plan, observer=told)
    with pytest.raises(InvalidInputError, match="cannot be written"):
        await subject.answer(Work(lambda: Asked({"x": np.ones(2, np.float32)}), refuse))
    await subject.close()
    assert told.runs == [(0, 2)]


async def test_whoever_has_left_is_not_answered(runners: Runners[Any], told: Told) -> None:
    """The run goes on for the others, with all rows; only who still waits counts."""
    model = FakeModel()
    subject = batcher(runners, model, observer=told)
    model.gate.clear()
    busy = asyncio.create_task(subject.answer(row(1)))
    await model.entered()
    tasks = [asyncio.create_task(subject.answer(row(*range(count)))) for count in (1, 2, 3)]
    await settle()
    last: Callable[[], None] = model.gate.set
    model.gate = threading.Event()
    last()
    await busy
    await model.entered()
    tasks[1].cancel()
    await settle()
    model.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert model.batches == [1, 6]
    assert told.runs == [(1, 1), (2, 6)]
    await subject.close()
