"""`golden.npz`: a few rows, and what the unfolded model answers to them.

A server that loads the version asks it these, so every answer in the file must be
one that the folded model gives too, on another machine as well: rows on which the
two differ are passed over, and an output on which they differ throughout is left
out. The rows are run anew, by themselves: what a row's answer is may depend on
its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from infold.convert.proof import Proof
from infold.convert.side_by_side import Model, OnnxRuntime
from infold.errors import NoKernelError, ProofError, SessionError
from infold.runtime import Run, run_isolated
from infold.tensors import Array, Tensors, kind_of

__all__ = ["FILE", "Golden", "golden_of"]

FILE = "golden.npz"
MOST_ROWS = 4
MOST_BYTES = 8 * 2**20
TRIES = 3

# How far the folded model's answer may be from the unfolded one's, over its largest magnitude: a
# quarter of what a server allows (half of it for bfloat16), since another machine rounds in another way.
TOLERANCES: Mapping[str, float] = {"float16": 5e-3, "bfloat16": 1e-2}
TOLERANCE = 2.5e-4


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """What goes into the file.

    Attributes:
        arrays: `in.<input>` and `out.<output>`; none where there is to be no file.
        notes: What is missing, and why.
    """

    arrays: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the file, if there is anything to write; the same arrays give the same bytes."""
        if self.arrays:
            arrays = dict(sorted(self.arrays.items()))
            np.savez_compressed(folder / FILE, **arrays)  # type: ignore[arg-type] # takes any names


def golden_of(
    unfolded: Model, served: Path, proof: Proof, disabled_optimizers: Sequence[str], *, is_batched: bool
) -> Golden:
    """Rows of the proof's samples, and what the unfolded model answers to just these.

    Args:
        unfolded: The model as trained.
        served: The folded model as it was written.
        proof: Of the two.
        disabled_optimizers: Optimizers that it is served without.
        is_batched: First axes are of rows, which may be fewer.
    """
    if not proof.oracle.startswith("onnxruntime"):
        return _none(f"the proof ran on {proof.oracle}")
    rows = _rows(proof) if is_batched else None
    if rows is not None and not len(rows):
        return _none(f"one row is larger than {MOST_BYTES >> 20} MiB")
    samples, wanted, answers = proof.samples, proof.results, proof.folded_results
    for _ in range(TRIES):
        if rows is not None:
            samples = {name: array[rows] for name, array in proof.samples.items()}
        try:
            wanted = OnnxRuntime().run([(unfolded, tuple(proof.results))], samples)[0]
            run = Run(
                "served", served, samples, optimize=True, disabled_optimizers=tuple(disabled_optimizers)
            )
            (answers,) = run_isolated([run])
        except (NoKernelError, ProofError, SessionError) as failure:
            return _none(f"a few rows of the samples do not run by themselves: {failure}")
        agreeing = None if rows is None else _agreeing(wanted, answers, len(rows))
        if rows is None or agreeing is None or len(agreeing) in (0, len(rows)):
            break
        rows = rows[agreeing]
    return _kept(samples, wanted, answers)


def _rows(proof: Proof) -> Array:
    """Numbers of the rows to begin with: those on which both models agreed in the proof, or else any."""
    agreeing = _agreeing(proof.results, proof.folded_results, proof.rows)
    rows = np.arange(proof.rows) if agreeing is None or not len(agreeing) else agreeing
    return rows[: _most_rows(proof)]


def _agreeing(wanted: Tensors, answers: Tensors, count: int) -> Array | None:
    """Of so many rows those on which all outputs agree; None where they cannot be told apart."""
    if any(array.shape[:1] != (count,) for array in wanted.values()):
        return None
    agree = np.ones(count, np.bool_)
    for name, array in wanted.items():
        agree &= _agree(array, answers[name]).reshape(count, -1).all(axis=1)
    return np.flatnonzero(agree)


def _agree(wanted: Array, answer: Array) -> Array:
    """Where two answers are the same, as far as a server asks."""
    if wanted.shape != answer.shape:
        return np.zeros(wanted.shape, np.bool_)
    if kind_of(wanted.dtype) != "f":
        return np.asarray(wanted == answer)
    a, b = wanted.astype(np.float64), answer.astype(np.float64)
    largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= TOLERANCES.get(str(wanted.dtype), TOLERANCE) * largest
    return np.asarray(near | (a == b) | (np.isnan(a) & np.isnan(b)))


def _kept(samples: Tensors, wanted: Tensors, answers: Tensors) -> Golden:
    arrays: dict[str, Array] = {}
    notes: list[str] = []
    size = 0
    for name, array in samples.items():
        if (stored := _stored(array)) is None:
            return _none(f"input '{name}' holds strings that numpy's files cannot")
        arrays[f"in.{name}"] = stored
        size += stored.nbytes
    for name, array in wanted.items():
        stored = _stored(array)
        if stored is None:
            notes.append(_left_out(name, "it holds strings that numpy's files cannot"))
        elif not _agree(array, answers[name]).all():
            notes.append(_left_out(name, "the folded model answers otherwise, as near ties are decided"))
        else:
            arrays[f"out.{name}"] = stored
            size += stored.nbytes
    if size > MOST_BYTES:
        return _none(f"the samples are larger than {MOST_BYTES >> 20} MiB")
    return Golden(arrays, tuple(notes))


def _most_rows(proof: Proof) -> int:
    """How many rows fit into the file, by the size that they have on average."""
    size = sum(_stored_bytes(array) for array in (*proof.samples.values(), *proof.results.values()))
    return min(MOST_ROWS, MOST_BYTES * proof.rows // max(1, size))


def _stored_bytes(array: Array) -> int:
    if kind_of(array.dtype) in "OU":
        return 4 * array.size * max(1, _longest(array))
    return array.nbytes


def _longest(array: Array) -> int:
    return max((len(str(each)) for each in array.reshape(-1)), default=0)


def _stored(array: Array) -> Array | None:
    """An array as it goes into the file: strings as numpy's own; None if it cannot."""
    if kind_of(array.dtype) not in "OU":
        return array
    if _stored_bytes(array) > MOST_BYTES:
        return None
    texts: Array = array.astype(np.str_)
    return texts if texts.tolist() == array.tolist() else None  # zeros at their ends are lost


def _none(why: str) -> Golden:
    return Golden({}, (f"no {FILE}: {why}",))


def _left_out(name: str, why: str) -> str:
    return f"{FILE} holds nothing of output '{name}': {why}"
