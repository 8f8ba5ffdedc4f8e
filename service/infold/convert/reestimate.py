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

from infold.convert.calibration import Calibration, batch_moments, first_rows
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
# How often to go through norms that feed themselves, and what counts as standing still, in deviations.
SWEEPS, SETTLED, TINY = 20, 1e-5, 1e-9


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
        notes: What the user should know, a sentence each.
    """

    destination: Path
    moved: tuple[Moved, ...]
    left: tuple[Lost, ...]
    rows: int
    notes: tuple[str, ...] = ()


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
    with (
        kept_child(),
        first_rows(calibration, mask) as rows,
        open_source(source, options, rows, progress=progress) as opened,
    ):
        layers: tuple[Layer, ...] = ()
        if opened.framework is not None:
            opened, layers, _ = find_layers(opened)
        model = opened.ir()
        places, lost = find_places(model, opened.framework, layers)
        if not places:
            why = f"; '{lost[0].name}': {lost[0].why}" if lost else ""
            raise SourceError(source, f"holds no norm whose statistics can be re-estimated{why}")
        samples = Calibration.read(calibration, opened, batch_rows, mask)
        sweep = _Sweep(model, opened.folder, samples, momentum, progress)
        notes = [*samples.notes, *sweep.until_settled(places)]
        with staging(destination.parent) as stage:
            outcome = f"statistics of {len(places)} norms from {samples.rows} samples"
            write_model(opened, model, outcome, stage / destination.name)
            for made in sorted(stage.iterdir(), key=lambda path: path.name == destination.name):
                os.replace(made, destination.parent / made.name)  # the model last
    moved = tuple(
        Moved(
            place.name, place.norm.epsilon, place.statistics, sweep.held[place.name], sweep.counts[place.name]
        )
        for place in places
    )
    return Reestimation(destination, moved, lost, samples.rows, tuple(dict.fromkeys(notes)))


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
        "notes": list(done.notes),
    }


def _range(numbers: F64) -> list[float | str]:
    """Smallest and largest; JSON has no NaN, so what is not finite is written as a word."""
    pair = (float(numbers.min(initial=np.inf)), float(numbers.max(initial=-np.inf)))
    return [number if np.isfinite(number) else str(number) for number in pair]


def _depths(places: Sequence[Place]) -> dict[str, int]:
    """How many norms, itself included, stand on the longest way to each place, by its name."""
    depth: dict[ir.Node, int] = {}
    ends = {place.nodes[-1] for place in places}
    graph = places[0].nodes[0].graph
    assert graph is not None
    for node in graph:  # in topological order
        before = max((depth.get(each, 0) for each in node.predecessors()), default=0)
        depth[node] = before + (node in ends)
    return {place.name: depth[place.nodes[-1]] for place in places}


def _levels(places: Sequence[Place]) -> list[list[Place]]:
    """Norms that see no other norm's output come first, then those that see only theirs, and so on.

    All uses of a shared norm are done together, at the level of the last.
    """
    depths = _depths(places)
    level_of: dict[int, int] = {}
    for place in places:
        level_of[id(place.norm)] = max(level_of.get(id(place.norm), 0), depths[place.name])
    levels: dict[int, list[Place]] = {}
    for place in places:
        levels.setdefault(level_of[id(place.norm)], []).append(place)
    return [levels[level] for level in sorted(levels)]


def _feeds_itself(places: Sequence[Place]) -> str | None:
    """Name of a norm that is used again behind norms that see its output."""
    depths = _depths(places)
    first: dict[int, Place] = {}
    for place in places:
        seen = first.setdefault(id(place.norm), place)
        if depths[seen.name] != depths[place.name]:
            return seen.name
    return None


class _Sweep:
    """Goes through all norms from the inputs on, once or until nothing moves any more.

    Attributes:
        held: The statistics that each place has by now, by its name.
        counts: Numbers seen in each of its channels.
    """

    def __init__(
        self,
        model: ir.Model,
        folder: Path,
        samples: Calibration,
        momentum: Momentum | None,
        progress: Progress | None,
    ) -> None:
        self._model = model
        self._folder = folder
        self._samples = samples
        self._momentum = momentum
        self._progress = progress
        self.held: dict[str, Statistics] = {}
        self.counts: dict[str, int] = {}

    def until_settled(self, places: Sequence[Place]) -> list[str]:
        """Re-estimate and write every norm; what the user should know of it."""
        again = _feeds_itself(places)
        for number in range(1 if again is None or self._momentum is not None else SWEEPS):
            before = dict(self.held)
            done: dict[str, Place] = {}
            levels = _levels(places)
            for index, level in enumerate(levels):
                if self._progress is not None:
                    self._progress(f"sweep {number + 1}, level {index + 1} of {len(levels)}", 0.0)
                done |= self._settle(level)
            places = [done[place.name] for place in places]
            if before and all(_near(before[name], held) for name, held in self.held.items()):
                return []
        if again is None:
            return []
        return [
            f"'{again}' sees data that its own statistics have shaped, being used more than once: "
            + ("one pass of a moving average cannot settle that" if self._momentum else "it has not settled")
        ]

    def _settle(self, level: Sequence[Place]) -> dict[str, Place]:
        """Re-estimate norms that do not depend on each other; where they stand afterwards."""
        held = {id(place.norm): place.statistics for place in level}
        total: dict[int, Moments] = {}
        for batch in batch_moments(self._model, self._folder, level, self._samples):
            for place in level:
                key, seen = id(place.norm), batch[place.name]
                total[key] = total[key].joined(seen) if key in total else seen
                if self._momentum is not None and seen.count:
                    held[key] = self._momentum.step(held[key], seen)
        editor = Editor(self._model, "/reestimated")
        after = {}
        for place in level:
            seen = total[id(place.norm)]
            if not seen.count:
                raise SamplesError(f"the mask leaves '{place.name}' no position to take statistics from")
            exact = Statistics(seen.mean, seen.variance)
            new = exact if self._momentum is None else held[id(place.norm)]
            output, written = place.nodes[-1].outputs[0].name, _written(place, new)
            editor.apply(Patch((Replacement(place.nodes, written),)))
            nodes = _nodes_behind(self._model.graph, output or "", len(written))
            data = nodes[0].inputs[0]
            assert data is not None
            after[place.name] = replace(place, nodes=nodes, data=data, statistics=new)
            self.held[place.name], self.counts[place.name] = new, seen.count
        return after


def _nodes_behind(graph: ir.Graph, output: str, count: int) -> tuple[ir.Node, ...]:
    """The last nodes of a chain, found by the name of what it gives."""
    node = next(node for node in graph for value in node.outputs if value.name == output)
    nodes = [node]
    while len(nodes) < count:
        value = nodes[0].inputs[0]
        assert value is not None
        before = value.producer()
        assert before is not None
        nodes.insert(0, before)
    return tuple(nodes)


def _near(old: Statistics, new: Statistics) -> bool:
    """Nothing has moved by what anybody would notice."""
    deviation = np.sqrt(new.variance) + TINY
    return bool(
        np.all(np.abs(new.mean - old.mean) <= SETTLED * deviation)
        and np.all(np.abs(np.sqrt(new.variance) - np.sqrt(old.variance)) <= SETTLED * deviation)
    )


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
