"""`infold verify`: prove that two files compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from infold.cli.options import Json, Quiet, Samples, Shapes, Source, sampling, takes_source
from infold.cli.progress import progress_line
from infold.cli.tables import proof_table

__all__ = ["command"]


@takes_source
def command(
    unfolded: Source,
    folded: Annotated[Path, typer.Argument(help="The file that should compute the same.")],
    samples: Samples = None,
    shape: Shapes = None,
    options: Any = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run both side by side and compare all outputs, and every folded norm that both still show."""
    from infold.convert import comparison_json, proof_json, verify

    with progress_line(quiet) as progress:
        _, proof = verify(unfolded, folded, sampling(samples, shape), options=options, progress=progress)
    if as_json:
        sites = [
            {"site": each.site, "in": each.decision.where or None, **comparison_json(each.comparison)}
            for each in proof.sites
        ]
        facts = {**proof_json(proof), "passed": proof.passed, "sites": sites}
        print(json.dumps(facts, indent=2))
    elif not quiet:
        print(proof_table(proof))
        print(f"oracle: {proof.oracle}; {proof.rows} samples")
        print("equal within rounding" if proof.passed else proof.failure())
    if not proof.passed:
        raise typer.Exit(1)
