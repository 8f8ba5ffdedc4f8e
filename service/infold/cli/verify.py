"""`infold verify`: prove that two files compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from infold.cli.options import (
    CustomObjects,
    From,
    Inputs,
    Json,
    Outputs,
    Quiet,
    Samples,
    Shapes,
    SignatureName,
    Source,
    Tag,
    TrainingFlag,
    Unsafe,
    Weights,
    sampling,
    source_options,
)
from infold.cli.progress import progress_line
from infold.cli.tables import proof_table

__all__ = ["command"]


def command(
    unfolded: Source,
    folded: Annotated[Path, typer.Argument(help="The file that should compute the same.")],
    samples: Samples = None,
    shape: Shapes = None,
    from_: From = None,
    weights: Weights = None,
    custom_objects: CustomObjects = None,
    signature: SignatureName = None,
    tag: Tag = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    training_flag: TrainingFlag = None,
    unsafe: Unsafe = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run both side by side and compare all outputs, and every folded norm that both still show."""
    from infold.convert import comparison_json, proof_json, verify

    options = source_options(
        from_, custom_objects, unsafe, signature, tag, inputs, outputs, training_flag, weights
    )
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
