"""Bytes of requests, counted: every byte is given back once, whatever became of its request."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from infold.errors import AbandonedError, OverloadedError
from infold.rest.in_flight import InFlight

LIMIT = 100


def test_what_does_not_fit_is_refused_and_takes_nothing() -> None:
    """One byte above the limit is too many; who gives back makes room."""
    counts, one, other = InFlight(LIMIT), {}, {}
    counts.hold(one, 60)
    with pytest.raises(OverloadedError) as refused:
        counts.hold(other, 41)
    assert (refused.value.limit_bytes, refused.value.reason) == (LIMIT, "in_flight_bytes")
    assert counts.held_bytes == 60
    counts.hold(other, 40)
    counts.give_back(one)
    assert counts.held_bytes == 40


def test_a_request_that_grows_holds_its_size_and_not_the_sum_of_them() -> None:
    """And never less than it held."""
    counts: InFlight = InFlight(LIMIT)
    request: dict[str, Any] = {}
    for size in (10, 10, 90, 50):
        counts.hold(request, size)
    assert counts.held_bytes == 90
    with pytest.raises(OverloadedError):
        counts.hold(request, LIMIT + 1)
    assert counts.held_bytes == 90


def test_a_request_that_has_ended_takes_nothing_any_more() -> None:
    """A thread that still inflates it is told so."""
    counts: InFlight = InFlight(LIMIT)
    request: dict[str, Any] = {}
    counts.hold(request, 10)
    counts.give_back(request)
    counts.give_back(request)
    with pytest.raises(AbandonedError):
        counts.hold(request, 20)
    assert counts.held_bytes == 0


def test_threads_do_not_lose_a_byte() -> None:
    """Some grow while others end."""
    counts = InFlight(10**9)

    growing: list[dict[str, Any]] = [{} for _ in range(4)]

    def grow(request: dict[str, Any]) -> None:
        for size in range(3000):
            counts.hold(request, size)
        counts.end_growth()

    threads = [threading.Thread(target=grow, args=(each,)) for each in growing]
    for thread in threads:
        counts.begin_growth()
        thread.start()
    for _ in range(3000):
        request: dict[str, Any] = {}
        counts.hold(request, 5)
        counts.give_back(request)
    for thread in threads:
        thread.join()
    assert counts.held_bytes == 4 * 2999
    for each in growing:
        counts.give_back(each)
    assert counts.held_bytes == 0


class Counting(RuleBasedStateMachine):
    """Against the plainest model there is: a list of requests and what each holds."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = InFlight(LIMIT)
        self.requests: list[dict[str, Any]] = [{} for _ in range(4)]
        self.held = [0] * 4

    @rule(which=st.integers(0, 3), size=st.integers(0, LIMIT + 10))
    def hold(self, which: int, size: int) -> None:
        wanted = max(size, self.held[which])
        fits = sum(self.held) - self.held[which] + wanted <= LIMIT
        try:
            self.counts.hold(self.requests[which], size)
            assert fits
            self.held[which] = wanted
        except OverloadedError:
            assert not fits

    @rule(which=st.integers(0, 3), times=st.integers(1, 3))
    def end(self, which: int, times: int) -> None:
        for _ in range(times):
            self.counts.give_back(self.requests[which])
        self.requests[which], self.held[which] = {}, 0

    @invariant()
    def counts_are_right(self) -> None:
        assert self.counts.held_bytes == sum(self.held) <= LIMIT


TestCounting = Counting.TestCase
