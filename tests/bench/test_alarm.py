"""The timer of the open loop."""

from __future__ import annotations

import asyncio
import ctypes
import time

import pytest

from infold.bench.alarm import Alarm


@pytest.mark.parametrize("has_timer_files", [True, False])
async def test_it_rings_when_it_was_last_set_to(
    monkeypatch: pytest.MonkeyPatch, has_timer_files: bool
) -> None:
    """Never early where the system has timers that are files; a time in the past rings at once."""
    if not has_timer_files:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    rang: asyncio.Queue[float] = asyncio.Queue()
    alarm = Alarm(asyncio.get_running_loop(), lambda: rang.put_nowait(time.monotonic()))
    try:
        now = time.monotonic()
        alarm.set(now + 60)
        alarm.set(now + 0.02)
        at = await asyncio.wait_for(rang.get(), 5)
        assert at >= now + (0.02 if has_timer_files else 0.018)
        alarm.set(now)
        await asyncio.wait_for(rang.get(), 5)
        assert rang.empty()
    finally:
        alarm.close()
