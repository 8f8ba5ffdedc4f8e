"""What is counted, in plain numbers: cheap to add to, and summable over processes.

Everything is counted on the event loop's thread, so nothing is locked. A child
(one family, one set of labels) is looked up once and then kept by whoever counts;
observing a number is one bisection and two additions. Knows nothing of Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTHING", "Counter", "Histogram", "Ledger", "Snapshot", "state_of_all", "total"]

# Least far first. A load or an unload is over once the last process is through with it, and a
# version that failed in any process has failed.
LEAST_FAR_FIRST = ("failed", "loading", "ready", "draining", "unloaded")


class Counter:
    """A number that only grows."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Histogram:
    """How many observations fell into each bucket, and their sum.

    Args:
        bounds: Upper bounds of the buckets, inclusive, ascending; one more bucket lies above them.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Count many: each into the bucket that it would have come into by itself."""
        found = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts))
        self.counts = [own + more for own, more in zip(self.counts, found.tolist(), strict=True)]
        self.sum += float(values.sum())


class Ledger:
    """Rows of numbers that are counted a few hundred at a time: a row costs no more than to be written down.

    Args:
        count: Counts rows, [rows, numbers].
    """

    __slots__ = ("_count", "_rows")

    def __init__(self, count: Callable[[NDArray[np.float64]], None]) -> None:
        self._count = count
        self._rows: list[tuple[float, ...]] = []

    def add(self, row: tuple[float, ...]) -> None:
        """Write down one more; all have as many numbers."""
        self._rows.append(row)
        if len(self._rows) >= ROWS_AT_A_TIME:
            self.settle()

    def settle(self) -> None:
        """Count what is written down."""
        if self._rows:
            rows, self._rows = self._rows, []
            self._count(np.array(rows))


# Of a ledger; numpy is slow to begin.
ROWS_AT_A_TIME = 256


class Snapshot(TypedDict):
    """All that one process has counted, as JSON can carry it.

    Attributes:
        counters: Family to rows of labels and count.
        histograms: Family to rows of labels, counts by bucket (not cumulative), and sum.
        gauges: Family to rows of labels and what is so at present.
        states: Rows of model, version and the state it is in.
        latest: Family to rows of labels and a time; of several the latest counts.
    """

    counters: dict[str, list[tuple[list[str], float]]]
    histograms: dict[str, list[tuple[list[str], list[int], float]]]
    gauges: dict[str, list[tuple[list[str], float]]]
    states: list[tuple[str, str, str]]
    latest: dict[str, list[tuple[list[str], float]]]


NOTHING: Snapshot = {"counters": {}, "histograms": {}, "gauges": {}, "states": [], "latest": {}}


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot as if one process had counted everything; states become `state_of_all`."""
    numbers: dict[str, dict[str, dict[tuple[str, ...], float]]] = {"counters": {}, "gauges": {}}
    histograms: dict[str, dict[tuple[str, ...], tuple[list[int], float]]] = {}
    states: dict[tuple[str, str], list[str]] = {}
    latest: dict[str, dict[tuple[str, ...], float]] = {}
    for snapshot in snapshots:
        for kind, families in (("counters", snapshot["counters"]), ("gauges", snapshot["gauges"])):
            for family, counted in families.items():
                by_labels = numbers[kind].setdefault(family, {})
                for labels, count in counted:
                    by_labels[tuple(labels)] = by_labels.get(tuple(labels), 0) + count
        for family, observed in snapshot["histograms"].items():
            in_buckets = histograms.setdefault(family, {})
            for labels, counts, summed in observed:
                before, sum_before = in_buckets.get(tuple(labels), ([0] * len(counts), 0.0))
                joined = [one + other for one, other in zip(before, counts, strict=True)]
                in_buckets[tuple(labels)] = joined, sum_before + summed
        for family, times in snapshot["latest"].items():
            newest = latest.setdefault(family, {})
            for labels, at in times:
                newest[tuple(labels)] = max(at, newest.get(tuple(labels), 0.0))
        for model, version, state in snapshot["states"]:
            states.setdefault((model, version), []).append(state)
    return {
        "counters": _rows(numbers["counters"]),
        "gauges": _rows(numbers["gauges"]),
        "histograms": {f: [(list(k), n, s) for k, (n, s) in rows.items()] for f, rows in histograms.items()},
        "latest": _rows(latest),
        "states": [(*version, state_of_all(found)) for version, found in states.items()],
    }


def _rows(
    families: dict[str, dict[tuple[str, ...], float]],
) -> dict[str, list[tuple[list[str], float]]]:
    return {family: [(list(k), n) for k, n in rows.items()] for family, rows in families.items()}


def state_of_all(states: Iterable[str]) -> str:
    """The state of a version that several processes hold: failed if in any, else the least far."""
    return min(states, key=LEAST_FAR_FIRST.index)
