"""`infold reestimate`: moving statistics taken anew from the user's own samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infold.cli.options import Json, Quiet, Source, takes_source
from infold.cli.progress import progress_line
from infold.cli.tables import moved_table

if TYPE_CHECKING:
    from infold.convert import Momentum

__all__ = ["command"]


@takes_source
def command(
    source: Source,
    destination: Annotated[
        Path, typer.Argument(metavar="DEST.onnx", help="Where the model goes: unfolded, to be converted.")
    ],
    calibration: Annotated[
        Path, typer.Option(metavar="FILE.npz", help="Samples: one array an input, named like it.")
    ],
    momentum: Annotated[
        str | None,
        typer.Option(
            metavar="keras:0.99|pytorch:0.1",
            help="Go on with a moving average over batches, from the trained statistics on, in that "
            "framework's convention. Default: exact moments over all samples together.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows of one batch.")] = 32,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="ARRAY",
            help="An array of FILE.npz of shape [rows] or [rows, positions]: what is 0 does not count.",
        ),
    ] = None,
    options: Any = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Recompute every norm's moving mean and variance from samples, each norm fed by those before it.

    For statistics that never settled, and for data that is no longer what the network was
    trained on. Gamma, beta and all weights stay.
    """
    from infold.convert import moved_json, reestimate

    with progress_line(quiet) as progress:
        done = reestimate(
            source,
            destination,
            calibration,
            momentum=_momentum(momentum),
            batch_rows=batch,
            mask=mask,
            options=options,
            progress=progress,
        )
    if as_json:
        print(json.dumps(moved_json(done), indent=2))
    elif not quiet:
        print(moved_table(done.moved))
        for lost in done.left:
            print(f"kept its statistics: {lost.name}: {lost.why}")
        for note in done.notes:
            print(f"note: {note}")
        norms = "1 norm" if len(done.moved) == 1 else f"{len(done.moved)} norms"
        print(f"{norms} re-estimated on {done.rows} samples")
        print(f"wrote {done.destination}, unfolded: infold convert {done.destination} folded.onnx")


def _momentum(text: str | None) -> Momentum | None:
    """A momentum with its convention, of the form `keras:0.99`.

    Raises:
        typer.BadParameter: It is not of that form, or not between 0 and 1.
    """
    from infold.convert import Convention, Momentum

    if text is None:
        return None
    framework, _, number = text.partition(":")
    conventions = {
        "keras": Convention.OF_THE_OLD,
        "tensorflow": Convention.OF_THE_OLD,
        "pytorch": Convention.OF_THE_NEW,
    }
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if framework not in conventions or not 0 <= value <= 1:
        raise typer.BadParameter(
            f"{text!r} is not of the form keras:0.99 or pytorch:0.1", param_hint="--momentum"
        )
    return Momentum(value, conventions[framework])
