"""Runs on the event loop: only for as long as they are short."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from infold.errors import SessionError
from infold.runtime import Stop
from infold.serving.inline import InlineRuns
from infold.tensors import Array, Tensors

X = {"x": np.zeros(1, np.float32)}


def test_a_run_that_holds_up_the_loop_is_ended_and_was_the_last() -> None:
    """It is given back as not done, for a runner to do over."""

    def endless(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        assert stop is not None
        began = time.monotonic()
        while not stop.native.terminate:
            assert time.monotonic() - began < 20
        raise SessionError("m", "terminated")

    runs = InlineRuns(4, endless)
    assert runs.allows(4)
    assert not runs.allows(5)
    assert runs.run(X, None) is None
    assert runs.is_over
    assert not runs.allows(1)


def test_a_run_that_waits_for_a_core_is_not_ended() -> None:
    """What counts is work: the machine may be busy with something else."""
    seen: list[bool] = []

    def descheduled(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        assert stop is not None
        time.sleep(0.1)
        seen.append(stop.native.terminate)
        return {}

    runs = InlineRuns(1, descheduled)
    assert runs.run(X, None) == {}
    assert seen == [False]
    assert not runs.is_over
    runs.close()


def test_a_model_that_is_slow_again_and_again_is_moved_off_the_loop() -> None:
    """A few slow runs among quick ones are forgiven."""
    slow = threading.Event()

    def run(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        if slow.is_set():
            time.sleep(0.002)
        return {}

    runs = InlineRuns(1, run)
    for _ in range(100):
        slow.set()
        runs.run(X, None)
        slow.clear()
        for _ in range(3):
            runs.run(X, None)
    assert not runs.is_over
    slow.set()
    for _ in range(100):
        runs.run(X, None)
    assert runs.is_over


def test_a_failure_of_the_run_itself_is_its_caller_s() -> None:
    """And no reason to run elsewhere."""

    def fails(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        raise SessionError("m", "index out of range")

    runs = InlineRuns(1, fails)
    with pytest.raises(SessionError, match="index out of range"):
        runs.run(X, None)
    assert runs.allows(1)
    runs.close()


def test_where_no_run_is_allowed_one_without_rows_is_not_either() -> None:
    """It would hold up the loop with nobody to look on."""

    def run(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        raise AssertionError("not here")

    assert not InlineRuns(0, run).allows(0)
    runs = InlineRuns(1, run)
    assert runs.allows(0)
    runs.close()
