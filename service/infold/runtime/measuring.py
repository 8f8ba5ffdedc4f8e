"""How long a session takes, by the clock and briefly: what a plan for serving is chosen from."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from infold.errors import ConfigError, SessionError
from infold.runtime.golden import read_golden
from infold.runtime.session import Session
from infold.tensors import Array, Signature, Tensors

__all__ = ["BUCKETS", "one_row", "repeated", "time_rows", "time_run"]

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RUNS, LEAST_RUNS = 30, 3


def time_run(session: Session, tensors: Tensors, budget_s: float) -> float:
    """Seconds of one warmed-up run: the least of up to 30 within the budget, of 3 at least.

    Whatever else the machine does can only make a run longer.

    Raises:
        SessionError: It does not run.
    """
    session.run(tensors)
    taken: list[float] = []
    end = time.perf_counter() + budget_s
    while len(taken) < LEAST_RUNS or (len(taken) < RUNS and time.perf_counter() < end):
        began = time.perf_counter()
        session.run(tensors)
        taken.append(time.perf_counter() - began)
    return min(taken)


def time_rows(session: Session, row: Tensors, buckets: Sequence[int], budget_s: float) -> Mapping[int, float]:
    """Seconds of a run by its number of rows, for as many of the buckets as the budget allows.

    Args:
        session: What runs.
        row: One row of every input.
        buckets: Numbers of rows, rising from 1.
        budget_s: For all of it; the first bucket is measured whatever it takes.

    Returns:
        Seconds by rows; infinitely many for the first number of rows that fails.

    Raises:
        SessionError: One row does not run.
    """
    found: dict[int, float] = {}
    left = budget_s
    for count in buckets:
        expected = found[1] * count * (LEAST_RUNS + 1) if found else 0.0
        if found and expected > left:
            break
        began = time.perf_counter()
        try:
            found[count] = time_run(session, repeated(row, count), left / 4)
        except SessionError:
            if not found:
                raise
            found[count] = math.inf  # an axis that is open by name only
            break
        left -= time.perf_counter() - began
    return found


def repeated(row: Tensors, count: int) -> dict[str, Array]:
    """So many copies of a row."""
    if count == 1:  # also where there is no axis to repeat
        return dict(row)
    return {name: np.repeat(array, count, axis=0) for name, array in row.items()}


def one_row(model: Path, signature: Signature, root: Path | None = None) -> dict[str, Array]:
    """One row of every input: of the golden inputs beside the model, or zeros, open lengths 1.

    Args:
        model: See `read_golden`.
        signature: Its own.
        root: See `read_golden`.
    """
    golden = _golden(model, signature, root)
    row = {}
    for spec in signature.inputs:
        if spec.name in golden:
            array = golden[spec.name]
            row[spec.name] = array[:1].copy() if spec.has_batch_axis else array
        else:
            shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape or ()]
            row[spec.name] = np.full(shape, "" if spec.dtype == np.object_ else 0, spec.dtype)
    return row


def _golden(model: Path, signature: Signature, root: Path | None) -> Mapping[str, Array]:
    """Golden inputs that fit, or none: a measurement needs no more than some numbers."""
    try:
        golden = read_golden(model, inputs_only=True, root=root)
    except ConfigError:
        return {}
    if golden is None or any(spec.name not in golden.inputs for spec in signature.inputs):
        return {}
    found = golden.inputs
    fits = all(not spec.mismatch(found[spec.name]) and found[spec.name].size for spec in signature.inputs)
    return found if fits else {}
