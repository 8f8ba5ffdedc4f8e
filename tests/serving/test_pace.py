"""How long a queue will take: estimates from any history of runs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import DeadlineExceededError, QueueFullError, QueueTooLongError
from infold.serving.pace import SETTLED_RUNS, UNCOUNTED_RUNS, Pace

RUNS = st.lists(st.tuples(st.integers(0, 512), st.floats(0, 1e6)), max_size=60)
ENOUGH = UNCOUNTED_RUNS + SETTLED_RUNS


def pace_of(runs: list[tuple[int, float]], runs_at_once: int = 1, join_rows: int = 1) -> Pace:
    pace = Pace(runs_at_once, join_rows)
    for rows, seconds in runs:
        pace.ran(rows, seconds)
    return pace


@given(RUNS, st.integers(0, 64), st.integers(0, 64), st.integers(0, 10**6))
def test_whatever_ran_the_estimate_is_a_number_from_0_and_the_hint_one_from_1_to_60(
    runs: list[tuple[int, float]], at_once: int, join_rows: int, rows: int
) -> None:
    """No division by zero, by runs of no rows or no time, or by a plan of none."""
    pace = pace_of(runs, at_once, join_rows)
    assert 0 <= pace.least_seconds_of(rows) <= pace.seconds_of(rows) < math.inf
    hint = pace.retry_after_s(rows)
    assert isinstance(hint, int)
    assert 1 <= hint <= 60


@given(RUNS, st.integers(1, 64), st.integers(0, 1000), st.integers(0, 1000))
def test_more_rows_never_take_less(runs: list[tuple[int, float]], join: int, one: int, more: int) -> None:
    """In either estimate."""
    pace = pace_of(runs, 1, join)
    assert pace.seconds_of(one) <= pace.seconds_of(one + more)
    assert pace.least_seconds_of(one) <= pace.least_seconds_of(one + more)


@given(st.integers(1, 64), st.floats(1e-6, 100), st.integers(ENOUGH, 40), st.integers(1, 16))
def test_runs_that_are_all_alike_are_estimated_exactly(
    rows: int, seconds: float, count: int, at_once: int
) -> None:
    """So many rows as one run takes so long as one run, less where several are run at once."""
    pace = pace_of([(rows, seconds)] * count, at_once, rows)
    assert pace.seconds_of(rows) == pytest.approx(seconds / at_once)
    assert pace.least_seconds_of(rows) == pytest.approx(seconds / at_once)


@given(RUNS)
def test_nobody_is_refused_before_there_have_been_enough_runs(runs: list[tuple[int, float]]) -> None:
    """However slow they were; and the hint is the shortest."""
    pace = pace_of(runs[: ENOUGH - 1])
    assert not pace.is_settled
    pace.check_time(10**6, 0.0)
    assert pace.retry_after_s(10**6) == 1


@given(RUNS, st.floats(-10, 10))
def test_nobody_is_refused_for_a_queue_that_is_empty(runs: list[tuple[int, float]], left_s: float) -> None:
    """Not even who is late already: that is for others to say."""
    pace_of(runs).check_room(0, 1, left_s)


def test_the_first_runs_of_a_session_do_not_count() -> None:
    """They take long by themselves."""
    pace = pace_of([(1, 100.0)] * UNCOUNTED_RUNS + [(1, 0.01)] * SETTLED_RUNS)
    assert pace.seconds_of(1) == pytest.approx(0.01)


def test_the_estimate_follows_what_runs_take_now() -> None:
    """Within some runs it is there."""
    pace = pace_of([(1, 1.0)] * 20)
    for _ in range(30):
        pace.ran(1, 0.1)
    assert 0.1 <= pace.seconds_of(1) < 0.105


def test_who_cannot_be_answered_in_time_is_told_how_long_the_queue_is() -> None:
    """An error of its own, which is one of deadlines too."""
    pace = pace_of([(1, 0.5)] * ENOUGH)
    with pytest.raises(QueueTooLongError) as refused:
        pace.check_room(10, 100, 2.0)
    assert isinstance(refused.value, DeadlineExceededError)
    assert (refused.value.queue_s, refused.value.left_s, refused.value.retry_after_s) == (5.0, 2.0, 5)
    assert str(refused.value) == "those that wait take about 5.000 s, and the deadline is in 2.000 s"
    assert refused.value.reason == "queue_too_long"
    pace.check_room(10, 100, 5.0)


def test_who_finds_the_queue_full_is_told_when_to_come_again() -> None:
    """In seconds that those who wait will take."""
    pace = pace_of([(1, 0.3)] * ENOUGH)
    with pytest.raises(QueueFullError) as refused:
        pace.check_room(10, 10, 100.0)
    assert (refused.value.capacity_rows, refused.value.retry_after_s) == (10, 3)


def test_rows_that_may_share_their_runs_are_given_the_benefit_of_the_doubt() -> None:
    """After single requests a burst comes: nobody knows yet that one run takes all of it."""
    pace = pace_of([(1, 0.1)] * 20, join_rows=64)
    assert pace.seconds_of(64) == pytest.approx(6.4)
    pace.check_time(64, 0.2)
    with pytest.raises(QueueTooLongError):
        pace.check_time(64 * 3, 0.2)
