"""The limits of one process, as they follow from the settings and from what the system gives."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest import descriptors
from infold.rest.bounds import Bounds
from infold.rest.descriptors import connections_within, fitting_connections, raised_limit
from infold.settings import Settings


@pytest.mark.parametrize(("workers", "connections"), [(1, 4096), (2, 2048), (3, 1365), (256, 16)])
def test_the_limits_of_the_service_are_divided_over_its_workers(workers: int, connections: int) -> None:
    """So that no number of workers raises them."""
    bounds = Bounds.of(Settings(workers=workers))
    assert bounds.max_connections == connections
    assert bounds.in_flight.limit_bytes == max(2**30 // workers, 2**26)


def test_a_worker_can_always_hold_one_body_and_one_connection() -> None:
    """Or some request would never be answered."""
    bounds = Bounds.of(Settings(workers=8, max_connections=3, max_in_flight_bytes=100, max_body_bytes=1000))
    assert (bounds.max_connections, bounds.in_flight.limit_bytes) == (1, 1000)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_connections_leave_descriptors_for_everything_else(wanted: int, limit: int) -> None:
    """At least one connection, never more than wanted, never more than there are descriptors."""
    fitting = connections_within(wanted, limit)
    assert 1 <= fitting <= wanted
    assert fitting < limit or limit == 1
    assert fitting == wanted or fitting >= limit * 3 // 4 - 1 or fitting >= limit - descriptors.RESERVED


@pytest.fixture
def limit() -> Iterator[tuple[int, int]]:
    """The limit of this process, put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_as_far_as_it_must_be(limit: tuple[int, int]) -> None:
    """And never lowered."""
    hard = limit[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    assert raised_limit(600) == 600
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
    assert raised_limit(500) == 500
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)


def test_where_the_hard_limit_is_lower_there_are_fewer_connections_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what was wanted and what there is."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: None)
    with caplog.at_level(logging.WARNING):
        assert fitting_connections(4096) == 768
    (record,) = caplog.records
    assert (record.__dict__["wanted"], record.__dict__["connections"]) == (4096, 768)
    caplog.clear()
    assert fitting_connections(700) == 700
    assert not caplog.records


def test_a_system_that_lies_about_its_limit_is_believed_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit stays what it was."""

    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raised_limit(5000) == 256


def test_a_flood_of_refusals_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """All are counted; the 1st, 2nd, 4th and so on are told of."""
    bounds = Bounds.of(Settings())
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            bounds.refuse("connections")
    assert bounds.refused == {"connections": 1000}
    assert [record.__dict__["count"] for record in caplog.records] == [2**n for n in range(10)]
