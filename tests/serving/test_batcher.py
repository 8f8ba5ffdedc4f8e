"""Requests in, runs of a session out: who shares a run, who waits, who hears of what went wrong."""

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphs import model as model_of
from infold.errors import (
    AbandonedError,
    DeadlineExceededError,
    InvalidInputError,
    QueueFullError,
    SessionError,
)
from infold.runtime import Batching, Session, Stop
from infold.serving import Asked, Batcher, Runners, SilentObserver, Work, clock
from infold.serving.plan import Plan
from infold.tensors import BFLOAT16, Array, Tensors
from serving.fake_model import FakeModel, batcher, begun, row, settle, turns, work


async def test_requests_that_come_while_the_session_is_busy_share_its_next_run(runners: Runners[Any]) -> None:
    """The first runs alone at once; the others form one batch behind it, and each gets its own rows."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    first = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    rest = [asyncio.create_task(subject.answer(row(*range(n, 2 * n)))) for n in (1, 2, 3)]
    await settle()
    model.gate.set()
    assert (await first).tolist() == [2]
    assert [(await task).tolist() for task in rest] == [[2], [4, 6], [6, 8, 10]]
    assert model.batches == [1, 6]
    await subject.close()


async def test_one_bad_request_does_not_fail_its_neighbours(runners: Runners[Any]) -> None:
    """A failed batch is run again one by one; only the culprit hears of it."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    tasks = [asyncio.create_task(subject.answer(row(value))) for value in (0, 1, 13, 2)]
    await settle()
    model.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[2], SessionError)
    assert [a.item() for a in answers if isinstance(a, np.ndarray)] == [0, 2, 4]
    await subject.close()


async def test_a_request_that_is_given_up_leaves_the_queue(runners: Runners[Any]) -> None:
    """A caller that has gone takes no place in a run."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    gone = asyncio.create_task(subject.answer(row(5, 6)))
    await settle()
    gone.cancel()
    await settle()
    assert subject.waiting_rows == 0
    model.gate.set()
    await busy
    assert model.batches == [1]
    await subject.close()


async def test_a_deadline_ends_the_wait_even_while_the_session_is_stuck(runners: Runners[Any]) -> None:
    """Nobody waits for ever behind a run that hangs."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    with pytest.raises(DeadlineExceededError):
        await subject.answer(row(2), deadline=clock() + 0.01)
    model.gate.set()
    await busy
    await subject.close()


async def test_the_queue_is_bounded_and_a_request_above_the_maximum_is_refused(
    runners: Runners[Any],
) -> None:
    """Too much at once is the caller's mistake, too much in all is the server's state."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, max_rows=4, capacity_rows=4)
    with pytest.raises(InvalidInputError, match="at most 4"):
        await subject.answer(row(*range(5)))
    first = asyncio.create_task(subject.answer(row(1, 2, 3)))
    await settle()
    await begun(subject)
    second = asyncio.create_task(subject.answer(row(1, 2, 3)))
    await settle()
    assert subject.waiting_rows == 3
    with pytest.raises(QueueFullError):
        await subject.answer(row(1, 2, 3))
    model.gate.set()
    await asyncio.gather(first, second)
    await subject.close()


async def test_closing_answers_what_was_accepted(runners: Runners[Any]) -> None:
    """Drain means finish, not drop."""
    model = FakeModel()
    subject = batcher(runners, model, max_delay_s=0.05)
    tasks = [asyncio.create_task(subject.answer(row(value))) for value in range(5)]
    await settle()
    await subject.close()
    assert [(await task).item() for task in tasks] == [0, 2, 4, 6, 8]


async def test_what_is_quick_is_run_where_it_was_read(runners: Runners[Any]) -> None:
    """Without another thread, up to the rows that were measured; more go to a runner."""
    model = FakeModel()
    subject = batcher(runners, model, Plan(1, 1, join_rows=64, inline_rows=2))
    assert (await subject.answer(row(1, 2))).tolist() == [2, 4]
    assert model.threads == {threading.current_thread().name}
    assert (await subject.answer(row(1, 2, 3))).tolist() == [2, 4, 6]
    assert len(model.threads) == 2
    with pytest.raises(SessionError, match="poison"):
        await subject.answer(row(13))
    await subject.close()


async def test_a_long_body_is_decoded_by_a_runner_and_still_shares_a_run(runners: Runners[Any]) -> None:
    """What is read is known only then; a mistake in it is its sender's alone."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    where: set[str] = set()

    def decode() -> Asked:
        where.add(threading.current_thread().name)
        return Asked({"x": np.array([4, 5], np.float32)})

    def broken() -> Asked:
        raise InvalidInputError("inputs[0].data[3]", "true is no FP32")

    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    asked = [work(decode, is_cheap=False), work(broken, is_cheap=False), row(6)]
    tasks = [asyncio.create_task(subject.answer(each)) for each in asked]
    await settle()
    model.gate.set()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, np.ndarray) and first.tolist() == [8, 10]
    assert isinstance(third, np.ndarray) and third.tolist() == [12]
    assert isinstance(second, InvalidInputError)
    assert where == {"infold-runner-0"}
    await busy
    await subject.close()


