"""Runs that are repeated on a shadow: after their callers are answered, in time that nobody wants."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from infold.errors import ConfigError, SessionError
from infold.runtime import Batching, Stop
from infold.serving import Asked, Batcher, Runners, Shadowed, SilentObserver, Work, shadow_thread
from infold.serving.plan import Plan
from infold.serving.sampling import Ran
from infold.serving.shadow import LARGEST, Shadow
from infold.serving.shadow_thread import ShadowThread
from infold.tensors import Array, Tensors
from managers import until
from serving.fake_model import SIGNATURE, FakeModel, row, settle


class Told(SilentObserver):
    """What is told of shadows."""

    def __init__(self) -> None:
        self.outcomes: list[Shadowed] = []
        self.off: list[float] = []
        self.threads: set[int] = set()

    def shadowed(self, model: str, version: int, outcome: Shadowed, divergence: float) -> None:
        assert (model, version) == ("fake", 1)
        self.threads.add(threading.get_ident())
        self.outcomes.append(outcome)
        if outcome is Shadowed.RAN:
            self.off.append(divergence)

    def count(self, outcome: Shadowed) -> int:
        return self.outcomes.count(outcome)


class Twin(FakeModel):
    """A fake model that multiplies by a number of its own."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor
        self.got: list[tuple[Tensors, Sequence[str] | None]] = []

    def __call__(
        self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None
    ) -> dict[str, Array]:
        self.got.append((tensors, outputs))
        doubled = super().__call__(tensors, outputs, stop)["y"]
        return {"y": doubled * np.float32(self.factor / 2)}


