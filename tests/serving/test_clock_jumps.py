"""The wall clock jumps while requests wait and run: nobody is late by it, and nobody waits longer."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import numpy as np
import pytest

from infold.errors import DeadlineExceededError
from infold.rest.metrics import Metrics
from infold.serving import Asked, Runners, clock
from infold.serving.plan import Plan
from serving.fake_model import FakeModel, batcher, begun, row, settle, work

DAY = 86400.0
JOINED = Plan(1, 1, join_rows=64)


@pytest.fixture(params=[-1000 * DAY, -DAY, DAY, 1000 * DAY], ids=lambda jump: f"{jump / DAY:+.0f} days")
def jumping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It jumps, further and further, each time it is looked at."""
    real, jumps = time.time, itertools.count(1)

    def shifted() -> float:
        return max(0.0, real() + next(jumps) * request.param)

    monkeypatch.setattr(time, "time", shifted)
    monkeypatch.setattr(time, "time_ns", lambda: int(shifted() * 1e9))


@pytest.mark.usefixtures("jumping")
async def test_deadlines_do_not_follow_the_wall_clock(runners: Runners[Any]) -> None:
    """Who has time is answered, who has none is told so, whatever time of day it is meanwhile."""
    model, metrics = FakeModel(), Metrics()
    subject = batcher(runners, model, JOINED, observer=metrics)
    model.gate.clear()
    busy = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    patient = asyncio.create_task(subject.answer(row(2), clock() + 60))
    hasty = asyncio.create_task(subject.answer(row(3), clock() + 0.01))
    own = work(lambda: Asked({"x": np.array([4], np.float32)}, None, 60.0))
    with_its_own = asyncio.create_task(subject.answer(own))
    with pytest.raises(DeadlineExceededError):
        await asyncio.wait_for(hasty, 5)
    assert not patient.done() and not with_its_own.done()
    model.gate.set()
    assert [(await each).tolist() for each in (busy, patient, with_its_own)] == [[2], [4], [8]]
    assert model.batches == [1, 2]
    counted = metrics.snapshot()["histograms"]
    timed = [row for family, rows in counted.items() if family.endswith("_seconds") for row in rows]
    assert len(timed) > 1
    assert all(0 <= seconds < 60 for *_, seconds in timed)


@pytest.mark.usefixtures("jumping")
async def test_company_is_waited_for_no_longer_than_told(runners: Runners[Any]) -> None:
    """A delay is a delay, be it a day later or earlier by then."""
    model = FakeModel()
    subject = batcher(runners, model, JOINED, max_delay_s=0.05)
    assert (await asyncio.wait_for(subject.answer(row(1)), 5)).tolist() == [2]
