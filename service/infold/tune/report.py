"""What tuning found: rows, a sentence, CSV, a chart."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infold.bench.plot import Axis, Chart, Point, Series, draw
from infold.bench.words import ms, rate
from infold.tune.choice import EQUAL, Choice, best, highest, nearest
from infold.tune.ways import Cell, counted

__all__ = ["Report"]

COLUMNS = (
    "version,precision,runs_at_once,threads,rows,rows_per_s,share_of_best,p50_ms,p99_ms,runs_timed,spread"
)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured of one model.

    Attributes:
        subject: The model, as the user named it.
        version: The one that the plan is for.
        cores: That were shared out.
        latency_ms: What a reply may take; None asked for throughput alone.
        precisions: Stored types of each version.
        cells: In the order they were measured.
        choice: The best plan; None where none is within the limit.
        notes: What a reader should know, a clause each.
    """

    subject: str
    version: int
    cores: int
    latency_ms: float | None
    precisions: Mapping[int, str]
    cells: tuple[Cell, ...]
    choice: Choice | None
    notes: tuple[str, ...] = ()

    @property
    def own(self) -> list[Cell]:
        """Cells of the version that the plan is for."""
        return [cell for cell in self.cells if cell.version == self.version]

    def share(self, cell: Cell) -> float:
        """Its rows a second as a share of the most."""
        return cell.rows_per_s / highest(self.cells).rows_per_s

    def title(self) -> str:
        """What was measured, and on what."""
        return f"{self.subject}, version {self.version} ({self.precisions[self.version]}), on {self._on}"

    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        reply = [] if self.latency_ms is None else ["p50+p99"]
        return ["way", "rows", "rows/s", "p50 ms", "p99 ms", *reply, "of best", "best for"]

    def rows(self) -> list[list[str]]:
        """Cells of a table under `header`."""
        return [
            [
                self._name(cell),
                str(cell.rows),
                rate(cell.rows_per_s),
                ms(cell.p50_ms),
                ms(cell.p99_ms),
                *([] if self.latency_ms is None else [ms(cell.reply_ms)]),
                f"{self.share(cell):.2f}",
                ", ".join(self._best_for(cell)),
            ]
            for cell in self.cells
        ]

    def sentence(self) -> str:
        """The result in words."""
        if self.choice is None:
            near = nearest(self.own)
            return (
                f"no plan keeps a reply within {self._limit}: {_plan(near)} comes nearest, "
                f"with {ms(near.reply_ms)} ms for a slow run and the wait for one"
            )
        cell = self.choice.cell
        within = "" if self.latency_ms is None else f" for replies within {self._limit}"
        return f"best plan{within}: {_plan(cell)}, since {self._why()}; {self._alone()}"

    def beside(self) -> list[str]:
        """What the other versions would do, a sentence each."""
        sentences = []
        mine = best(self.own, self.latency_ms)
        for version in dict.fromkeys(cell.version for cell in self.cells if cell.version != self.version):
            found = best([cell for cell in self.cells if cell.version == version], self.latency_ms)
            name = f"version {version} ({self.precisions[version]})"
            if found is None:
                sentences.append(f"{name} has no plan within {self._limit} either")
                continue
            times = "" if mine is None else f", {found.rows_per_s / mine.rows_per_s:.2f} times as many"
            sentences.append(f"{name}: {rate(found.rows_per_s)} rows/s{times}, with {_plan(found)}")
        return sentences

    def json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        chosen = None
        if self.choice is not None:
            cell = self.choice.cell
            chosen = {
                "threads": cell.way.threads,
                "runs_at_once": cell.way.runs,
                "rows": cell.rows,
                "is_wide": self.choice.is_wide,
                "rows_per_s": cell.rows_per_s,
            }
        return {
            "subject": self.subject,
            "version": self.version,
            "cores": self.cores,
            "latency_ms": self.latency_ms,
            "best": chosen,
            "cells": [dict(zip(COLUMNS.split(","), self._values(cell), strict=True)) for cell in self.cells],
            "notes": list(self.notes),
        }

    def csv(self) -> str:
        """The rows under COLUMNS."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS.split(","))
        writer.writerows(self._values(cell) for cell in self.cells)
        return text.getvalue()

    def svg(self) -> str:
        """Latency of a run against throughput, a line for each way; broken lines for other versions."""
        ways = list(dict.fromkeys(cell.way for cell in self.cells))
        series = []
        for version in self.precisions:
            for colour, way in enumerate(ways):
                cells = [cell for cell in self.cells if (cell.version, cell.way) == (version, way)]
                if cells:
                    points = [
                        Point(cell.rows_per_s, cell.p99_ms, f"{self._name(cell)}: {_plan(cell)}")
                        for cell in cells
                    ]
                    series.append(Series(self._name(cells[0]), points, colour, version != self.version))
        marks = [(self.choice.cell.rows_per_s, "best plan")] if self.choice else []
        limit = f", replies within {self._limit}" if self.latency_ms is not None else ""
        title = f"{self.title()}{limit}"
        axes = Axis("rows per second"), Axis("p99 of a run in ms (logarithmic)", is_log=True)
        return draw(Chart(title, *axes, series, marks))

    @property
    def _on(self) -> str:
        return counted(self.cores, "core")

    @property
    def _limit(self) -> str:
        return f"{self.latency_ms:g} ms"

    def _name(self, cell: Cell) -> str:
        if len(self.precisions) == 1:
            return str(cell.way)
        return f"{cell.version} ({self.precisions[cell.version]}): {cell.way}"

    def _best_for(self, cell: Cell) -> list[str]:
        found = ["rows/s"] if cell is best(self.own, None) else []
        if self.latency_ms is not None and self.choice is not None and cell is self.choice.cell:
            found.append(self._limit)
        return found

    def _why(self) -> str:
        assert self.choice is not None
        cell, top = self.choice.cell, self.choice.top
        if cell is top:
            reason = f"{rate(cell.rows_per_s)} rows/s are the most"
        else:
            less = (
                "rows"
                if cell.rows < top.rows
                else "threads"
                if cell.way.threads < top.way.threads
                else "runs"
            )
            reason = (
                f"{rate(cell.rows_per_s)} rows/s are within {1 - EQUAL:.0%} of the most "
                f"({rate(top.rows_per_s)}, {_plan(top)}) with fewer {less}"
            )
        if self.latency_ms is None:
            return reason
        return f"{reason} within the limit, {ms(cell.reply_ms)} ms for a slow run and the wait for one"

    def _alone(self) -> str:
        assert self.choice is not None
        choice, cores = self.choice, self._on
        if choice.wide_ms is None:
            return f"one row alone takes {ms(choice.alone_ms)} ms"
        if choice.is_wide:
            return (
                f"a request that is alone gets all {cores}, which takes {ms(choice.wide_ms)} ms a row "
                f"instead of {ms(choice.alone_ms)}"
            )
        return (
            f"one row alone takes {ms(choice.alone_ms)} ms, "
            f"and {ms(choice.wide_ms)} on all {cores}, which is no reason for a second session"
        )

    def _values(self, cell: Cell) -> list[Any]:
        return [
            cell.version,
            self.precisions[cell.version],
            cell.way.runs,
            cell.way.threads,
            cell.rows,
            round(cell.rows_per_s, 3),
            round(self.share(cell), 4),
            round(cell.p50_ms, 4),
            round(cell.p99_ms, 4),
            cell.runs,
            round(cell.spread, 4),
        ]


def _plan(cell: Cell) -> str:
    rows = "1 row" if cell.rows == 1 else f"up to {cell.rows:,} rows"
    at_once = " at once" if cell.way.runs > 1 else ""
    return f"{counted(cell.way.runs, 'run')}{at_once}, {counted(cell.way.threads, 'thread')} and {rows} each"
