"""Files that a measurement is written to besides the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Protocol

import typer

from infold.errors import TargetError

__all__ = ["Csv", "Plot", "check_targets", "write_report"]

Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE.csv", help="Also write the rows here.")]
Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.svg", help="Also draw latency against throughput.")
]


class Report(Protocol):
    """What was measured, in both forms."""

    def csv(self) -> str:
        """The rows, for programs."""

    def svg(self) -> str:
        """The chart."""


def check_targets(*paths: Path | None) -> None:
    """Fail before minutes of load, not after them.

    Raises:
        TargetError: A file cannot be written there.
    """
    for path in paths:
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise TargetError(path, "is a folder" if path.is_dir() else f"there is no folder {path.parent}")


def write_report(report: Report, csv: Path | None, plot: Path | None) -> None:
    """Write what was asked for, each file whole or not at all.

    Raises:
        TargetError: It cannot be written.
    """
    from infold.convert import write_text

    if csv is not None:
        write_text(csv, report.csv())
    if plot is not None:
        write_text(plot, report.svg())
