"""Runs that do not come to an end, as readiness sees them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from infold.rest.service import STUCK_S, Service
from infold.runtime import Device, Placement
from infold.serving import BatchQueue, Runners, Ticket
from infold.settings import Settings


def test_the_longest_job_under_way_is_known() -> None:
    """While it goes on, and no longer; a thread that waits for one has none."""
    runners: Runners[None] = Runners(2)
    began, end = threading.Event(), threading.Event()

    def execute(tickets: list[Ticket[None]], is_wide: bool) -> None:
        began.set()
        assert end.wait(20)

    lane = runners.add(BatchQueue(1, 0.0, 8), execute)
    assert runners.longest_s == 0
    runners.offer(lane, Ticket(None, 1, None, 0.0, None))
    assert began.wait(20)
    first = runners.longest_s
    assert 0 < first < runners.longest_s
    end.set()
    while runners.longest_s:
        pass
    runners.close()


async def test_a_run_that_goes_on_after_everyone_has_left_makes_the_service_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its core is lost, and the device most likely hangs."""
    settings = Settings(repository=tmp_path, cache_dir=tmp_path / "cache", deadline_s=5.0)
    service = Service(settings, Placement(Device.CPU, "asked for"))
    await service.start()
    for seconds, is_ready in ((0.0, True), (5.0 + STUCK_S, True), (5.1 + STUCK_S, False)):
        monkeypatch.setattr(Runners, "longest_s", seconds)
        assert await service.is_ready() is is_ready
    await service.close()
