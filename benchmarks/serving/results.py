"""What was measured, round by round, and its medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from limit import Bare
from measure import Measured


class Cell(NamedTuple):
    """What a row is about."""

    network: str
    body: str
    concurrency: int


@dataclass(frozen=True)
class Round:
    """One server in one cell, once, beside the bare loop just before and just after."""

    answers_per_s: float
    share: float
    answers_per_cpu_s: float
    cpu_share: float
    p50_ms: float
    p99_ms: float
    bare_wide_p50_ms: float
    pss_mib: float
    ready_s: float
    others_cores: float
    wrong: int
    errors: int
    refused: int

    @classmethod
    def of(cls, measured: Measured, before: Bare, after: Bare, ready_s: float) -> Round:
        """The figures of a spell of load."""

        def mean(of: Callable[[Bare], float]) -> float:
            return (of(before) + of(after)) / 2

        load = measured.load
        return cls(
            answers_per_s=load.answers_per_s,
            share=load.answers_per_s / mean(lambda each: each.images_per_s),
            answers_per_cpu_s=measured.answers_per_cpu_s,
            cpu_share=measured.answers_per_cpu_s / mean(lambda each: each.images_per_cpu_s),
            p50_ms=load.p50_ms if load.p50_ms is not None else float("nan"),
            p99_ms=load.p99_ms if load.p99_ms is not None else float("nan"),
            bare_wide_p50_ms=mean(lambda each: each.wide_p50_ms),
            pss_mib=measured.pss_mib,
            ready_s=ready_s,
            others_cores=measured.usage.others_cores,
            wrong=load.wrong,
            errors=load.errors,
            refused=load.refused,
        )


@dataclass
class Row:
    """One server in one cell."""

    cell: Cell
    server: str
    version: str = ""
    note: str = ""
    rounds: list[Round] = field(default_factory=list)
    reason: str = ""  # why there are no rounds, or fewer
    wrong_at_start: int = 0

    def values(self, name: str) -> list[float]:
        """One figure of all rounds."""
        return [float(getattr(each, name)) for each in self.rounds]

    def median(self, name: str) -> float:
        """One figure."""
        return statistics.median(self.values(name))

    def total(self, name: str) -> int:
        """A count over all rounds."""
        return int(sum(self.values(name)))


@dataclass(frozen=True)
class Special:
    """A measurement that is no cell."""

    name: str
    server: str
    value: float | None  # the figure a target is about
    words: str  # all figures
    wrong: int = 0


@dataclass
class Results:
    """Everything of one run."""

    rows: list[Row] = field(default_factory=list)
    bare: dict[str, list[Bare]] = field(default_factory=dict)
    specials: list[Special] = field(default_factory=list)

    def row(self, cell: Cell, server: str) -> Row | None:
        """The row, if there are figures in it."""
        found = (each for each in self.rows if (each.cell, each.server) == (cell, server) and each.rounds)
        return next(found, None)

    def figure(self, network: str, body: str, concurrency: int, server: str, name: str) -> float | None:
        """The median of a figure, if it was measured."""
        row = self.row(Cell(network, body, concurrency), server)
        return row.median(name) if row else None

    def special(self, name: str, server: str) -> float | None:
        """The figure of a special row, if it was measured."""
        mine = [each.value for each in self.specials if (each.name, each.server) == (name, server)]
        return next((each for each in mine if each is not None), None)

    def wrong(self) -> int:
        """Wrong answers of all servers."""
        of_rows = sum(row.total("wrong") + row.wrong_at_start for row in self.rows)
        return of_rows + sum(each.wrong for each in self.specials)
