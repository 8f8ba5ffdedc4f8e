"""The session that will serve, held against the proof.

A proof runs with onnxruntime's graph optimizations off; a server runs with them
on, and they can be wrong (1.31's Pad_Fusion lets zero padding into a MaxPool). So
the written file runs once more the way it will be served. If that differs, the
optimizers are tried one by one, and the guilty one is named and switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infold.convert.comparison import Comparison, compare, compare_output
from infold.convert.verify import Proof
from infold.errors import ProofError, RuntimeCrashError, SessionError
from infold.runtime import Run, run_isolated
from infold.runtime.optimizers import OPTIMIZERS
from infold.tensors import Array

__all__ = ["ServingProof", "prove_serving"]

# Optimizers may reorder sums and use other kernels: what a proof allows, this many times.
SLACK = 4.0


@dataclass(frozen=True, slots=True)
class ServingProof:
    """How the file behaves when served.

    Attributes:
        outputs: Served against unoptimized, for each output.
        disabled_optimizers: Optimizers of onnxruntime that must be left out; empty if none.
        without_them: Largest relative error before they were left out; None if none were.
    """

    outputs: tuple[Comparison, ...]
    disabled_optimizers: tuple[str, ...] = ()
    without_them: float | None = None


def prove_serving(path: Path, proof: Proof) -> ServingProof | None:
    """Run a proven file under serving options and compare with what was proven.

    Args:
        path: The file as it will be served.
        proof: Its proof.

    Returns:
        What was found, or None where onnxruntime cannot run the model at all.

    Raises:
        ProofError: It differs, and no optimizer alone is to blame.
    """
    if not proof.oracle.startswith("onnxruntime"):
        return None
    outputs = _run(path, proof, ())
    if all(each.passed for each in outputs):
        return ServingProof(outputs)
    worst = max(each.relative for each in outputs)
    for name in OPTIMIZERS:
        try:
            again = _run(path, proof, (name,))
        except SessionError:
            continue
        if all(each.passed for each in again):
            return ServingProof(again, (name,), worst)
    off = next(each for each in outputs if not each.passed)
    raise ProofError(
        f"with onnxruntime's graph optimizations on, output '{off.name}' is off by {off.max_abs:.3g} "
        f"(allowed {off.bound:.3g}), and leaving out one optimizer does not mend it",
        off.name,
    )


def _run(path: Path, proof: Proof, disabled: tuple[str, ...]) -> tuple[Comparison, ...]:
    run = Run("served", path, proof.samples, optimize=True, disabled_optimizers=disabled)
    try:
        (served,) = run_isolated([run])
    except RuntimeCrashError as crash:
        raise ProofError(f"onnxruntime crashed on the model as it will be served: {crash.detail}") from crash
    found = []
    for each in proof.outputs:
        wanted = proof.results[each.name]
        if wanted.dtype.kind in "OSU":
            found.append(compare_output(each.name, wanted, served[each.name], 0.0))
        else:
            limit: Array = np.asarray(SLACK * each.bound)
            found.append(compare(each.name, wanted, served[each.name], limit))
    return tuple(found)
