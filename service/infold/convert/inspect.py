"""What a model's norms hold: trained parameters, their effect, and what looks wrong about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infold.convert.calibration import Calibration, batch_moments, first_rows
from infold.convert.frontends.exported import Norm, Options
from infold.convert.frontends.isolated import Progress
from infold.convert.frontends.source import Source, open_source
from infold.convert.layers import Layer, find_layers
from infold.convert.moments import Moments, Settled, settled
from infold.convert.norms import Place, find_places, with_parameters
from infold.convert.pipeline import Sampling, fold_source
from infold.fold import Decision, Outcome, Reason
from infold.fold.affine import F64
from infold.runtime import kept_child

__all__ = ["Inspection", "NormView", "inspect"]

FLOAT16_MAX = 65504.0
BATCH_ROWS = 32
# Statistics that have come less far are told of.
SETTLED = 0.9
# Nor means that are further off than that, in deviations.
APART = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class NormView:
    """One norm as a user sees it.

    Attributes:
        decision: What folding would make of it.
        warnings: One sentence each.
        norm: What the framework knows of it; None for plain ONNX.
        settled: How far its statistics have come from their initial values to the moments of
            the calibration samples; None where not measured.
    """

    decision: Decision
    warnings: tuple[str, ...]
    norm: Norm | None = None
    settled: Settled | None = None

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
            "layer": decision.layer or None,
            "kind": self.norm.kind if self.norm else None,
            "momentum": self.norm.momentum if self.norm else None,
            "momentum_is_share_of_the": self.norm.convention.value if self.norm else None,
            "trainable": self.norm.trainable if self.norm else None,
            "settled": self.settled.share if self.settled else None,
            "mean_apart_in_standard_deviations": self.settled.apart if self.settled else None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """A whole model as a user sees it.

    Attributes:
        views: One a norm, in the order of the graph.
        notes: On the source, and on norms of the framework's that the graph does not show.
    """

    views: tuple[NormView, ...]
    notes: tuple[str, ...] = ()


def inspect(
    source: Path | str,
    sampling: Sampling | None = None,
    *,
    calibration: Path | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Look at every norm of a model.

    Args:
        source: An ONNX file, what a framework left on disk, or `package.module:factory`.
        sampling: Inputs for the framework to run on.
        calibration: `.npz` with samples to hold the moving statistics against.
        options: How to read the source.
        progress: Told now and then what is being done.

    Raises:
        SourceError: The source cannot be used.
        SamplesError: Samples do not fit the model.
        ProofError: The model does not run on the samples.
    """
    sampling = sampling or Sampling()
    few = nullcontext(sampling.file) if sampling.file or not calibration else first_rows(calibration)
    with (
        kept_child(),
        few as file,
        open_source(source, options, file, sampling.shapes, progress) as opened,
    ):
        layers: tuple[Layer, ...] = ()
        notes: list[str] = []
        if opened.framework is not None:
            opened, layers, _ = find_layers(opened)
        unfolded, _, report = fold_source(opened)
        norms: dict[str, Norm] = {}
        places, lost = find_places(unfolded, opened.framework, layers)
        if opened.framework is not None:
            norms = {layer.name: opened.framework.norms[layer.norm] for layer in layers}
            report = with_parameters(report, opened.framework, layers)
            notes += [*opened.framework.notes, *(f"'{each.name}': {each.why}" for each in lost)]
        seen = {} if calibration is None else _moments(opened, places, calibration)
    views = []
    for decision in report.norms:
        norm, place = norms.get(decision.layer), seen.get(decision.site)
        come = settled(place[0].statistics, place[1], place[0].norm.epsilon) if place else None
        warnings = [*_warnings(decision), *_unsettled(norm or (place[0].norm if place else None), come)]
        views.append(NormView(decision, tuple(warnings), norm, come))
    return Inspection(tuple(views), tuple(notes))


def _moments(source: Source, places: Sequence[Place], calibration: Path) -> dict[str, tuple[Place, Moments]]:
    """What each norm sees on the calibration samples, by its name."""
    samples = Calibration.read(calibration, source, BATCH_ROWS)
    total: dict[str, Moments] = {}
    for batch in batch_moments(source.ir(), source.folder, places, samples):
        for name, each in batch.items():
            total[name] = total[name].joined(each) if name in total else each
    return {place.name: (place, total[place.name]) for place in places}


def _unsettled(norm: Norm | None, found: Settled | None) -> Iterator[str]:
    """A sentence where the statistics are not those of the samples."""
    if found is None or found.share is None:
        return
    share = found.share
    if share < 0:
        words = "its statistics are further from these samples' moments than the initial values are"
    elif share <= SETTLED:
        words = f"its statistics have come {share:.0%} of the way from their initial values"
        words += " to these samples' moments"
        if norm is not None and norm.keeps is not None and 0 < norm.keeps < 1 and share > 0:
            steps = np.log1p(-share) / np.log(norm.keeps)
            words += f", as after {steps:.3g} training steps with momentum {norm.momentum:g}"
    elif found.apart > APART:
        words = f"its moving mean is {found.apart:.2g} standard deviations from these samples' mean"
        words += f" (channel {found.channel}): other data, or too few steps"
    else:
        return
    yield f"{words}; infold reestimate takes them from samples"


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
