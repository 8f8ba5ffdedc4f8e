"""`infold inspect`: what a model's norms hold, and what looks wrong about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from infold.cli.options import Json, Quiet
from infold.cli.tables import inspect_table

__all__ = ["command"]


def command(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show every norm: trained parameters, effective scale and shift, and whether it would fold."""
    from infold.convert import inspect

    views = inspect(model)
    if as_json:
        print(json.dumps({"model": model.name, "norms": [view.json() for view in views]}, indent=2))
    elif not quiet:
        print(inspect_table(views) if views else "no norms found")
