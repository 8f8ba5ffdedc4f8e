"""New moving statistics from the user's own samples, layer after layer.

The remedy for statistics that never settled and for data that has changed. A
norm's statistics shift what later norms see; so norms are done in topological
order, each fed by those already done.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from infold.convert.calibration import Calibration, batch_moments
from infold.convert.frontends.exported import Options
from infold.convert.frontends.isolated import Progress
from infold.convert.frontends.source import open_source
from infold.convert.layers import Layer, find_layers
from infold.convert.moments import Moments, Momentum, Statistics
from infold.convert.norms import Lost, Place, affine_of, find_places
from infold.convert.pipeline import staging
from infold.convert.writing import write_model
from infold.errors import SamplesError, SourceError, TargetError
from infold.fold.affine import F64
from infold.fold.linear import FoldedBias
from infold.fold.patch import PREVIOUS, Editor, NewConstant, NewNode, Patch, Replacement
from infold.runtime import kept_child

__all__ = ["Moved", "Reestimation", "moved_json", "reestimate"]

BATCH_ROWS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """How far the statistics of one norm have moved.

    Attributes:
        name: The layer.
        epsilon: Of the norm.
        before, after: Its old and its new statistics.
        count: Numbers seen in each channel.
    """

    name: str
    epsilon: float
    before: Statistics
    after: Statistics
    count: int

    @property
    def mean_shift(self) -> F64:
        """[C] change of the mean, in old standard deviations (epsilon included)."""
        shift: F64 = (self.after.mean - self.before.mean) / np.sqrt(self.before.variance + self.epsilon)
        return shift

    @property
    def variance_ratio(self) -> F64:
        """[C] new variance over old, epsilon included in both."""
        ratio: F64 = (self.after.variance + self.epsilon) / (self.before.variance + self.epsilon)
        return ratio


@dataclass(frozen=True, slots=True, eq=False)
class Reestimation:
    """What was done.

    Attributes:
        destination: The unfolded model with new statistics.
        moved: One a norm, in the order of the graph.
        left: Norms that kept what they had, and why.
        rows: Samples used.
    """

    destination: Path
    moved: tuple[Moved, ...]
    left: tuple[Lost, ...]
    rows: int


def reestimate(
    source: Path | str,
    destination: Path,
    calibration: Path,
    *,
    momentum: Momentum | None = None,
    batch_rows: int = BATCH_ROWS,
    mask: str | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Reestimation:
    """Write the model, unfolded, with moving statistics taken from samples.

    Args:
        source: Any source.
        destination: Where the ONNX file goes; convert it afterwards to fold it.
        calibration: `.npz` with arrays named like the model's inputs.
        momentum: Keep a moving average over batches from the trained statistics on; None
            takes the exact moments over all batches together.
        batch_rows: Rows of one batch, where the model's batch axis is open.
        mask: Name of an array in the calibration file of shape [rows] or [rows,
            positions...]: zeros do not count.
        options: How to read the source.
        progress: Told now and then what is being done.

    Raises:
        SourceError: It cannot be read, or none of its norms can be re-estimated.
        SamplesError: The calibration file does not fit the model.
        TargetError: The destination cannot be written.
        ProofError: The model does not run on the samples.
    """
    if destination.suffix != ".onnx" or destination.is_dir():
        raise TargetError(destination, "must be a file ending in .onnx")
    with kept_child(), open_source(source, options, progress=progress) as opened:
        layers: tuple[Layer, ...] = ()
        if opened.framework is not None:
            opened, layers, _ = find_layers(opened)
        model = opened.ir()
        places, lost = find_places(model, opened.framework, layers)
        if not places:
            why = f"; '{lost[0].name}': {lost[0].why}" if lost else ""
            raise SourceError(source, f"holds no norm whose statistics can be re-estimated{why}")
        samples = Calibration.read(calibration, opened, batch_rows, mask)
        moved: list[Moved] = []
        levels = _levels(places)
        for index, level in enumerate(levels):
            if progress is not None:
                progress(f"level {index + 1} of {len(levels)}", 0.0)
            moved += _settle(model, opened.folder, level, samples, momentum)
        with staging(destination.parent) as stage:
            outcome = f"{len(moved)} norms re-estimated on {samples.rows} samples"
            write_model(opened, model, outcome, stage / destination.name)
            for made in sorted(stage.iterdir(), key=lambda path: path.name == destination.name):
                os.replace(made, destination.parent / made.name)  # the model last
    order = {place.name: index for index, place in enumerate(places)}
    moved.sort(key=lambda each: order[each.name])
    return Reestimation(destination, tuple(moved), lost, samples.rows)


def moved_json(done: Reestimation) -> dict[str, Any]:
    """For machines: ranges as [smallest, largest] over a norm's channels."""
    return {
        "destination": done.destination.name,
        "samples": done.rows,
        "norms": [
            {
                "name": each.name,
                "channels": len(each.after.mean),
                "numbers_seen_in_each_channel": each.count,
                "mean_shift_in_standard_deviations": _range(each.mean_shift),
                "variance_ratio": _range(each.variance_ratio),
                "moving_mean": _range(each.after.mean),
                "moving_variance": _range(each.after.variance),
            }
            for each in done.moved
        ],
        "left": [{"name": each.name, "why": each.why} for each in done.left],
    }