async def test_where_joining_does_not_pay_everyone_runs_alone(runners: Runners[Any]) -> None:
    """Decoded, run and encoded in one go."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, Plan(1, 1, join_rows=1))
    tasks = [asyncio.create_task(subject.answer(row(value))) for value in (1, 2, 3)]
    long = work(lambda: Asked({"x": np.array([4, 5], np.float32)}), is_cheap=False)
    tasks.append(asyncio.create_task(subject.answer(long)))
    await settle()
    model.gate.set()
    assert [(await task).tolist() for task in tasks] == [[2], [4], [6], [8, 10]]
    assert model.batches == [1, 1, 1, 2]
    await subject.close()


async def test_a_request_that_is_alone_gets_all_cores(runners: Runners[Any]) -> None:
    """The wide session runs it; once others wait, the narrow one runs them."""
    narrow, wide = FakeModel(), FakeModel()
    subject = batcher(runners, narrow, Plan(1, 1, wide_cores=1), wide)
    assert (await subject.answer(row(1))).tolist() == [2]
    assert (narrow.batches, wide.batches) == ([], [1])
    wide.gate.clear()
    first = asyncio.create_task(subject.answer(row(2)))
    await settle()
    await begun(subject)
    rest = [asyncio.create_task(subject.answer(row(value))) for value in (3, 4)]
    await settle()
    wide.gate.set()
    assert [(await task).tolist() for task in (first, *rest)] == [[4], [6], [8]]
    assert len(wide.batches) >= 2
    assert len(narrow.batches) >= 1
    await subject.close()


async def test_a_caller_that_leaves_ends_the_run_that_was_for_it_alone(runners: Runners[Any]) -> None:
    """Its place in the queue goes too; a run that others wait for goes on."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, Plan(1, 1))
    leave = asyncio.Event()

    async def left() -> None:
        await leave.wait()

    gone = asyncio.create_task(subject.answer(row(1), left=left))
    await settle()
    await begun(subject)
    stays = asyncio.create_task(subject.answer(row(2)))
    await settle()
    leave.set()
    with pytest.raises(AbandonedError):
        await gone
    model.gate.set()
    assert (await stays).tolist() == [4]
    first, second = model.stops
    assert first is not None and first.native.terminate
    assert second is not None and not second.native.terminate
    await subject.close()


async def test_a_run_of_several_ends_once_all_of_them_have_left(runners: Runners[Any]) -> None:
    """Not before: until then somebody waits for it."""
    begun_with: list[Stop | None] = []

    class Watched(FakeModel):
        def __call__(
            self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None
        ) -> dict[str, Array]:
            begun_with.append(stop)
            return super().__call__(tensors, outputs, stop)

    model = Watched()
    model.gate.clear()
    subject = batcher(runners, model)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    tasks = [asyncio.create_task(subject.answer(row(value))) for value in (2, 3, 4)]
    await settle()
    second = threading.Event()
    model.gate, first = second, model.gate
    first.set()
    await busy
    await begun(subject)
    while len(begun_with) < 2:
        await asyncio.sleep(0.001)
    stop = begun_with[1]
    assert stop is not None
    for task, is_ended in zip(tasks, (False, False, True), strict=True):
        task.cancel()
        await settle()
        assert stop.native.terminate is is_ended
    second.set()
    while len(model.batches) < 2:
        await asyncio.sleep(0.001)
    assert model.batches == [1, 3]
    await subject.close()


