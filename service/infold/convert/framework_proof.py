"""Framework, unfolded ONNX, folded ONNX: the error at each step, by the user's own layer names.

What a framework computes is the truth its user knows. An export that is already
off is none of folding's business and must not hide behind it: it fails, and the
first layer that differs is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from infold.convert.frontends.exported import Framework
from infold.convert.layers import NEAR, Layer
from infold.errors import ProofError
from infold.fold.affine import F64
from infold.tensors import Array, Tensors

__all__ = ["FrameworkProof", "Steps", "check_export", "compare_steps"]

# Largest difference over the largest magnitude, by the width of the type in bytes: what an
# export may add (whole frameworks differ by up to 3e-5 in float32), and what folding may at least.
EXPORT_LIMIT = {8: 1e-3, 4: 1e-3, 2: 5e-2}
FOLD_LIMIT = {8: 1e-4, 4: 1e-4, 2: 5e-3}
TIMES_EXPORT = 10.0


@dataclass(frozen=True, slots=True)
class Steps:
    """One output on its way; errors are over the framework's largest magnitude.

    Attributes:
        name: Of the output.
        measured_on: `values`, or `logits` where the output is a softmax: its saturation
            would hide errors.
        unfolded: Framework to unfolded ONNX.
        folded: Framework to folded ONNX.
        allowed: For `folded`: 1e-4, or ten times `unfolded` where that is larger (5e-3 in
            16 bits).
    """

    name: str
    measured_on: str
    unfolded: float
    folded: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Folding added no more than it may."""
        return self.folded <= self.allowed


@dataclass(frozen=True, slots=True)
class FrameworkProof:
    """Every step from the framework to the folded model.

    Attributes:
        outputs: One an output.
        layers: One a use of a norm, in the framework's order.
    """

    outputs: tuple[Steps, ...]
    layers: tuple[Layer, ...]

    @property
    def passed(self) -> bool:
        """All outputs are within what is allowed."""
        return all(each.passed for each in self.outputs)

    def failure(self) -> str:
        """One line on the outputs that are off."""
        off = [each for each in self.outputs if not each.passed]
        words = [
            f"output '{each.name}' is off by {each.folded:.2g} (allowed {each.allowed:.2g})" for each in off
        ]
        return "the folded model differs from the framework: " + "; ".join(words)


def check_export(
    framework: Framework, layers: Sequence[Layer], outputs: Tensors, graph: onnx.GraphProto
) -> None:
    """Hold the exported model against its framework.

    Raises:
        ProofError: They differ by more than rounding; names the first layer that does.
    """
    off = []
    for name, want in framework.answer.outputs.items():
        error, limit = _step(name, want, outputs[name], graph)[1], _limit(want, EXPORT_LIMIT)
        if not error <= limit:
            off.append(f"output '{name}' is off by {error:.2g} (allowed {limit:.2g})")
    if not off:
        return
    first = next((layer for layer in layers if not layer.error <= min(NEAR, EXPORT_LIMIT[4])), None)
    where = (
        f"; the first layer that differs is '{first.name}'"
        if first
        else "; no norm differs: look after the last"
    )
    where = where if layers else ""
    message = f"the exported ONNX already differs from {framework.name}: {'; '.join(off)}{where}"
    raise ProofError(message, first.name if first else None)


def compare_steps(
    framework: Framework,
    layers: Sequence[Layer],
    unfolded: Tensors,
    folded: Tensors,
    graph: onnx.GraphProto,
) -> FrameworkProof:
    """Measure every step.

    Args:
        framework: With its own answer.
        layers: From `find_layers`.
        unfolded: Outputs of the exported model on the framework's samples.
        folded: The same of the folded one.
        graph: Of the unfolded model.
    """
    outputs = []
    for name, want in framework.answer.outputs.items():
        on, first = _step(name, want, unfolded[name], graph)
        _, both = _step(name, want, folded[name], graph)
        allowed = max(_limit(want, FOLD_LIMIT), TIMES_EXPORT * first)
        outputs.append(Steps(name, on, first, both, allowed))
    return FrameworkProof(tuple(outputs), tuple(layers))


def _limit(array: Array, limits: dict[int, float]) -> float:
    return limits.get(array.dtype.itemsize, limits[4]) if array.dtype.kind in "fV" else 0.0


def _step(name: str, want: Array, got: Array, graph: onnx.GraphProto) -> tuple[str, float]:
    """What is measured, and the largest difference over the largest magnitude."""
    if want.shape != got.shape:
        return "values", float("inf")
    if want.dtype.kind not in "fV":
        return "values", 0.0 if np.array_equal(want, got) else float("inf")
    a: F64 = want.astype(np.float64)
    b: F64 = got.astype(np.float64)
    on = "values"
    if _is_softmax(name, graph):
        on, a, b = "logits", _logits(a), _logits(b)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return on, float("inf")
    finite = np.isfinite(a)
    scale = float(np.abs(a[finite]).max(initial=0.0)) or 1.0
    return on, float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / scale


def _is_softmax(name: str, graph: onnx.GraphProto) -> bool:
    return any(name in node.output and node.op_type == "Softmax" for node in graph.node)


def _logits(probabilities: F64) -> F64:
    """Up to a constant a row, which the mean takes out; what underflowed counts as the smallest normal."""
    logits: F64 = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    centred: F64 = logits - logits.mean(axis=-1, keepdims=True)
    return centred
