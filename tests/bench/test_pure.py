"""Percentiles, schedules, the knee: no clock and no server."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from infold.bench.latencies import Latencies, latencies
from infold.bench.noise import Noise
from infold.bench.outcomes import Kind, Load, Loop, Outcomes, Window
from infold.bench.schedule import Knee, arrivals, auto_rates, falls_away, knee


def open_load(rate: float, answers: float, p50: float = 1.0, p99: float = 2.0) -> Load:
    return Load(Loop.OPEN, rate, answers, Latencies(p50, p99, p99, p99), asked_per_s=rate)


def test_percentiles_are_measured_values() -> None:
    """Of 1 to 100 ms, in any order, the 50th, 90th, 99th and last."""
    seconds = np.random.default_rng(1).permutation(np.arange(1, 101)) / 1000
    assert latencies(seconds) == Latencies(50.0, 90.0, 99.0, 100.0)


def test_nothing_answered_has_no_percentiles() -> None:
    """NaN, and no error."""
    assert math.isnan(latencies([]).p50_ms) and math.isnan(latencies([]).max_ms)


def test_arrivals_come_at_the_rate_asked_for() -> None:
    """The mean gap and its deviation are both 1 / rate, as in a Poisson process."""
    times = arrivals(500, 40, np.random.default_rng(7))
    gaps = np.diff(times)
    assert times[0] > 0 and times[-1] < 40 and (gaps >= 0).all()
    # Both errors are within five standard deviations of 20000 draws.
    assert abs(len(times) - 20000) < 5 * 20000**0.5
    assert abs(gaps.std() * 500 - 1) < 5 * 2 / 20000**0.5


@pytest.mark.parametrize("seed", range(20))
def test_arrivals_fill_the_whole_time(seed: int) -> None:
    """However few the first draw held, the schedule goes on to its end."""
    times = arrivals(200, 1, np.random.default_rng(seed))
    assert 0.9 < times[-1] < 1


def test_auto_rates_lie_around_the_peak() -> None:
    """From a fifth to one and a half times."""
    assert auto_rates(1000) == (200, 400, 600, 800, 900, 1100, 1500)


def test_the_knee_is_the_last_rate_before_the_tail_grows() -> None:
    """A p99 above three times the p50 of the lightest load."""
    loads = [open_load(10, 10), open_load(20, 20, 1.2, 3.0), open_load(30, 30, 1.5, 3.1)]
    assert knee(loads) == Knee(20, "p99 exceeds 3 x the p50 of the lightest load")


def test_the_knee_is_the_last_rate_that_is_answered() -> None:
    """Refusing quickly keeps latencies low; it is a knee all the same."""
    assert knee([open_load(10, 10), open_load(20, 12)]) == Knee(10, "answers fall behind")


def test_there_may_be_no_knee_or_nothing_below_it() -> None:
    """All rates carried; not even the lowest; nothing answered at all."""
    assert knee([open_load(10, 10), open_load(20, 20)]) == Knee(20, None)
    assert knee([open_load(10, 10, 1.0, 9.0)]).rate is None
    assert knee([open_load(10, 0, math.nan, math.nan)]).rate is None


def test_goodput_that_falls_away_is_told_from_goodput_that_stays() -> None:
    """Beyond its peak a good server keeps answering at its peak."""
    assert falls_away([open_load(10, 10), open_load(20, 7.9)])
    assert not falls_away([open_load(10, 10), open_load(20, 9)])
    assert not falls_away([])


def test_a_row_counts_what_lies_in_its_window() -> None:
    """Warm-up counts for nothing, save a wrong answer; a request given up has a latency."""
    outcomes = Outcomes()
    outcomes.add(0.1, 0.2, Kind.RIGHT)
    outcomes.add(0.3, 0.4, Kind.WRONG)
    outcomes.add(0.9, 1.1, Kind.RIGHT)  # due in the warm-up: an answer, but no latency
    outcomes.add(1.2, 1.3, Kind.RIGHT)
    outcomes.add(1.4, 1.5, Kind.REFUSED)
    outcomes.add(1.5, 1.6, Kind.FAILED)
    outcomes.add(2.9, 3.1, Kind.RIGHT)  # answered too late to count, but timed
    outcomes.add(1.0, 9.0, Kind.UNANSWERED)
    row = outcomes.summary(Loop.CLOSED, 4, Window(1.0, 3.0))
    assert (row.answers_per_s, row.refused, row.failed, row.wrong) == (1.0, 1, 2, 1)
    assert row.asked_per_s == 2.5
    assert row.latencies.max_ms == pytest.approx(8000) and row.latencies.p50_ms == pytest.approx(200)


def test_noise_is_work_of_others(tmp_path: Path) -> None:
    """Everything the machine did, less what this run did itself."""
    stat = tmp_path / "proc" / "7" / "stat"
    stat.parent.mkdir(parents=True)
    machine = tmp_path / "proc" / "stat"
    machine.write_text("cpu 100 0 50 9999 5 1 1 0 0 0\n")
    stat.write_text("7 (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 40 20 0 0 20 0 1 0 0\n")
    (tmp_path / "proc" / "7" / "task" / "9").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "task" / "9" / "children").write_text("8 ")
    (tmp_path / "proc" / "8").mkdir()
    child = tmp_path / "proc" / "8" / "stat"
    child.write_text("8 (child) S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0\n")
    noise = Noise(7, tmp_path)
    assert noise.cores(2.0) is None  # nothing has moved: the machine does not tell
    machine.write_text("cpu 420 0 180 9999 5 1 1 0 0 0\n")
    child.write_text("8 (child) S 7 1 1 0 -1 0 0 0 0 0 30 20 0 0 20 0 1 0 0\n")
    stat.write_text("7 (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 140 120 0 0 20 0 1 0 0\n")
    # 450 ticks of all, 200 of ours, 50 of our child.
    assert noise.cores(2.0) == pytest.approx(200 / 2 / os.sysconf("SC_CLK_TCK"))
    assert Noise(7, tmp_path / "elsewhere").cores(2.0) is None
