"""Onnx's reference evaluator with the operators mended that it gets wrong.

It is the oracle where onnxruntime has no kernel. As of onnx 1.23 its ConvTranspose fails
on groups, and its BatchNormalization before opset 14 takes inference for training.
Both are computed in float64 here and rounded once to the type of the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from infold.convert.truth import conv_transpose
from infold.fold.affine import F64
from infold.tensors import Array, Tensors

__all__ = ["evaluate_model"]


def evaluate_model(model: onnx.ModelProto, samples: Tensors) -> dict[str, Array]:
    """All outputs of a model, by name."""
    evaluator = ReferenceEvaluator(model, new_ops=[BatchNormalization, ConvTranspose])
    return dict(zip(evaluator.output_names, evaluator.run(None, dict(samples)), strict=True))


class ConvTranspose(OpRun):
    """With groups, and cropped as `auto_pad` and `output_shape` say."""

    op_domain = ""

    def _run(self, x: Array, w: Array, b: Array | None = None, **attributes: Any) -> tuple[Array]:
        rank = x.ndim - 2
        given = {name: value for name, value in attributes.items() if value is not None}
        steps, gaps = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
        extra = given.get("output_padding", [0] * rank)
        spans = [(tap - 1) * gap + 1 for tap, gap in zip(w.shape[2:], gaps, strict=True)]
        full = [
            (n - 1) * step + span + more
            for n, step, span, more in zip(x.shape[2:], steps, spans, extra, strict=True)
        ]
        mode, wanted = given.get("auto_pad", "NOTSET"), given.get("output_shape")
        if wanted is None and mode.startswith("SAME"):
            wanted = [n * step for n, step in zip(x.shape[2:], steps, strict=True)]
        pads = given.get("pads", [0] * (2 * rank))
        if wanted is not None:
            total = [max(0, n - length) for n, length in zip(full, list(wanted)[-rank:], strict=True)]
            small, large = [n // 2 for n in total], [n - n // 2 for n in total]
            pads = small + large if mode == "SAME_UPPER" else large + small
        wide, kernel = x.astype(np.float64), w.astype(np.float64)
        y = conv_transpose(wide, kernel, given.get("group", 1), steps, gaps, pads, extra)
        if b is not None:
            y = y + b.astype(np.float64).reshape(-1, *[1] * rank)
        return (y.astype(x.dtype),)


class BatchNormalization(OpRun):
    """Of every opset: by the statistics it is given, or in training by those of the batch."""

    op_domain = ""

    def _run(
        self, x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, **attributes: Any
    ) -> tuple[Array, ...]:
        wide = x.astype(np.float64)
        old = [mean.astype(np.float64), variance.astype(np.float64)]
        used = old
        if self._is_training(attributes):
            others = tuple(axis for axis in range(x.ndim) if axis != 1)
            used = [wide.mean(axis=others), wide.var(axis=others)]
        scale = gamma.astype(np.float64) / np.sqrt(used[1] + attributes["epsilon"])
        y = (wide - _laid_out(used[0], x.ndim)) * _laid_out(scale, x.ndim)
        y = y + _laid_out(beta.astype(np.float64), x.ndim)
        keep = attributes.get("momentum") or 0.0
        moved = [keep * before + (1 - keep) * now for before, now in zip(old, used, strict=True)]
        statistics = [each.astype(mean.dtype) for each in (*moved, *used)]
        return (y.astype(x.dtype), *statistics[: len(self.onnx_node.output) - 1])

    def _is_training(self, attributes: dict[str, Any]) -> bool:
        opset = self.run_params["opsets"][""]
        if opset >= 14:
            return bool(attributes.get("training_mode"))
        if opset < 7 and not attributes.get("is_test"):
            return True
        return any(self.onnx_node.output[1:])


def _laid_out(parameter: F64, rank: int) -> F64:
    """Along axis 1; before opset 9 it may have a number for each position (`spatial=0`)."""
    return parameter.reshape(*parameter.shape, *[1] * (rank - 1 - parameter.ndim))
