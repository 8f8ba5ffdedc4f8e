"""`infold tune`: the best plan for a model on this machine, measured and written down."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from infold.cli.options import Json, Quiet, Shapes, sampling
from infold.cli.progress import progress_line
from infold.cli.tables import numbers_table
from infold.cli.targets import Csv, Plot, check_targets, write_report

__all__ = ["command"]


def command(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A model repository with one model, a model's folder in one, a version's folder, "
            "or an .onnx file.",
        ),
    ],
    latency_ms: Annotated[
        float | None,
        typer.Option(
            metavar="P99",
            help="What a reply may take in milliseconds; by default only throughput counts.",
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the plan into the model's model.toml.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Seconds of each measurement, in three rounds.")] = 1.0,
    samples: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Run on these inputs, as `infold convert` takes them."),
    ] = None,
    shape: Shapes = None,
    csv: Csv = None,
    plot: Plot = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure a model on the CPU: threads, runs at once and rows of a run; name the best plan.

    Other versions of the model are measured beside it. Without a plan within --latency-ms the exit code
    is 1, and nothing is written.
    """
    from infold.runtime import Cache
    from infold.settings import Settings
    from infold.tune import Wish, check_writable, find, tune, write_plan

    sampled = sampling(samples, shape)
    wish = Wish(latency_ms, seconds, sampled.file, sampled.shapes)
    wish.check()
    subject = find(model)
    if write:
        check_writable(subject)
    check_targets(csv, plot)
    with contextlib.closing(Cache(Settings.read().cache_folder)) as cache, progress_line(quiet) as progress:
        report = tune(subject, wish, cache, progress)
    write_report(report, csv, plot)
    if as_json:
        print(json.dumps(report.json(), indent=2))
    elif not quiet:
        print(report.title())
        print(numbers_table(report.header(), report.rows()))
        for note in (*report.notes, *report.beside()):
            print(f"note: {note}")
        print(report.sentence())
    if report.choice is None:
        if quiet or as_json:
            print(f"infold: {report.sentence()}", file=sys.stderr)
        raise typer.Exit(1)
    if write:
        written = write_plan(subject, report.choice)
        if not quiet and not as_json:
            for line in written:
                print(line)
