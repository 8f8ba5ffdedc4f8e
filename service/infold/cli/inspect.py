"""`infold inspect`: what a model's norms hold, and what looks wrong about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from infold.cli.options import Json, Quiet, Samples, Shapes, Source, sampling, takes_source
from infold.cli.progress import progress_line
from infold.cli.tables import inspect_table

__all__ = ["command"]


@takes_source
def command(
    source: Source,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="Samples to hold the moving statistics against, as `reestimate` takes."
        ),
    ] = None,
    samples: Samples = None,
    shape: Shapes = None,
    options: Any = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show every norm: trained parameters, effective scale and shift, and whether it would fold."""
    from infold.convert import inspect

    with progress_line(quiet) as progress:
        found = inspect(
            source, sampling(samples, shape), calibration=calibration, options=options, progress=progress
        )
    if as_json:
        facts = {
            "model": Path(source).name,
            "norms": [view.json() for view in found.views],
            "notes": list(found.notes),
        }
        print(json.dumps(facts, indent=2))
    elif not quiet:
        for note in found.notes:
            print(f"note: {note}")
        print(inspect_table(found.views) if found.views else "no norms found")
