"""Runs a model on calibration samples and gathers the moments of what its norms see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from infold.convert.frontends.onnx import Source
from infold.convert.moments import Moments, moments
from infold.convert.norms import Place
from infold.convert.samples import fit_samples, read_samples, signature_of
from infold.errors import ProofError, SamplesError, SessionError, SourceError
from infold.runtime import Run, run_isolated
from infold.tensors import Array, Tensors

__all__ = ["Calibration", "batch_moments", "first_rows"]

# Rows that a framework is shown.
ROWS = 4
# Batches that one child process runs before its results are taken in.
BATCHES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Samples to gather statistics from.

    Attributes:
        samples: Inputs by name.
        rows: Of all samples.
        batch_rows: Rows of one batch.
        mask: Which rows, or positions of rows, count; None counts all.
        notes: What the user should know, a sentence each.
    """

    samples: Tensors
    rows: int
    batch_rows: int
    mask: Array | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path, source: Source, batch_rows: int, mask: str | None = None) -> Calibration:
        """Read an `.npz` with arrays named like the model's inputs.

        Args:
            path: The file.
            source: The model.
            batch_rows: Rows of one batch, where the model's batch axis is open.
            mask: Name of one more array in the file, of shape [rows] or [rows, positions...].

        Raises:
            SamplesError: It does not fit the model.
        """
        signature = signature_of(source.proto)
        arrays = read_samples(path)
        if mask is not None and mask not in arrays:
            raise SamplesError(f"{path}: holds no array '{mask}'")
        taken = arrays.pop(mask) if mask is not None else None
        rows = {array.shape[0] for array in arrays.values() if array.ndim}
        if len(rows) != 1:
            raise SamplesError(f"{path}: the inputs have {sorted(rows)} rows; they must have equally many")
        (count,) = rows
        if taken is not None and taken.shape[:1] != (count,):
            raise SamplesError(
                f"{path}: '{mask}' has shape {list(taken.shape)}, the inputs have {count} rows"
            )
        fixed = {spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], int)}
        used, notes = count, []
        if len(fixed) == 1 and count >= min(fixed):  # the model takes so many rows and no others
            (batch_rows,) = fixed
            used = count // batch_rows * batch_rows
            if used < count:
                notes.append(f"the model takes batches of {batch_rows}: {count - used} rows were left over")
        batch_rows = min(batch_rows, count)
        part = fit_samples(path, {name: array[:batch_rows] for name, array in arrays.items()}, signature)
        fitting = {name: array[:used].astype(part[name].dtype) for name, array in arrays.items()}
        return cls(fitting, used, batch_rows, None if taken is None else taken[:used], tuple(notes))

    def batches(self) -> Iterator[tuple[Tensors, Array | None]]:
        """The samples batch by batch, each with its part of the mask."""
        for begin in range(0, self.rows, self.batch_rows):
            rows = slice(begin, begin + self.batch_rows)
            part = {name: array[rows] for name, array in self.samples.items()}
            yield part, None if self.mask is None else self.mask[rows]


@contextmanager
def first_rows(path: Path, mask: str | None = None) -> Iterator[Path]:
    """A few of the samples in a file of their own, for a framework to run on.

    Args:
        path: The calibration file.
        mask: Name of the array that is no input.

    Raises:
        SamplesError: The file cannot be read.
        SourceError: As raised inside, the user's own file named in it.
    """
    arrays: dict[str, Any] = {
        name: array[:ROWS] for name, array in read_samples(path).items() if name != mask
    }
    with TemporaryDirectory(prefix="infold-calibration-") as scratch:
        few = Path(scratch) / path.name
        np.savez(few, **arrays)
        try:
            yield few
        except SourceError as failure:
            failure.args = tuple(str(each).replace(str(few), str(path)) for each in failure.args)
            raise


def batch_moments(
    model: ir.Model, folder: Path, places: Sequence[Place], calibration: Calibration
) -> Iterator[dict[str, Moments]]:
    """Moments of what norms see, one batch after another.

    Args:
        model: The unfolded model.
        folder: Where its external data lies.
        places: The norms, by their places in `model`.
        calibration: The samples.

    Yields:
        For each batch, the moments by the name of the place.

    Raises:
        ProofError: The model does not run on the samples.
    """
    names = [place.data.name or "" for place in places]
    fed = {name: name for name in names if name in calibration.samples}
    with TemporaryDirectory(prefix="infold-calibration-") as scratch:
        path = Path(scratch) / "model.onnx"
        _write_prefix(model, [name for name in dict.fromkeys(names) if name not in fed], path)
        waiting: list[tuple[Tensors, Array | None]] = []
        for batch in calibration.batches():
            waiting.append(batch)
            if len(waiting) == BATCHES:
                yield from _run(path, folder, places, waiting)
                waiting = []
        yield from _run(path, folder, places, waiting)


def _run(
    path: Path, folder: Path, places: Sequence[Place], batches: Sequence[tuple[Tensors, Array | None]]
) -> Iterator[dict[str, Moments]]:
    if not batches:
        return
    try:
        results: Sequence[Mapping[str, Array]] = run_isolated(
            [Run("calibration", path, samples, external_folder=folder) for samples, _ in batches]
        )
    except SessionError as failure:
        raise ProofError(f"the model does not run on the calibration samples: {failure.detail}") from failure
    for (samples, mask), values in zip(batches, results, strict=True):
        seen = {**samples, **values}
        yield {place.name: _moments(place, seen[place.data.name or ""], mask) for place in places}


def _moments(place: Place, data: Array, mask: Array | None) -> Moments:
    try:
        return moments(data, place.axis, mask)
    except ValueError as unfit:
        raise SamplesError(f"'{place.name}': {unfit}") from unfit


def _write_prefix(model: ir.Model, names: Sequence[str], path: Path) -> None:
    """The part of the model that computes some of its values; all its inputs stay."""
    part = model.clone()
    values = {value.name: value for node in part.graph for value in node.outputs}
    part.graph.outputs.clear()
    part.graph.outputs.extend(values[name] for name in names)
    if not names:  # every norm reads an input: any output will do
        part.graph.outputs.append(next(value for value in values.values() if value.name))
    RemoveUnusedNodesPass()(part)
    ir.save(part, path)
