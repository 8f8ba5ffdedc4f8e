"""Runs a model on calibration samples and gathers the moments of what its norms see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from infold.convert.frontends.onnx import Source
from infold.convert.moments import Moments, moments
from infold.convert.norms import Place
from infold.convert.samples import load_samples, signature_of
from infold.errors import ProofError, SamplesError, SessionError
from infold.runtime import Run, run_isolated
from infold.tensors import Array, Tensors

__all__ = ["Calibration", "batch_moments"]

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
    """

    samples: Tensors
    rows: int
    batch_rows: int
    mask: Array | None = None

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
        arrays = load_samples(path, signature, mask)
        taken = arrays.pop(mask) if mask is not None else None
        rows = {array.shape[0] for array in arrays.values() if array.ndim}
        if len(rows) != 1:
            raise SamplesError(f"{path}: the inputs have {sorted(rows)} rows; they must have equally many")
        (count,) = rows
        if taken is not None and taken.shape[:1] != (count,):
            raise SamplesError(
                f"{path}: '{mask}' has shape {list(taken.shape)}, the inputs have {count} rows"
            )
        return cls(arrays, count, min(batch_rows, count) if signature.is_batched else count, taken)

    def batches(self) -> Iterator[tuple[Tensors, Array | None]]:
        """The samples batch by batch, each with its part of the mask."""
        for begin in range(0, self.rows, self.batch_rows):
            rows = slice(begin, begin + self.batch_rows)
            part = {name: array[rows] for name, array in self.samples.items()}
            yield part, None if self.mask is None else self.mask[rows]


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
        yield {place.name: moments(seen[place.data.name or ""], place.axis, mask) for place in places}


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
