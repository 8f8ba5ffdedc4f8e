"""Are the weights that were written the weights that were meant?

The file is read back, and each folded weight must be the float64 product rounded
to nearest: off by no more than half a unit in the last place. What is compared is
the file, so a write that went wrong is seen too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from infold.errors import ProofError
from infold.fold.linear import FoldedBias, FoldedTensor
from infold.fold.rounding import rounded

__all__ = ["check_weights"]


def check_weights(folded: ir.Model, written: onnx.ModelProto, folder: Path) -> int:
    """Compare every folded weight and bias of the main graph with the file.

    Args:
        folded: The model with its weights still unrounded.
        written: The file as read back.
        folder: Where its external data lies.

    Returns:
        How many tensors were compared.

    Raises:
        ProofError: One is not the float64 fold rounded to nearest; names it and its channel.
    """
    stored = {tensor.name: tensor for tensor in written.graph.initializer}
    count = 0
    for name, value in folded.graph.initializers.items():
        exact = value.const_value
        if not isinstance(exact, FoldedTensor | FoldedBias):
            continue
        if name not in stored:
            raise ProofError(f"folded weight '{name}' is missing from the file", name)
        array = np.atleast_1d(onnx.numpy_helper.to_array(stored[name], str(folder)))
        whole = [] if isinstance(exact, FoldedTensor) else [(slice(None), np.atleast_1d(exact.exact))]
        blocks = exact.exact_blocks() if isinstance(exact, FoldedTensor) else whole
        for rows, block in blocks:
            want = rounded(np.asarray(block), exact.dtype)
            got = array[rows]
            off = np.argwhere(~((got == want) | (np.isnan(got) & np.isnan(want))))
            if len(off):
                place = tuple(int(n) for n in off[0])
                raise ProofError(
                    f"folded weight '{name}' at {list(place)} of rows from {rows.start or 0} is "
                    f"{got[place]!r} in the file, but {want[place]!r} was meant",
                    name,
                )
        count += 1
    return count
