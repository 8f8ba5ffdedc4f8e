"""The core: batch normalization as one value, and the graph rewriting that folds it away.

numpy and onnx_ir, nothing else. Start with `affine.py` (the algebra), then
`linear.py` (who absorbs it), `sites.py` (where it is), `rules.py` (where it
can go), `driver.py` (the loop).
"""

from infold.fold import deferred  # noqa: F401 - first, so that it is what imports onnx_ir
from infold.fold.affine import Affine
from infold.fold.driver import fold_batch_norms
from infold.fold.layouts import LinearOp, linear_op
from infold.fold.report import (
    Decision,
    FoldReport,
    NormParameters,
    Outcome,
    Reason,
    Refusal,
)

__all__ = [
    "Affine",
    "Decision",
    "FoldReport",
    "LinearOp",
    "NormParameters",
    "Outcome",
    "Reason",
    "Refusal",
    "fold_batch_norms",
    "linear_op",
]
