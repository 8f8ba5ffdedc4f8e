"""The unfolded model, kept beside the folded one: what a server holds its answers against."""

from __future__ import annotations

from pathlib import Path

from infold.convert.comparison import compare_output
from infold.convert.frontends.onnx import Source
from infold.convert.proof import Proof
from infold.convert.writing import write_model
from infold.errors import ProofError, SessionError
from infold.runtime import Run, run_isolated
from infold.runtime.config_edit import set_keys

__all__ = ["FILE", "keep_unfolded"]

FILE = "unfolded.onnx"


def keep_unfolded(source: Source, proof: Proof | None, folder: Path) -> None:
    """The unfolded model lies in a version's folder, whose `model.toml` names it as the shadow.

    Args:
        source: What was folded.
        proof: What it answers, to see that what was written is the same model; None skips that.
        folder: The version's.

    Raises:
        ProofError: What was written answers otherwise.
        TargetError, ConfigError: `model.toml` cannot be written.
    """
    target = folder / FILE
    # Read anew: of the model that was folded, weights that lie outside are still looked at.
    write_model(source, source.ir(), "unfolded", target)
    if proof is not None and proof.oracle.startswith("onnxruntime"):
        try:
            (answers,) = run_isolated([Run("unfolded", target, proof.samples)])
        except SessionError as failure:
            raise ProofError(f"the unfolded model as written does not run: {failure.detail}") from failure
        for name, wanted in proof.results.items():
            found = compare_output(name, wanted, answers[name], 0.0)
            if not found.passed:
                raise ProofError(
                    f"the unfolded model as written is off by {found.max_abs:.3g} at '{name}'", name
                )
    set_keys(folder / "model.toml", {"shadow": {"file": FILE}})
