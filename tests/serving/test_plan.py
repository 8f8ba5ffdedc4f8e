"""From a measurement to a plan: pure numbers."""

from __future__ import annotations

import pytest

from infold.runtime import Batching, SessionConfig
from infold.serving.plan import Measured, Plan, choose

TINY = Measured({1: 5e-6, 8: 6e-6, 32: 9e-6, 64: 13e-6})
CONVOLUTIONS = Measured({1: 5.8e-3, 2: 11.8e-3, 4: 24e-3, 8: 54e-3}, wide_s=3.1e-3)
DENSE = Measured({1: 2e-3, 2: 2.2e-3, 4: 2.6e-3, 8: 3.4e-3}, wide_s=1.95e-3)


def plan(
    measured: Measured | None,
    cores: int = 2,
    *,
    joinable: bool = True,
    batching: Batching | None = None,
    **session: object,
) -> Plan:
    config = SessionConfig(**session)  # type: ignore[arg-type]
    return choose(measured, cores, batching or Batching(), config, joinable=joinable)


def test_a_model_that_is_over_at_once_runs_on_the_event_loop() -> None:
    """And up to the rows for which that is so."""
    assert plan(TINY).inline_rows == 64
    assert plan(TINY).wide_cores == 0
    assert plan(DENSE).inline_rows == 0
    assert plan(TINY, inline="never").inline_rows == 0
    assert plan(TINY, batching=Batching(max_delay_s=0.01)).inline_rows == 0


def test_joining_is_as_large_as_it_pays() -> None:
    """Not for convolutions on these cores; and beyond what was measured where it gets better all the way."""
    assert plan(CONVOLUTIONS).join_rows == 1
    assert plan(DENSE).join_rows == 64
    best_in_between = Measured({1: 2e-3, 2: 2.2e-3, 4: 2.6e-3, 8: 9e-3})
    assert plan(best_in_between).join_rows == 4
    hardly_better = Measured({1: 50e-3, 2: 96e-3, 4: 180e-3, 8: 345e-3})
    assert plan(hardly_better).join_rows == 1
    long_ones = Measured({1: 10e-3, 2: 12e-3, 4: 18e-3, 8: 35e-3})
    assert plan(long_ones).join_rows == 4
    too_long_to_measure = Measured({1: 0.5})
    assert plan(too_long_to_measure).join_rows == 1
    assert plan(DENSE, joinable=False).join_rows == 1
    assert plan(DENSE, batching=Batching(join="never")).join_rows == 1
    assert plan(CONVOLUTIONS, batching=Batching(join="always")).join_rows == 64


def test_throughput_takes_a_core_a_run_and_latency_all_of_them() -> None:
    """Both, where that is faster for a run that is long enough to be shared out."""
    assert plan(CONVOLUTIONS) == Plan(1, 2, wide_cores=2)
    assert plan(DENSE).wide_cores == 0
    assert plan(CONVOLUTIONS, cores=1) == Plan(1, 1)
    assert plan(CONVOLUTIONS, cores=8) == Plan(1, 8, wide_cores=8)
    assert plan(CONVOLUTIONS, wide="never").wide_cores == 0
    assert plan(DENSE, wide="always").wide_cores == 2


@pytest.mark.parametrize(("threads", "runs"), [(1, 4), (2, 2), (4, 1), (3, 1), (64, 1)])
def test_what_the_owner_says_is_kept(threads: int, runs: int) -> None:
    """Threads of a run, as far as there are cores; as many runs as then fit, or as was said."""
    chosen = plan(CONVOLUTIONS, cores=4, intra_op_threads=threads)
    assert (chosen.cores, chosen.runs, chosen.wide_cores) == (min(threads, 4), runs, 0)
    assert plan(CONVOLUTIONS, cores=4, runs=3).runs == 3


def test_a_model_that_could_not_be_measured_is_run_with_care() -> None:
    """Joined and widened, never on the event loop."""
    assert plan(None) == Plan(1, 2, wide_cores=2, join_rows=64, inline_rows=0)


def test_of_two_measurements_the_least_counts() -> None:
    """A busy machine makes runs longer, never shorter."""
    busy = Measured({1: 9.0, 2: 4.0}, wide_s=5.0, is_quiet=False)
    assert not busy.is_settled
    both = Measured({1: 3.0, 2: 6.0, 4: 7.0}, wide_s=None, is_quiet=False).joined(busy)
    assert both == Measured({1: 3.0, 2: 4.0, 4: 7.0}, wide_s=5.0, is_quiet=False, times=2)
    assert not both.is_settled
    for _ in range(3):
        both = both.joined(busy)
    assert both.is_settled
    assert Measured({1: 1.0}).joined(None).is_settled