async def test_runs_are_filled_up_to_the_sizes_that_repeat(runners: Runners[Any]) -> None:
    """Whoever asked sees none of it."""
    model = FakeModel()
    subject = batcher(runners, model, pad_to=(4, 8))
    assert (await subject.answer(row(1, 2, 3))).tolist() == [2, 4, 6]
    assert (await subject.answer(row(*range(5)))).tolist() == [0, 2, 4, 6, 8]
    assert (await subject.answer(row(*[7] * 20))).tolist() == [14] * 20
    assert (await subject.answer(row())).tolist() == []
    assert model.batches == [4, 8, 20, 0]
    await subject.close()


async def test_rows_that_are_independent_are_run_in_parts(runners: Runners[Any]) -> None:
    """Only if the model's owner says so; see the refusal above."""
    model = FakeModel()
    subject = batcher(runners, model, max_rows=4, capacity_rows=8, rows_are_independent=True)
    assert (await subject.answer(row(*range(10)))).tolist() == [2 * value for value in range(10)]
    assert model.batches == [4, 4, 2]
    await subject.close()


@pytest.mark.parametrize("is_cheap", [True, False])
@pytest.mark.parametrize("timeout_s", [None, 20.0])
@pytest.mark.parametrize("plan", [Plan(1, 1, join_rows=8), Plan(1, 1), Plan(1, 1, inline_rows=8)])
async def test_nothing_of_a_request_stays_once_it_is_answered(
    runners: Runners[Any], plan: Plan, timeout_s: float | None, is_cheap: bool
) -> None:
    """Bodies are large: they must go with their request, not with the next garbage collection."""
    subject = batcher(runners, FakeModel(), plan)
    tensor = np.zeros(4, np.float32)
    held = weakref.ref(tensor)
    asked = work(partial(Asked, {"x": tensor}, None, timeout_s), is_cheap=is_cheap)
    del tensor
    gc.collect()
    gc.disable()
    try:
        await subject.answer(asked)
        del asked
        await settle()
        while not runners._sleeping:  # until its runner has gone back to wait
            await asyncio.sleep(0.001)
        assert held() is None
    finally:
        gc.enable()
    await subject.close()


async def test_a_long_request_that_is_given_up_leaves_the_queue_for_its_run(runners: Runners[Any]) -> None:
    """Also once it has been decoded: it takes no place in a run."""
    model = FakeModel()
    subject = batcher(runners, model)
    decoded, go_on = threading.Event(), threading.Event()

    def decode() -> Asked:
        decoded.set()
        go_on.wait(5)
        return Asked({"x": np.array([5, 6], np.float32)})

    gone = asyncio.create_task(subject.answer(work(decode, is_cheap=False)))
    await asyncio.to_thread(decoded.wait, 5)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    gone.cancel()
    await settle()
    go_on.set()
    assert (await busy).tolist() == [2]
    await subject.close()
    assert model.batches == [1]


async def test_requests_without_rows_wait_alone_where_nothing_is_joined(runners: Runners[Any]) -> None:
    """They count as one row: else the next one would be taken for their company, and answered as they are."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, Plan(1, 1, join_rows=1), capacity_rows=64)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    asked = [Asked({"x": np.zeros(0, np.float32)}, ["y"]), Asked({"x": np.ones(1, np.float32)})]
    tasks = [asyncio.create_task(subject.answer(work(lambda each=each: each))) for each in asked]
    await settle()
    assert subject.waiting_rows == 2
    model.gate.set()
    assert [(await task).tolist() for task in (busy, *tasks)] == [[2], [], [2]]
    assert model.batches == [1, 0, 1]
    await subject.close()


async def test_requests_without_rows_fill_the_queue_too(runners: Runners[Any]) -> None:
    """Or any number of them could wait."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, max_rows=4, capacity_rows=4)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    tasks = [asyncio.create_task(subject.answer(row())) for _ in range(6)]
    await settle()
    model.gate.set()
    await busy
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, QueueFullError) for each in answers] == [False] * 4 + [True] * 2
    await subject.close()


