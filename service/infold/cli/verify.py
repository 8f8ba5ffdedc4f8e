"""`infold verify`: prove that two files compute the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from infold.cli.options import Json, Quiet, Samples, Shapes, sampling
from infold.cli.tables import proof_table

__all__ = ["command"]


def command(
    unfolded: Annotated[Path, typer.Argument(help="The original ONNX file.")],
    folded: Annotated[Path, typer.Argument(help="The file that should compute the same.")],
    samples: Samples = None,
    shape: Shapes = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run both side by side and compare all outputs, and every folded norm that both still show."""
    from infold.convert import verify

    _, proof = verify(unfolded, folded, sampling(samples, shape))
    if as_json:
        facts = {
            "passed": proof.passed,
            "oracle": proof.oracle,
            "samples": proof.rows,
            "outputs": [asdict(each) for each in proof.outputs],
            "sites": [{"site": each.site, **asdict(each.comparison)} for each in proof.sites],
        }
        print(json.dumps(facts, indent=2))
    elif not quiet:
        print(proof_table(proof))
        print(f"oracle: {proof.oracle}; {proof.rows} samples")
        print("equal within rounding" if proof.passed else proof.failure())
    if not proof.passed:
        raise typer.Exit(1)
