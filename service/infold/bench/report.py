"""What a bench found: rows, a sentence, CSV, a chart."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

from infold.bench.outcomes import Load, Loop
from infold.bench.plot import Axis, Chart, Point, Series, draw
from infold.bench.schedule import knee
from infold.bench.words import ms, rate

__all__ = ["Report"]

COLUMNS = "loop,load,answers_per_s,share_of_bare,p50_ms,p90_ms,p99_ms,max_ms,refused,failed,wrong"
# The client sent one in a hundred requests later than this: it was itself short of the processor.
LATE_MS = 2.0
# A limit more than this many times the best row would squeeze all rows into a corner of the chart.
FAR = 2.5


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one bench found.

    Attributes:
        subject: The model, and where it was asked.
        loads: Rows in the order they were measured; the bare ones come first.
        notes: What a reader should know, a clause each.
    """

    subject: str
    loads: tuple[Load, ...]
    notes: tuple[str, ...] = ()

    @property
    def limit(self) -> float | None:
        """Answers a second of onnxruntime alone, the better of both ways; None if not measured."""
        return max((load.answers_per_s for load in self.of(Loop.BARE)), default=None)

    @property
    def wrong(self) -> int:
        """Wrong answers in all."""
        return sum(load.wrong for load in self.loads)

    @property
    def served(self) -> list[Load]:
        """Rows of the server."""
        return [load for load in self.loads if load.loop is not Loop.BARE]

    def of(self, loop: Loop) -> list[Load]:
        """Rows of one kind."""
        return [load for load in self.loads if load.loop is loop]

    def share(self, load: Load) -> float | None:
        """Its answers as a share of the limit."""
        return load.answers_per_s / self.limit if self.limit else None

    def sentence(self) -> str:
        """The result in words."""
        # A closed loop shows a server's peak; an open one may end below it.
        best = max(self.of(Loop.CLOSED) or self.served, key=lambda load: load.answers_per_s)
        share = self.share(best)
        of_bare = "" if share is None else f" ({share:.2f} of bare onnxruntime)"
        text = f"peak {rate(best.answers_per_s)} answers/s {_at(best)}{of_bare}"
        opened = sorted(self.of(Loop.OPEN), key=lambda load: load.load)
        if not opened:
            return text
        found = knee(opened)
        if found.rate is None:
            return f"{text}; every rate is beyond the knee: already at {rate(opened[0].load)}/s {found.why}"
        if found.why is None:
            return f"{text}; no knee up to {rate(found.rate)}/s"
        return f"{text}; the knee is near {rate(found.rate)}/s: beyond it {found.why}"

    def rows(self) -> list[list[str]]:
        """Cells of a table under `header`."""
        rows = []
        for load in self.loads:
            share = self.share(load)
            times = load.latencies
            counts = (load.refused, load.failed, load.wrong)
            rows.append(
                [
                    label(load),
                    rate(load.answers_per_s),
                    *([] if self.limit is None else ["-" if share is None else f"{share:.2f}"]),
                    *(ms(each) for each in (times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms)),
                    *("-" if load.loop is Loop.BARE else str(count) for count in counts),
                ]
            )
        return rows

    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        share = [] if self.limit is None else ["of bare"]
        return [
            "load",
            "answers/s",
            *share,
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "max ms",
            "refused",
            "failed",
            "wrong",
        ]

    def json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        facts = [dict(zip(COLUMNS.split(","), self._values(load), strict=True)) for load in self.loads]
        opened = sorted(self.of(Loop.OPEN), key=lambda load: load.load)
        return {
            "subject": self.subject,
            "loads": facts,
            "knee_per_s": knee(opened).rate if opened else None,
            "notes": list(self.notes),
        }

    def csv(self) -> str:
        """The rows under COLUMNS; empty where there is no value."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS.split(","))
        for load in self.loads:
            writer.writerow(["" if value is None else value for value in self._values(load)])
        return text.getvalue()

    def svg(self) -> str:
        """Latency against throughput, one colour a loop, broken lines for p99."""
        series = []
        for colour, loop in enumerate((Loop.CLOSED, Loop.OPEN)):
            for percentile in ("p50", "p99"):
                points = [
                    Point(
                        load.answers_per_s,
                        getattr(load.latencies, f"{percentile}_ms"),
                        f"{label(load)}: {rate(load.answers_per_s)} answers/s, "
                        f"{percentile} {ms(getattr(load.latencies, f'{percentile}_ms'))} ms",
                    )
                    for load in self.of(loop)
                ]
                if points:
                    series.append(Series(f"{loop} loop {percentile}", points, colour, percentile == "p99"))
        title, marks = self.subject, []
        if self.limit is not None:
            title += f"; bare onnxruntime: {rate(self.limit)}/s"
            if self.limit <= FAR * max((load.answers_per_s for load in self.served), default=0.0):
                marks.append((self.limit, "bare onnxruntime"))
        axes = Axis("answers per second"), Axis("latency in ms (logarithmic)", is_log=True)
        return draw(Chart(title, *axes, series, marks))

    def _values(self, load: Load) -> list[Any]:
        times, share = load.latencies, self.share(load)
        return [
            str(load.loop),
            float(f"{load.load:.6g}"),
            round(load.answers_per_s, 3),
            None if share is None else round(share, 4),
            *(
                None if math.isnan(each) else round(each, 4)
                for each in (times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms)
            ),
            *(load.refused, load.failed, load.wrong),
        ]


def label(load: Load) -> str:
    """What a row stands for."""
    if load.loop is Loop.OPEN:
        return f"open, {rate(load.load)}/s"
    word = "caller" if load.loop is Loop.CLOSED else "thread"
    return f"{load.loop}, {load.load:.0f} {word}{'' if load.load == 1 else 's'}"


def lateness(loads: list[Load]) -> str | None:
    """A warning if the client was too slow for its own schedule, else None."""
    worst = max(loads, key=lambda load: load.late_ms, default=None)
    if worst is None or worst.late_ms < LATE_MS:
        return None
    return (
        f"at {label(worst)} this client itself sent 1 in 100 requests {worst.late_ms:.0f} ms late or more: "
        "latencies there are partly its own"
    )


def _at(load: Load) -> str:
    return f"at {rate(load.load)}/s" if load.loop is Loop.OPEN else f"at concurrency {load.load:.0f}"