async def test_an_answer_that_cannot_be_written_fails_nobody_else(runners: Runners[Any]) -> None:
    """The others of its run have theirs."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)

    def refuse(results: dict[str, Array]) -> Array:
        raise InvalidInputError("instances", "the outputs have no common rows")

    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    odd = Work(lambda: Asked({"x": np.ones(1, np.float32)}), refuse)
    tasks = [asyncio.create_task(subject.answer(each)) for each in (row(2), odd, row(3))]
    await settle()
    model.gate.set()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    await busy
    assert isinstance(first, np.ndarray) and first.tolist() == [4]
    assert isinstance(second, InvalidInputError)
    assert isinstance(third, np.ndarray) and third.tolist() == [6]
    assert model.batches == [1, 3]
    await subject.close()


@pytest.mark.parametrize("seed", range(12))
async def test_in_any_crowd_everyone_gets_their_own_answer(seed: int) -> None:
    """Hundreds of requests of all sizes, some given up, some late, some wrong: none lost, none mixed up."""
    dice = random.Random(seed)
    runners: Runners[Any] = Runners(dice.choice([1, 2, 3]))
    most = dice.choice([1, 4, 16])
    narrow, wide = FakeModel(), FakeModel()
    plan = Plan(
        cores=dice.choice([1, runners.cores]),
        runs=dice.choice([1, runners.cores]),
        wide_cores=dice.choice([0, runners.cores]),
        join_rows=dice.choice([1, most]),
        inline_rows=dice.choice([0, 0, 2]),
    )
    limits = {
        "max_rows": most,
        "capacity_rows": dice.choice([20 * most, 10_000, 10_000]),
        "max_delay_s": dice.choice([0.0, 0.002]),
        "pad_to": dice.choice([(), (most,)]),
        "rows_are_independent": True,
    }
    subject = batcher(runners, narrow, plan, wide, **limits)
    outcomes: dict[str, int] = {}

    async def caller(number: int) -> None:
        values = [
            float(100 * number + 100 + n) for n in range(dice.choice([0, 1, 1, 1, 2, 3, most, most + 3]))
        ]
        is_poison = dice.random() < 0.03 and bool(values)
        if is_poison:
            values[-1] = 13.0
        cheap, deadline, leave = dice.random() < 0.6, dice.random(), dice.random()
        await turns(dice.randrange(400))
        asked = work(lambda: Asked({"x": np.array(values, np.float32)}), is_cheap=cheap)
        after = clock() + (dice.random() * 0.005 if deadline < 0.1 else 30)
        task = asyncio.create_task(
            subject.answer(asked, after, _after(dice.randrange(40)) if leave < 0.05 else None)
        )
        if 0.05 < leave < 0.15:
            await turns(dice.randrange(40))
            task.cancel()
        (answer,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(answer, np.ndarray):
            assert not is_poison
            assert answer.tolist() == [2 * value for value in values]
        else:
            assert not isinstance(answer, SessionError) or is_poison, answer
            kinds = (
                SessionError,
                DeadlineExceededError,
                AbandonedError,
                QueueFullError,
                asyncio.CancelledError,
            )
            assert isinstance(answer, kinds), answer
        outcomes[type(answer).__name__] = outcomes.get(type(answer).__name__, 0) + 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(caller(number) for number in range(300)))
        assert subject.in_flight == 0
        assert subject.waiting_rows == 0
        assert sum(outcomes.values()) == 300
        assert outcomes["ndarray"] > 0
        await subject.close()
    runners.close()
    for thread in runners._threads:
        thread.join(5)
        assert not thread.is_alive()


def _after(count: int) -> Any:
    return lambda: turns(count)


async def test_an_idle_crowd_of_models_shares_the_cores() -> None:
    """No lane is forgotten, however many are served by the same threads."""
    runners: Runners[Any] = Runners(2)
    models = [FakeModel() for _ in range(5)]
    subjects = [
        batcher(runners, model, Plan(1 + number % 2, 1, join_rows=4), max_rows=4)
        for number, model in enumerate(models)
    ]
    async with asyncio.timeout(60):
        for count in range(100, 140):
            tasks = [
                asyncio.create_task(each.answer(row(count, n + 100))) for n, each in enumerate(subjects * 3)
            ]
            answers = [(await task).tolist() for task in tasks]
            assert answers == [[2 * count, 2 * n + 200] for n in range(len(tasks))]
        await asyncio.gather(*(each.close() for each in subjects))
    runners.close()


async def test_who_leaves_a_run_takes_nothing_from_those_who_stay(runners: Runners[Any]) -> None:
    """The run goes on, and they have their answers."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model)
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    tasks = [asyncio.create_task(subject.answer(row(value))) for value in (2, 3, 4)]
    await settle()
    second = threading.Event()
    model.gate, first = second, model.gate
    first.set()
    await busy
    await begun(subject)
    tasks[0].cancel()
    await settle()
    second.set()
    assert [(await task).tolist() for task in tasks[1:]] == [[6], [8]]
    assert model.batches == [1, 3]
    stop = model.stops[1]
    assert stop is not None and not stop.native.terminate
    await subject.close()


