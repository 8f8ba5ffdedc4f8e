"""What to run a model with, chosen from a short measurement: pure numbers in, a plan out.

Throughput wants one core a run and as many runs at once as there are cores;
latency wants all cores on the one request in flight. Weights are held once, so
a model has both: narrow runs, and a wide one for a request that is alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infold.runtime import Batching, SessionConfig

__all__ = ["Measured", "Plan", "choose", "on_gpu", "sizes"]

# A run shorter than handing it to another thread and back is run where the request was read.
INLINE_S = 150e-6
# Joining must win more than this per row: it makes the first of a batch wait for the last.
WORTH_JOINING, NEAR_BEST = 0.85, 1.05
SHORT_S = 5e-3
# Loads at which a model is measured, where the machine was busy at the first.
ENOUGH_TIMES = 5
# A second session must save this at least, of runs long enough to be shared out. It costs little memory.
WORTH_WIDENING, LEAST_WIDE_S = 0.95, 500e-6


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of warmed-up runs.

    Attributes:
        narrow_s: On `Plan.cores` cores, by rows; holds 1.
        wide_s: Of one row on all cores; None where that was not measured.
        is_quiet: Nothing else wanted the core meanwhile.
        times: It was measured, at as many loads.
    """

    narrow_s: Mapping[int, float]
    wide_s: float | None = None
    is_quiet: bool = True
    times: int = 1

    @property
    def is_settled(self) -> bool:
        """The next load need not measure again."""
        return self.is_quiet or self.times >= ENOUGH_TIMES

    def joined(self, earlier: Measured | None) -> Measured:
        """The least of both: whatever else a machine does can only make a run longer."""
        if earlier is None:
            return self
        rows = {*self.narrow_s, *earlier.narrow_s}
        both = (self, earlier)
        wide = [each.wide_s for each in both if each.wide_s is not None]
        return Measured(
            {n: min(each.narrow_s[n] for each in both if n in each.narrow_s) for n in sorted(rows)},
            min(wide, default=None),
            self.is_quiet,
            self.times + earlier.times,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is run.

    Attributes:
        cores: Threads of one run.
        runs: Runs at once, at most.
        wide_cores: Threads of a run while no other is under way; 0 means there is no such session.
        join_rows: Rows worth joining into one run; 1 joins none.
        inline_rows: Requests of up to so many rows are run on the event loop itself; 0 means none.
        pad_to: Numbers of rows that a run is filled up to where the model's owner names none.
    """

    cores: int
    runs: int
    wide_cores: int = 0
    join_rows: int = 1
    inline_rows: int = 0
    pad_to: tuple[int, ...] = ()


def choose(
    measured: Measured | None, cores: int, batching: Batching, session: SessionConfig, *, joinable: bool
) -> Plan:
    """The plan for a model.

    Args:
        measured: None where it could not be run by itself.
        cores: That this process may use.
        batching: What the model's owner says of it; whatever is set there is kept.
        session: The same.
        joinable: Rows of several requests may share a run.
    """
    threads = min(session.intra_op_threads or 1, cores)
    runs = session.runs or max(1, cores // threads)
    return Plan(
        threads,
        runs,
        _wide(measured, cores, threads, session),
        _join(measured, batching) if joinable else 1,
        _inline(measured, session, batching),
    )


def on_gpu(batching: Batching, *, joinable: bool) -> Plan:
    """The plan for a model on a GPU, where nothing is measured.

    One run at a time has the GPU. A size that was not warmed up would have kernels chosen for it in the
    middle of traffic, so joined rows are filled up to one that was.

    Args:
        batching: What the model's owner says of it.
        joinable: Rows of several requests may share a run.
    """
    joins = joinable and batching.join != "never"
    rows = batching.max_rows if joins else 1
    return Plan(cores=1, runs=1, join_rows=rows, pad_to=tuple(sizes(rows)) if joins else ())


def sizes(join_rows: int, *configured: int) -> list[int]:
    """Numbers of rows that runs of joined requests will have, in rising order.

    Args:
        join_rows: The most that are joined.
        configured: Other numbers that the model's owner expects.
    """
    doubled = [2**power for power in range(join_rows.bit_length())]
    return sorted({1, *doubled, join_rows, *configured})


def _wide(measured: Measured | None, cores: int, threads: int, session: SessionConfig) -> int:
    if session.wide == "never" or cores <= threads:
        return 0
    if session.wide == "always" or measured is None:
        return cores
    if measured.wide_s is None or session.intra_op_threads:
        return 0
    alone = measured.narrow_s[1]
    pays = alone >= LEAST_WIDE_S and measured.wide_s <= WORTH_WIDENING * alone
    return cores if pays else 0


def _join(measured: Measured | None, batching: Batching) -> int:
    if batching.join == "never":
        return 1
    if batching.join == "always" or measured is None:
        return batching.max_rows
    by_row = {rows: seconds / rows for rows, seconds in measured.narrow_s.items()}
    best = min(by_row.values())
    if best > WORTH_JOINING * by_row[1]:
        return 1
    # The first of a batch waits for the last: no more rows than it takes to come near the best.
    least = min(rows for rows, seconds in by_row.items() if seconds <= NEAR_BEST * best)
    if least == max(by_row) and measured.narrow_s[least] <= SHORT_S:
        return batching.max_rows  # it gets better all the way, and stays short
    return min(least, batching.max_rows)


def _inline(measured: Measured | None, session: SessionConfig, batching: Batching) -> int:
    if session.inline == "never":
        return 0
    if session.inline == "always":
        return batching.max_rows
    if measured is None or batching.max_delay_s > 0:
        return 0
    short = [rows for rows, seconds in measured.narrow_s.items() if seconds <= INLINE_S]
    return max(short, default=0)
