"""What a client is waited for, with a number for a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest.patience import LEAST_BYTES_PER_S, Late, Patience

FAIR = 30 * LEAST_BYTES_PER_S


def patience() -> Patience:
    return Patience(head_s=10, rest_s=65, reading_s=30)


def test_nothing_is_waited_for_while_nothing_is_begun() -> None:
    """And nothing is ever late then."""
    subject = patience()
    assert subject.due() is None
    assert subject.late(1e9, 0) is None


@pytest.mark.parametrize(
    ("what", "since", "most"),
    [(Late.HEAD, "head_since", 10), (Late.REST, "rest_since", 65), (Late.READING, "reading_since", 30)],
)
def test_each_has_its_time_and_not_a_moment_less(what: Late, since: str, most: int) -> None:
    """Counted from when it began."""
    subject = patience()
    setattr(subject, since, 100.0)
    assert subject.due() == 100 + most
    assert subject.late(100 + most - 0.001, 1) is None
    assert subject.late(100 + most, 1) is what


def test_the_first_that_is_due_is_looked_at_first() -> None:
    """Whichever began when."""
    subject = patience()
    subject.rest_since = 0.0
    subject.head_since = 60.0
    assert subject.due() == 65
    assert subject.late(65, 0) is Late.REST
    assert subject.late(70, 0) is Late.HEAD


def test_a_client_that_reads_on_is_waited_for() -> None:
    """A fair part in each stretch of time; however long all of it takes."""
    subject = patience()
    left, now = 100 * FAIR, 0.0
    subject.wait_for_reading(now, left)
    while left > FAIR:
        left -= FAIR
        now += 30
        assert subject.late(now, left) is None
        assert subject.due() == now + 30
    assert subject.late(now + 30, 1) is Late.READING


def test_a_client_that_reads_a_byte_now_and_then_is_not() -> None:
    """That is not reading."""
    subject = patience()
    subject.wait_for_reading(0.0, 100 * FAIR)
    assert subject.late(30.0, 100 * FAIR - 1) is Late.READING


def test_waiting_again_does_not_begin_anew() -> None:
    """The first time counts."""
    subject = patience()
    subject.wait_for_reading(0.0, 100)
    subject.wait_for_reading(29.0, 100)
    assert subject.late(30.0, 100) is Late.READING


@given(st.lists(st.tuples(st.floats(0.01, 50), st.integers(0, 4 * FAIR)), max_size=30), st.integers(1, 10**9))
def test_nobody_holds_an_answer_for_longer_than_its_size_allows(
    looks: list[tuple[float, int]], size: int
) -> None:
    """Whatever the client reads and whenever it is looked at: each stretch takes a fair part, or ends it."""
    subject = patience()
    subject.wait_for_reading(0.0, size)
    now, left, stretches = 0.0, size, 0
    for pause, read in looks:
        now, left = now + pause, max(0, left - read)
        before = subject.reading_since
        if subject.late(now, left) is Late.READING:
            return
        stretches += subject.reading_since != before
    assert stretches * FAIR <= size + FAIR
