"""Which plan is best for a wish: numbers in, a plan and its reasons out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infold.serving.plan import LEAST_WIDE_S, WORTH_WIDENING
from infold.tune.ways import Cell, Way

__all__ = ["Choice", "best", "choose", "highest", "nearest"]

# Plans this near to each other are equal: two measurements of the same one differ by as much.
EQUAL = 0.97


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan for one version.

    Attributes:
        cell: What runs would be like.
        is_wide: A request that is alone gets all cores, by a session of its own.
        alone_ms: One row on the cores of one run, nothing else under way.
        wide_ms: One row on all cores; None where a run takes all cores anyway.
        top: The cell of the most rows a second among those that meet the wish.
    """

    cell: Cell
    is_wide: bool
    alone_ms: float
    wide_ms: float | None
    top: Cell


def choose(cells: Sequence[Cell], cores: int, latency_ms: float | None) -> Choice | None:
    """The best plan for one version, or None where none is within the limit.

    Args:
        cells: Of that version.
        cores: In all.
        latency_ms: What a reply may take; None asks for throughput alone.
    """
    found = best(cells, latency_ms)
    if found is None:
        return None
    alone = _one_row(cells, found.way.threads)
    wide = _one_row(cells, cores) if found.way.threads < cores else None
    pays = wide is not None and alone >= 1000 * LEAST_WIDE_S and wide <= WORTH_WIDENING * alone
    return Choice(found, pays, alone, wide, highest(_within(cells, latency_ms)))


def best(cells: Sequence[Cell], latency_ms: float | None) -> Cell | None:
    """The most rows a second within the limit; of equals fewest rows, then threads, then runs."""
    within = _within(cells, latency_ms)
    if not within:
        return None
    least = EQUAL * highest(within).rows_per_s
    equals = [cell for cell in within if cell.rows_per_s >= least]
    return min(equals, key=lambda cell: (cell.rows, cell.way.threads, cell.way.runs))


def highest(cells: Sequence[Cell]) -> Cell:
    """The most rows a second, whatever they take."""
    return max(cells, key=lambda cell: cell.rows_per_s)


def nearest(cells: Sequence[Cell]) -> Cell:
    """The quickest to reply."""
    return min(cells, key=lambda cell: cell.reply_ms)


def _within(cells: Sequence[Cell], latency_ms: float | None) -> list[Cell]:
    return [cell for cell in cells if latency_ms is None or cell.reply_ms <= latency_ms]


def _one_row(cells: Sequence[Cell], threads: int) -> float:
    return next(cell.p50_ms for cell in cells if cell.way == Way(threads, 1) and cell.rows == 1)