def _range(numbers: F64) -> list[float | str]:
    """Smallest and largest; JSON has no NaN, so what is not finite is written as a word."""
    pair = (float(numbers.min(initial=np.inf)), float(numbers.max(initial=-np.inf)))
    return [number if np.isfinite(number) else str(number) for number in pair]


def _levels(places: Sequence[Place]) -> list[list[Place]]:
    """Norms that see no other norm's output come first, then those that see only theirs, and so on.

    All uses of a shared norm are done together, at the level of the last.
    """
    depth: dict[ir.Node, int] = {}
    ends = {place.nodes[-1] for place in places}
    graph = places[0].nodes[0].graph
    assert graph is not None
    for node in graph:  # in topological order
        before = max((depth.get(each, 0) for each in node.predecessors()), default=0)
        depth[node] = before + (node in ends)
    level_of: dict[int, int] = {}
    for place in places:
        level = depth[place.nodes[-1]]
        level_of[id(place.norm)] = max(level_of.get(id(place.norm), 0), level)
    levels: dict[int, list[Place]] = {}
    for place in places:
        levels.setdefault(level_of[id(place.norm)], []).append(place)
    return [levels[level] for level in sorted(levels)]


def _settle(
    model: ir.Model,
    folder: Path,
    level: Sequence[Place],
    samples: Calibration,
    momentum: Momentum | None,
) -> list[Moved]:
    """Re-estimate norms that do not depend on each other, and write them into the model."""
    held = {id(place.norm): place.statistics for place in level}
    total: dict[int, Moments] = {}
    for batch in batch_moments(model, folder, level, samples):
        for place in level:
            key, seen = id(place.norm), batch[place.name]
            total[key] = total[key].joined(seen) if key in total else seen
            if momentum is not None and seen.count:
                held[key] = momentum.step(held[key], seen)
    editor = Editor(model, "/reestimated")
    moved = []
    for place in level:
        seen = total[id(place.norm)]
        if not seen.count:
            raise SamplesError(f"the mask leaves '{place.name}' no position to take statistics from")
        exact = Statistics(seen.mean, seen.variance)
        after = exact if momentum is None else held[id(place.norm)]
        editor.apply(Patch((Replacement(place.nodes, _written(place, after)),)))
        moved.append(Moved(place.name, place.norm.epsilon, place.statistics, after, seen.count))
    return moved


def _written(place: Place, held: Statistics) -> tuple[NewNode, ...]:
    """A norm with new statistics, in the form it had."""
    last = place.nodes[-1]
    dtype = place.data.dtype or ir.DataType.FLOAT
    metadata = dict(last.metadata_props)
    if place.is_batch_normalization:
        inputs: list[ir.Value | NewConstant | None] = list(last.inputs)
        for index, numbers in ((3, held.mean), (4, held.variance)):
            old = last.inputs[index]
            kind = old.dtype if old is not None and old.dtype is not None else dtype
            inputs[index] = NewConstant(FoldedBias(numbers, kind), (old and old.name) or place.name)
        attributes = tuple(last.attributes.values())
        return (NewNode(last.op_type, tuple(inputs), last.name, attributes, metadata=metadata),)
    rank = len(place.data.shape) if place.data.shape is not None else place.axis + 1
    shape = [-1 if axis == place.axis else 1 for axis in range(rank)]
    scale, _ = affine_of(place.norm, held)
    nodes: list[NewNode] = []
    for op, numbers in (("Sub", held.mean), ("Mul", scale), ("Add", place.norm.beta)):
        constant = NewConstant(FoldedBias(numbers.reshape(shape), dtype), f"{place.name}.{op.lower()}")
        source = PREVIOUS if nodes else place.data
        nodes.append(NewNode(op, (source, constant), f"{place.name}/{op.lower()}"))
    return (*nodes[:-1], replace(nodes[-1], name=last.name, metadata=metadata))