class Desk:
    """In the place of the thread: takes what it is told to, does nothing by itself."""

    def __init__(self) -> None:
        self.has_room = True
        self.taken: list[Ran] = []
        self.removed: list[Shadow] = []

    def add(self, shadow: Shadow) -> None:
        shadow.open()

    def put(self, shadow: Shadow, ran: Ran) -> bool:
        self.taken.append(ran)
        return True

    def remove(self, shadow: Shadow) -> None:
        self.removed.append(shadow)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def no_thread_is_left(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While a test waits it takes a core, and none may be left for the lowest priority."""
    if "lowest" not in request.node.name:
        monkeypatch.setattr(shadow_thread, "LOWEST_PRIORITY", 0)
    yield
    for thread in threading.enumerate():
        if thread.name == "infold-shadow":
            thread.join(10)
            assert not thread.is_alive()


def shadow(
    desk: Any, told: Told, twin: Callable[..., Any] | None = None, share: float = 1.0, **more: Any
) -> Shadow:
    run = Twin() if twin is None else twin
    return Shadow(("fake", 1), share, more.pop("most_rows", 8), lambda _: run, desk, told, **more)


def batcher(runners: Runners[Any], model: FakeModel, held: Shadow, plan: Plan, **limits: Any) -> Batcher:
    limit = Batching(**limits)
    return Batcher(("fake", 1), SIGNATURE, model, limit, plan, runners, SilentObserver(), shadow=held)


JOINED, ALONE, INLINE = Plan(1, 1, join_rows=64), Plan(1, 1), Plan(1, 1, join_rows=64, inline_rows=8)


# -- picking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [JOINED, ALONE, INLINE], ids=["joined", "alone", "on the loop"])
async def test_the_share_of_runs_is_repeated_whatever_way_they_go(
    runners: Runners[Any], told: Told, plan: Plan
) -> None:
    """Three of ten at 0.25, the first among them; each with what went in and came out of that very run."""
    desk = Desk()
    subject = batcher(runners, FakeModel(), shadow(desk, told, share=0.25), plan)
    for number in range(10):
        assert (await subject.answer(row(number)))[0] == 2 * number
    await until(lambda: len(desk.taken) == 3)
    assert [ran.tensors["x"].tolist() for ran in desk.taken] == [[0.0], [4.0], [8.0]]
    assert [ran.results["y"].tolist() for ran in desk.taken] == [[0.0], [8.0], [16.0]]
    await subject.close()


async def test_a_caller_has_its_answer_before_anything_is_copied(runners: Runners[Any], told: Told) -> None:
    """On the event loop and off it."""
    order: list[str] = []

    class Slow(Desk):
        @property
        def has_room(self) -> bool:  # type: ignore[override]
            order.append("copied")
            return True

        @has_room.setter
        def has_room(self, value: bool) -> None: ...

    held = shadow(Slow(), told)
    subject = batcher(runners, FakeModel(), held, INLINE)
    await subject.answer(row(1))
    order.append("answered")
    await settle()
    assert order == ["answered", "copied"]
    await subject.close()


async def test_a_joined_run_is_repeated_once_with_eight_rows_at_most(
    runners: Runners[Any], told: Told
) -> None:
    """Not once for each request in it."""
    desk, model = Desk(), FakeModel()
    subject = batcher(runners, model, shadow(desk, told), JOINED)
    model.gate.clear()
    first = asyncio.create_task(subject.answer(row(0)))
    await model.entered()
    others = [asyncio.create_task(subject.answer(row(number, number))) for number in range(1, 6)]
    await settle()
    model.gate.set()
    await asyncio.gather(first, *others)
    await until(lambda: len(desk.taken) == 2)
    assert desk.taken[1].tensors["x"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert desk.taken[1].results["y"].tolist() == [2, 2, 4, 4, 6, 6, 8, 8]
    await subject.close()


async def test_of_a_request_that_is_run_in_parts_one_part_is_repeated(
    runners: Runners[Any], told: Told
) -> None:
    """With its own rows."""
    desk = Desk()
    subject = batcher(
        runners,
        FakeModel(),
        shadow(desk, told),
        Plan(1, 1, join_rows=4),
        max_rows=4,
        rows_are_independent=True,
    )
    assert (await subject.answer(row(*range(10)))).tolist() == list(range(0, 20, 2))
    await until(lambda: len(desk.taken) == 1)
    (ran,) = desk.taken
    np.testing.assert_array_equal(ran.results["y"], ran.tensors["x"] * 2)
    await subject.close()


async def test_what_failed_is_not_repeated(runners: Runners[Any], told: Told) -> None:
    """And what is run again by itself, after a neighbour failed, is."""
    desk, model = Desk(), FakeModel()
    subject = batcher(runners, model, shadow(desk, told), JOINED)
    model.gate.clear()
    first = asyncio.create_task(subject.answer(row(0)))
    await model.entered()
    good, bad = (asyncio.create_task(subject.answer(row(number))) for number in (5, 13))
    await settle()
    model.gate.set()
    await asyncio.gather(first, good)
    with pytest.raises(SessionError):
        await bad
    await until(lambda: len(desk.taken) == 2)
    assert [ran.tensors["x"].tolist() for ran in desk.taken] == [[0.0], [5.0]]
    await subject.close()


async def test_only_what_was_asked_for_is_compared(runners: Runners[Any], told: Told) -> None:
    """The shadow is asked for the same outputs."""
    thread, twin = ShadowThread(lambda: True), Twin()
    held = shadow(thread, told, twin)
    subject = batcher(runners, FakeModel(), held, INLINE)
    await until(lambda: Shadowed.OPENED in told.outcomes)
    await subject.answer(
        Work(lambda: Asked({"x": np.ones(1, np.float32)}, ["y"]), lambda results: results["y"])
    )
    await until(lambda: told.off == [0.0])
    assert [outputs for _, outputs in twin.got] == [["y"]]
    await subject.close()


async def test_where_there_is_no_room_nothing_is_copied(
    runners: Runners[Any], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as dropped."""
    desk = Desk()
    desk.has_room = False
    monkeypatch.setattr("infold.serving.shadow.copied", None)
    subject = batcher(runners, FakeModel(), shadow(desk, told), ALONE)
    for _ in range(3):
        await subject.answer(row(1))
    await until(lambda: told.count(Shadowed.DROPPED) == 3)
    assert not desk.taken
    await subject.close()


async def test_nothing_is_picked_before_the_shadow_is_open_or_after_it_is_closed(told: Told) -> None:
    """And the first run after it is open is."""

    class Late(Desk):
        def add(self, shadow: Shadow) -> None: ...

    held = shadow(Late(), told, share=0.01)
    assert [held.picks() for _ in range(3)] == [False] * 3
    held.open()
    assert [held.picks() for _ in range(3)] == [True, False, False]
    held.close()
    assert not any(held.picks() for _ in range(200))
    held.offer(Ran({}, None, {}))
    await settle()
    assert told.outcomes == [Shadowed.OPENED]


# -- repeating ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_thread_is_left")
async def test_what_the_two_differ_by_is_told_on_the_event_loop(runners: Runners[Any], told: Told) -> None:
    """Of the twin that doubles nothing, of the one that is off by a tenth."""
    for factor, off in ((2.0, 0.0), (2.2, 0.2 / 2.2)):
        thread = ShadowThread(runners.nobody_waits)
        subject = batcher(runners, FakeModel(), shadow(thread, told, Twin(factor)), JOINED)
        await until(lambda: Shadowed.OPENED in told.outcomes)
        await subject.answer(row(1, 2, 3))
        await until(lambda: bool(told.off))
        assert told.off == pytest.approx([off])
        assert told.threads == {threading.get_ident()}
        await subject.close()
        told.outcomes.clear()
        told.off.clear()


@pytest.mark.usefixtures("no_thread_is_left")
async def test_a_run_waits_until_no_request_does_and_is_dropped_in_the_end(told: Told) -> None:
    """It is never begun while one waits."""
    waits, twin = threading.Event(), Twin()
    looked: list[bool] = []

    def is_spare() -> bool:
        looked.append(True)
        return waits.is_set()

    for patience_s, outcome in ((0.0, Shadowed.DROPPED), (60.0, Shadowed.RAN)):
        thread = ShadowThread(is_spare, patience_s)
        held = shadow(thread, told, twin)
        await until(lambda: Shadowed.OPENED in told.outcomes)
        held.offer(ran_of(1))
        await until(lambda: len(looked) > 2 or Shadowed.DROPPED in told.outcomes)
        assert twin.got == []
        waits.set() if outcome is Shadowed.RAN else None
        await until(lambda outcome=outcome: outcome in told.outcomes)  # type: ignore[misc]
        held.close()
        told.outcomes.clear()
        looked.clear()
    assert len(twin.got) == 1


@pytest.mark.usefixtures("no_thread_is_left")
async def test_one_run_waits_while_another_is_under_way_and_no_more(told: Told) -> None:
    """The third is dropped, the first two are compared."""
    twin = Twin()
    twin.gate.clear()
    thread = ShadowThread(lambda: True)
    held = shadow(thread, told, twin)
    await until(lambda: Shadowed.OPENED in told.outcomes)
    held.offer(ran_of(1))
    await twin.entered()
    held.offer(ran_of(2))
    held.offer(ran_of(3))
    await until(lambda: Shadowed.DROPPED in told.outcomes)
    twin.gate.set()
    await until(lambda: told.count(Shadowed.RAN) == 2)
    assert told.count(Shadowed.DROPPED) == 1
    assert [tensors["x"].tolist() for tensors, _ in twin.got] == [[1.0], [2.0]]
    held.close()


@pytest.mark.usefixtures("no_thread_is_left")
async def test_one_thread_of_the_lowest_priority_runs_all_shadows(told: Told) -> None:
    """However many versions have one; it ends with the last of them, and begins again with the next."""
    import os

    nice: list[int] = []

    def run(tensors: Tensors, outputs: Any, stop: Any) -> dict[str, Array]:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return {"y": tensors["x"] * 2}

    thread = ShadowThread(lambda: True)
    for _ in range(2):
        both = [shadow(thread, told, run) for _ in range(2)]
        await until(lambda: told.count(Shadowed.OPENED) == 2)
        (running,) = [each for each in threading.enumerate() if each.name == "infold-shadow"]
        for number, each in enumerate(both, 1):
            each.offer(ran_of(1))
            await until(lambda number=number: told.count(Shadowed.RAN) == number)  # type: ignore[misc]
        for each in both:
            each.close()
        running.join(10)
        assert not running.is_alive()
        told.outcomes.clear()
    assert set(nice) == {19}
    assert os.getpriority(os.PRIO_PROCESS, 0) != 19, "nobody else's"


@pytest.mark.usefixtures("no_thread_is_left")
async def test_closing_ends_the_run_under_way_and_forgets_the_next(told: Told) -> None:
    """Neither is told of: nobody wants to know."""
    entered = threading.Event()

    def endless(tensors: Tensors, outputs: Any, stop: Stop | None) -> dict[str, Array]:
        entered.set()
        assert stop is not None
        while not stop.native.terminate:
            threading.Event().wait(0.001)
        raise SessionError("fake", "terminated")

    thread = ShadowThread(lambda: True)
    held = shadow(thread, told, endless)
    await until(lambda: Shadowed.OPENED in told.outcomes)
    held.offer(ran_of(1))
    await asyncio.to_thread(entered.wait, 5)
    held.offer(ran_of(2))
    (running,) = [each for each in threading.enumerate() if each.name == "infold-shadow"]
    held.close()
    await asyncio.to_thread(running.join, 10)
    assert not running.is_alive()
    await settle()
    assert told.outcomes == [Shadowed.OPENED]
    assert thread.has_room


@pytest.mark.usefixtures("no_thread_is_left")
@pytest.mark.parametrize("plan", [JOINED, ALONE, INLINE], ids=["joined", "alone", "on the loop"])
async def test_what_a_request_held_goes_with_it_and_not_with_its_shadow(
    runners: Runners[Any], told: Told, plan: Plan
) -> None:
    """Even while its run waits to be repeated; and the copy goes once it is."""
    twin, spare = Twin(), threading.Event()
    held = shadow(ShadowThread(spare.is_set, 60.0), told, twin)
    subject = batcher(runners, FakeModel(), held, plan)
    await until(lambda: Shadowed.OPENED in told.outcomes)
    refs: list[weakref.ref[Array]] = []

    def decode() -> Asked:
        body = np.arange(4, dtype=np.float32)
        refs.append(weakref.ref(body))
        return Asked({"x": body[:2]})

    gc.collect()
    gc.disable()
    try:
        await subject.answer(Work(decode, lambda results: results["y"]))
        await until(lambda: all(each() is None for each in refs))
        assert refs
        assert told.outcomes == [Shadowed.OPENED]
        spare.set()
        await until(lambda: told.off == [0.0])
        refs = [weakref.ref(tensors["x"]) for tensors, _ in twin.got]
        twin.got.clear()
        await until(lambda: all(each() is None for each in refs))
        assert refs
    finally:
        gc.enable()
    await subject.close()


# -- trouble ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_thread_is_left")
async def test_a_shadow_that_does_not_open_is_told_and_said(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with it; the version answers all the same."""
    caplog.set_level(logging.INFO)
    for failure, reason in (
        (ConfigError("m/1: shadow", "there is no file"), "m/1: shadow: there is no file"),
        (MemoryError("too large"), "MemoryError: too large"),
    ):

        def opener(_: Shadow, failure: Exception = failure) -> Any:
            raise failure

        thread = ShadowThread(lambda: True)
        held = Shadow(("fake", 1), 1.0, 8, opener, thread, told)
        await until(lambda: Shadowed.FAILED in told.outcomes)
        assert held.problem == f"not held against its shadow: {reason}"
        assert not held.picks()
        (line,) = caplog.records
        assert (line.getMessage(), vars(line)["reason"]) == ("shadow not opened", reason)
        held.close()
        told.outcomes.clear()
        caplog.clear()


@pytest.mark.usefixtures("no_thread_is_left")
async def test_a_shadow_that_is_closed_while_it_opens_lets_its_session_go(told: Told) -> None:
    """No request was picked for it, and nothing is told."""
    begun, go_on = threading.Event(), threading.Event()
    twin = Twin()

    def opener(_: Shadow) -> Any:
        begun.set()
        assert go_on.wait(10)
        return twin

    thread = ShadowThread(lambda: True)
    held = Shadow(("fake", 1), 1.0, 8, opener, thread, told)
    assert await asyncio.to_thread(begun.wait, 5)
    held.close()
    go_on.set()
    (running,) = [each for each in threading.enumerate() if each.name == "infold-shadow"]
    await asyncio.to_thread(running.join, 10)
    await settle()
    assert not held.picks()
    assert told.outcomes == []


async def test_failures_are_counted_and_said_once_an_hour(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """By the clock it is given; what is compared later counts again."""
    desk, at = Desk(), [0.0]
    held = shadow(desk, told, now=lambda: at[0])
    await settle()
    for at[0] in (0.0, 1.0, 3599.0, 3600.0, 3601.0):
        held.repeat(ran_of(13))
    await settle()
    assert told.count(Shadowed.FAILED) == 5
    assert len([line for line in caplog.records if line.getMessage() == "shadow failed"]) == 1
    for at[0] in (7300.0, 7301.0):
        held.repeat(ran_of(13))
        await settle()
    assert len([line for line in caplog.records if line.getMessage() == "shadow failed"]) == 2
    held.repeat(ran_of(1))
    await settle()
    assert told.off == [0.0]


async def test_a_large_divergence_is_said_once_an_hour(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """With model, version, output and number; rounding is not said at all."""
    at = [10.0]
    quiet = shadow(Desk(), told, Twin(2.001), now=lambda: at[0])
    loud = shadow(Desk(), told, Twin(4.0), now=lambda: at[0])
    quiet.repeat(ran_of(1))
    for at[0] in (10.0, 3000.0, 3609.0, 3611.0):
        loud.repeat(ran_of(1))
        await settle()
    found = [vars(line) for line in caplog.records if line.getMessage() == "shadow diverges"]
    assert [(line["model"], line["version"], line["output"], line["divergence"]) for line in found] == [
        ("fake", 1, "y", 0.5)
    ] * 2
    assert told.off == pytest.approx([0.0005, 0.5, 0.5, 0.5, 0.5], rel=1e-2)


async def test_an_infinite_divergence_is_a_large_number(told: Told) -> None:
    """JSON, by which workers tell each other, has no infinity."""
    held = shadow(Desk(), told, lambda *_: {"y": np.zeros(1, np.float32)})
    held.repeat(ran_of(1))
    await settle()
    assert told.off == [LARGEST]


async def test_a_shadow_that_gives_other_outputs_fails(told: Told) -> None:
    """One that is missing is no divergence of 0."""
    held = shadow(Desk(), told, lambda *_: {})
    held.repeat(ran_of(1))
    await settle()
    assert told.outcomes == [Shadowed.OPENED, Shadowed.FAILED]


def ran_of(*values: float) -> Ran:
    x = np.array(values, np.float32)
    return Ran({"x": x}, None, {"y": x * 2})
