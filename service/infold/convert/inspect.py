"""What a model's norms hold: trained parameters, their effect, and what looks wrong about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.pipeline import fold_source
from infold.fold import Decision, Outcome, Reason
from infold.fold.affine import F64

__all__ = ["NormView", "inspect"]

FLOAT16_MAX = 65504.0


@dataclass(frozen=True, slots=True, eq=False)
class NormView:
    """One norm as a user sees it.

    Attributes:
        decision: What folding would make of it.
        warnings: One sentence each.
    """

    decision: Decision
    warnings: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """For machines: ranges as [smallest, largest], None where not recoverable."""
        decision, parameters, affine = self.decision, self.decision.parameters, self.decision.affine
        return {
            "name": decision.site,
            "spelling": decision.spelling,
            "channels": len(parameters.gamma) if parameters else (affine.channels if affine else None),
            "epsilon": parameters.epsilon if parameters else None,
            "gamma": _range(parameters.gamma) if parameters else None,
            "beta": _range(parameters.beta) if parameters else None,
            "moving_mean": _range(parameters.mean) if parameters else None,
            "moving_variance": _range(parameters.variance) if parameters else None,
            "scale": _range(affine.scale) if affine else None,
            "shift": _range(affine.shift) if affine else None,
            "producer": decision.producer,
            "would_fold": decision.outcome is Outcome.FOLDED,
            "into_or_why": decision.why,
            "at": decision.at,
            "warnings": list(self.warnings),
        }


def inspect(path: Path) -> tuple[NormView, ...]:
    """Look at every norm of an ONNX file.

    Raises:
        SourceError: The file cannot be used.
    """
    _, _, report = fold_source(onnx_frontend.load(path))
    return tuple(NormView(decision, tuple(_warnings(decision))) for decision in report.norms)


def _range(numbers: F64) -> list[float | str]:
    """Smallest and largest; JSON has no NaN, so what is not finite is written as a word."""
    pair = (float(numbers.min(initial=np.inf)), float(numbers.max(initial=-np.inf)))
    return [number if np.isfinite(number) else str(number) for number in pair]


def _warnings(decision: Decision) -> list[str]:
    found = []
    if any(refusal.reason is Reason.TRAINING_MODE for refusal in decision.refusals):
        found.append("in training mode: it uses the statistics of each batch, not the trained ones")
    parameters = decision.parameters
    if parameters is not None:
        mean, variance, epsilon = parameters.mean, parameters.variance, parameters.epsilon
        channels = len(mean)
        if (mean == 0).all() and (variance == 1).all():
            found.append(
                "moving statistics are still at their initial values (mean 0, variance 1): "
                "never trained, or the update ops never ran"
            )
        if (parameters.gamma == 1).all() and (parameters.beta == 0).all():
            found.append("gamma and beta are still at their initial values (1 and 0)")
        if count := int(np.count_nonzero(np.isnan(variance) | (variance < 0))):
            found.append(f"moving variance is negative or NaN on {count} of {channels} channels")
        if count := int(np.count_nonzero((variance >= 0) & (variance < epsilon))):
            found.append(
                f"moving variance is below epsilon ({epsilon:g}) on {count} of {channels} channels: "
                "epsilon, not the data, sets their scale"
            )
    affine = decision.affine
    if affine is not None:
        if count := int(np.count_nonzero(affine.scale == 0)):
            found.append(f"{count} of {affine.channels} channels are dead: their scale is 0")
        if (peak := float(np.abs([affine.scale, affine.shift]).max())) > FLOAT16_MAX:
            found.append(f"scale or shift reaches {peak:.3g}: float16 would overflow")
    return found
