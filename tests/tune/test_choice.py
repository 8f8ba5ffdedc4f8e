"""What to measure and which plan is best: invented numbers in, decisions out."""

from __future__ import annotations

import pytest

from infold.tune.choice import best, choose, nearest
from infold.tune.ways import Cell, Way, buckets, is_worth_measuring, ways

NARROW, ALONE, WIDE = Way(1, 2), Way(1, 1), Way(2, 1)


def cell(
    rows_per_s: float, rows: int = 1, way: Way = NARROW, p50_ms: float = 1.0, p99_ms: float = 1.0
) -> Cell:
    return Cell(1, way, rows, rows_per_s, p50_ms, p99_ms)


def with_lone_rows(*cells: Cell, alone_ms: float = 1.0, wide_ms: float = 1.0) -> list[Cell]:
    """Cells that `choose` looks up besides those it chooses from."""
    return [*cells, cell(1, way=ALONE, p50_ms=alone_ms), cell(1, way=WIDE, p50_ms=wide_ms)]


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(1, 2), (1, 1), (2, 1)]),
        (6, [(1, 6), (1, 1), (2, 3), (2, 1), (4, 1), (6, 1)]),
        (8, [(1, 8), (1, 1), (2, 4), (2, 1), (4, 2), (4, 1), (8, 1)]),
    ],
)
def test_ways_never_take_more_cores_than_there_are(cores: int, expected: list[tuple[int, int]]) -> None:
    """Threads double up to all cores; as many runs as fit, and one."""
    assert [(way.threads, way.runs) for way in ways(cores)] == expected
    assert all(way.threads * way.runs <= cores for way in ways(cores))


def test_buckets_double_up_to_the_most() -> None:
    """Which counts even if it is no power of two; a model that cannot join has one."""
    assert buckets(64, is_joinable=True) == [1, 2, 4, 8, 16, 32, 64]
    assert buckets(9, is_joinable=True) == [1, 2, 4, 8, 9]
    assert buckets(1, is_joinable=True) == buckets(64, is_joinable=False) == [1]


def test_runs_that_would_take_too_long_are_not_measured() -> None:
    """The first is, whatever it takes; a prediction is from the last that was measured."""
    assert is_worth_measuring(1, [], 0.1)
    assert is_worth_measuring(8, [cell(1, rows=4, p50_ms=50)], 0.1)
    assert not is_worth_measuring(16, [cell(1, rows=4, p50_ms=50)], 0.1)


def test_larger_runs_are_not_measured_beyond_the_limit() -> None:
    """Since they take no less."""
    found = [cell(1, rows=2, p50_ms=6)]
    assert is_worth_measuring(4, found, 1.0, latency_ms=12)
    assert not is_worth_measuring(4, found, 1.0, latency_ms=11)


def test_without_a_limit_the_most_rows_a_second_are_best() -> None:
    """Whatever they take."""
    cells = [cell(100), cell(200, rows=64, p50_ms=300), cell(150, rows=8)]
    assert best(cells, None) is cells[1]


def test_of_equals_the_smaller_run_is_best() -> None:
    """Then fewer threads, then fewer runs; 3 % is equal, 4 % is not."""
    large, small = cell(100, rows=8), cell(97.5, rows=4)
    assert best([large, small], None) is small
    assert best([large, cell(96, rows=4)], None) is large
    wide, narrow, lone = cell(100, way=WIDE), cell(99, way=NARROW), cell(98, way=ALONE)
    assert best([wide, narrow], None) is narrow
    assert best([wide, narrow, lone], None) is lone


def test_near_misses_do_not_add_up() -> None:
    """Each is held against the highest, not against its neighbour."""
    assert best([cell(100, rows=4), cell(98, rows=2), cell(96, rows=1)], None) == cell(98, rows=2)


def test_within_a_limit_a_run_and_the_wait_for_one_count() -> None:
    """The slow tail of a run, behind an ordinary one."""
    quick, slow = cell(100, p50_ms=3, p99_ms=5), cell(200, rows=8, p50_ms=5, p99_ms=6)
    assert best([quick, slow], 11) is slow
    assert best([quick, slow], 10.9) is quick
    assert best([quick, slow], 8) is quick
    assert best([quick, slow], 7.9) is None
    assert nearest([slow, quick]) is quick


def test_equality_is_judged_among_those_within_the_limit() -> None:
    """What is too slow sets no standard."""
    cells = with_lone_rows(cell(100, rows=2), cell(98), cell(500, rows=64, p50_ms=90))
    found = choose(cells, 2, 10)
    assert found is not None
    assert found.cell == cell(98) and found.top == cell(100, rows=2)


def test_no_plan_within_the_limit_is_no_plan() -> None:
    """Nothing is chosen in its place."""
    assert choose(with_lone_rows(cell(100)), 2, 0.1) is None


@pytest.mark.parametrize(
    ("alone_ms", "wide_ms", "is_wide"),
    [(5.8, 3.1, True), (5.8, 5.6, False), (0.4, 0.2, False), (5.8, 9.0, False)],
)
def test_a_lone_request_gets_all_cores_where_that_pays(
    alone_ms: float, wide_ms: float, is_wide: bool
) -> None:
    """As serving would decide by itself: a twentieth saved, of runs that are long enough."""
    found = choose(with_lone_rows(cell(100), alone_ms=alone_ms, wide_ms=wide_ms), 2, None)
    assert found is not None
    assert (found.is_wide, found.alone_ms, found.wide_ms) == (is_wide, alone_ms, wide_ms)


def test_a_run_that_takes_all_cores_needs_no_wide_one() -> None:
    """There is nothing more to give."""
    found = choose(with_lone_rows(cell(100, rows=4, way=WIDE), alone_ms=9, wide_ms=1), 2, None)
    assert found is not None
    assert (found.is_wide, found.alone_ms, found.wide_ms) == (False, 1, None)
