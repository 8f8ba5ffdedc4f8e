"""What only a run tells for sure: does the model draw at random, does a row depend on its neighbours?

Dropout that is still live and norms that still take the statistics of the batch
both survive an export silently; running the model shows them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from infold.convert.samples import signature_of
from infold.convert.side_by_side import run_inside
from infold.errors import ProofError
from infold.tensors import Array, Tensors

__all__ = ["check_behaviour"]

# Rounding moves an answer by less, batch statistics by far more (0.05 and up on real networks).
LIMIT = 1e-3
DEPENDS = (
    "output '{}' of a row changes with the other rows of its batch: a layer uses the statistics "
    "of the batch (a norm without moving statistics, or one pinned to training)"
)
STUCK = (
    "output '{}' has {} rows when {} go in and {} when one does, although the batch axis of every "
    "input is open: the export fixed the batch somewhere inside"
)


def check_behaviour(
    proto: onnx.ModelProto, folder: Path, samples: Tensors, outputs: Tensors
) -> tuple[str, ...]:
    """Run the model again, and its first row alone.

    Args:
        proto: The model.
        folder: Where its external data lies.
        samples: Inputs by name.
        outputs: What the model gave on them before.

    Returns:
        What the user should know, a sentence each.

    Raises:
        ProofError: It gives another answer every time, or cannot take one row alone although
            it says that it takes any number.
    """
    again = run_inside(proto, folder, (), samples)
    for name, before in outputs.items():
        if _differ(before, again[name]):
            raise ProofError(
                f"output '{name}' is different every time the model runs: dropout or another random op is "
                "still live in it; export the model in inference mode"
            )
    signature = signature_of(proto)
    lengths = {array.shape[0] for array in samples.values() if array.ndim}
    if not all(spec.has_batch_axis for spec in signature.inputs) or len(lengths) != 1 or lengths == {1}:
        return ()
    (rows,) = lengths
    try:
        alone = run_inside(proto, folder, (), {name: array[:1] for name, array in samples.items()})
    except ProofError as failure:
        raise ProofError(
            f"fails on one row alone, although it runs on {rows} and the batch axis of every input is open: "
            f"{failure}"
        ) from failure
    stuck, depends = [], []
    for spec in signature.outputs:
        whole, one = outputs[spec.name], alone[spec.name]
        if not whole.ndim:
            continue
        if len(whole) != rows * len(one):
            stuck.append(STUCK.format(spec.name, len(whole), rows, len(one)))
        elif _differ(whole[: len(one)], one):
            depends.append(DEPENDS.format(spec.name))
    return (*stuck[:1], *depends[:1])


def _differ(a: Array, b: Array) -> bool:
    if a.dtype.kind not in "fV" or a.shape != b.shape:
        return not np.array_equal(a, b)
    x, y = np.nan_to_num(a.astype(np.float64)), np.nan_to_num(b.astype(np.float64))
    return bool(np.abs(x - y).max(initial=0.0) > LIMIT * (np.abs(x).max(initial=0.0) or 1.0))