async def test_cores_that_become_free_together_are_used_together() -> None:
    """Whoever ends a run on all cores wakes the others for what came meanwhile."""
    runners: Runners[Any] = Runners(2)
    together = threading.Barrier(2, timeout=5)

    class Meeting(FakeModel):
        def __call__(
            self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None
        ) -> dict[str, Array]:
            together.wait()
            return super().__call__(tensors, outputs, stop)

    wide = FakeModel()
    wide.gate.clear()
    subject = batcher(runners, Meeting(), Plan(1, 2, wide_cores=2), wide)
    first = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    rest = [asyncio.create_task(subject.answer(row(value))) for value in (2, 3)]
    await settle()
    wide.gate.set()
    assert [(await task).tolist() for task in (first, *rest)] == [[2], [4], [6]]
    await subject.close()
    runners.close()


async def test_rows_of_bfloat16_are_joined_too(runners: Runners[Any], tmp_path: Path) -> None:
    """In one run of a real session, and everyone has their own."""
    text = "g (bfloat16[n,2] x, float[n] w) => (bfloat16[n,2] y, float[n] v) { y = Identity(x)  v = Neg(w) }"
    onnx.save(model_of(text), str(tmp_path / "model.onnx"))
    session = Session(tmp_path / "model.onnx")
    gate, ran = threading.Event(), []

    def run(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        gate.wait(5)
        ran.append(len(tensors["x"]))
        return session.run(tensors, outputs, stop)

    limits, plan = Batching(), Plan(1, 1, join_rows=64)
    subject = Batcher(("b", 1), session.signature, run, limits, plan, runners, SilentObserver())
    given = [
        np.arange(2 * rows).reshape(rows, 2).astype(BFLOAT16) + BFLOAT16.type(8) for rows in (1, 2, 3, 4)
    ]
    asked = [Work(lambda x=x: Asked({"x": x, "w": np.arange(len(x), dtype=np.float32)}), dict) for x in given]
    tasks = [asyncio.create_task(subject.answer(asked[0]))]
    await settle()
    await begun(subject)
    tasks += [asyncio.create_task(subject.answer(each)) for each in asked[1:]]
    await settle()
    gate.set()
    for x, answer in zip(given, [await task for task in tasks], strict=True):
        assert answer["y"].dtype == BFLOAT16
        assert answer["y"].tobytes() == x.tobytes()
        assert answer["v"].tolist() == [-float(n) for n in range(len(x))]
    assert ran == [1, 9]
    await subject.close()
