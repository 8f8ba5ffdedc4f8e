"""A quota is kept at every rate, and what it says of waiting is true."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest.access.bucket import Bucket

RATES = st.floats(0.01, 1e5)
BURSTS = st.integers(1, 1000)
PAUSES = st.lists(st.floats(0, 10), min_size=1, max_size=200)


def test_a_burst_passes_at_once_and_no_more() -> None:
    """Then one every so often."""
    bucket = Bucket(10.0, 3)
    assert [bucket.take(100.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100.0) == pytest.approx(0.1)
    assert bucket.take(100.05) == pytest.approx(0.05)
    assert bucket.take(100.1) == 0
    assert bucket.take(100.1) > 0


def test_a_bucket_that_rests_holds_no_more_than_its_burst() -> None:
    """A key that was not used for a day may not be used for a day at once."""
    bucket = Bucket(100.0, 2)
    assert [bucket.take(86400.0) > 0 for _ in range(3)] == [False, False, True]


@given(RATES, BURSTS, PAUSES)
def test_never_more_than_the_burst_and_what_flowed_in(rate: float, burst: int, pauses: list[float]) -> None:
    """In any stretch of time, whoever asks however."""
    bucket, now, passed = Bucket(rate, burst), 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now) == 0
    assert passed <= burst + rate * now + 1e-3


@given(RATES, BURSTS, PAUSES)
def test_after_the_wait_it_tells_the_next_passes(rate: float, burst: int, pauses: list[float]) -> None:
    """Whoever does as told is not refused again."""
    bucket, now = Bucket(rate, burst), 0.0
    for pause in pauses:
        now += pause / rate / 10
        wait = bucket.take(now)
        if wait:
            now += wait
            assert bucket.take(now) == 0


def test_a_clock_that_goes_back_gives_nothing_away_and_takes_nothing() -> None:
    """Nor does it break."""
    bucket = Bucket(1.0, 1)
    assert bucket.take(50.0) == 0
    assert bucket.take(10.0) == 1.0
    assert bucket.take(11.0) == 0
