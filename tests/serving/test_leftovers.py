"""Bodies are large: what is left of a request goes with it, however it ends, not at the next collection."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Iterator
from typing import Any

import numpy as np
import pytest

from infold.errors import AbandonedError, InvalidInputError, QueueFullError, RequestError, SessionError
from infold.serving import Asked, Batcher, Runners, Work, clock
from infold.serving.plan import Plan
from infold.tensors import Array
from serving.fake_model import FakeModel, batcher, row, settle

JOINED, ALONE, INLINE = Plan(1, 1, join_rows=64), Plan(1, 1), Plan(1, 1, join_rows=64, inline_rows=8)
Refs = list["weakref.ref[Array]"]


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=[True, False], ids=["short", "long"])
def is_cheap(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[JOINED, ALONE, INLINE], ids=["joined", "alone", "on the loop"])
def plan(request: pytest.FixtureRequest) -> Plan:
    found: Plan = request.param
    return found


def request(held: Refs, value: float = 1.0, *, is_cheap: bool, fails: str = "") -> Work[Array]:
    """A request whose tensor, and what stands for its body, are watched."""
    body = np.full(4, value, np.float32)
    held.append(weakref.ref(body))

    def decode() -> Asked:
        if fails == "decode":
            raise InvalidInputError("inputs[0]", f"{body[0]} does not fit")
        tensor = body.copy()
        held.append(weakref.ref(tensor))
        return Asked({"x": tensor}, None, 1e-9 if fails == "timeout" else None)

    def encode(results: dict[str, Array]) -> Array:
        if fails == "encode":
            raise InvalidInputError("outputs", f"{body[0]} cannot be written")
        return results["y"]

    return Work(decode, encode, is_cheap)


async def ended(answer: Awaitable[Array]) -> None:
    """Wait for a request whatever comes of it; what that was is forgotten."""
    with contextlib.suppress(RequestError, SessionError):
        await answer


async def quiet(runners: Runners[Any]) -> None:
    """Let every runner go back to wait."""
    while runners._sleeping < runners.cores:
        await asyncio.sleep(0.001)
    await settle()


async def check(runners: Runners[Any], subject: Batcher, held: Refs) -> None:
    await quiet(runners)
    assert [each() for each in held] == [None] * len(held)
    await subject.close()


@pytest.mark.parametrize("fails", ["", "decode", "encode", "timeout", "run"])
async def test_however_a_request_ends_nothing_of_it_stays(
    runners: Runners[Any], plan: Plan, is_cheap: bool, fails: str, no_collection: None
) -> None:
    """Answered, refused, late, failed."""
    subject, held = batcher(runners, FakeModel(), plan), Refs()
    value = 13.0 if fails == "run" else 1.0
    await ended(subject.answer(request(held, value, is_cheap=is_cheap, fails=fails), clock() + 60))
    await check(runners, subject, held)


@pytest.mark.parametrize("plan", [JOINED, ALONE], ids=["joined", "alone"])
@pytest.mark.parametrize("how", ["leaves", "is cancelled", "is late"])
@pytest.mark.parametrize("when", ["while it waits", "while it runs"])
async def test_whoever_gives_up_leaves_nothing(
    runners: Runners[Any], plan: Plan, is_cheap: bool, how: str, when: str, no_collection: None
) -> None:
    """In the queue or in a run."""
    model, held, leave = FakeModel(), Refs(), asyncio.Event()
    model.gate.clear()
    subject = batcher(runners, model, plan)
    tasks = []
    if when == "while it waits":
        other = Work(row(1).decode, row(1).encode, is_cheap=False)
        tasks.append(asyncio.create_task(subject.answer(other)))
        await model.entered()

    async def left() -> None:
        await leave.wait()

    made = request(held, is_cheap=is_cheap)
    if how == "is late":  # by no task of its own, which would hold the error
        await ended(subject.answer(made, clock() + 0.01, left))
    else:
        gone = asyncio.create_task(subject.answer(made, clock() + 60, left))
        await settle()
        if when == "while it runs":
            await model.entered()
        if how == "leaves":
            leave.set()
        else:
            gone.cancel()
        await asyncio.wait([gone])
        assert gone.cancelled() or isinstance(gone.exception(), AbandonedError)
        del gone
    del made
    model.gate.set()
    for task in tasks:
        await task
    await check(runners, subject, held)


async def test_whoever_finds_no_room_leaves_nothing(
    runners: Runners[Any], is_cheap: bool, no_collection: None
) -> None:
    """Refused at once, or once it is read: when there is most to do."""
    model, held = FakeModel(), Refs()
    model.gate.clear()
    subject = batcher(runners, model, JOINED, max_rows=4, capacity_rows=4)
    first = asyncio.create_task(subject.answer(row(1)))
    await model.entered()
    second = asyncio.create_task(subject.answer(row(1, 2)))
    await settle()
    tasks = [asyncio.create_task(subject.answer(request(held, is_cheap=is_cheap))) for _ in range(2)]
    await settle()
    model.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, QueueFullError) for each in found) or not is_cheap
    await asyncio.gather(first, second)
    del tasks, found
    await check(runners, subject, held)
