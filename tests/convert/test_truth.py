"""The float64 evaluation of a linear op, against onnx's own reference evaluator in float64."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from graphs import model, normal
from infold.convert import truth
from infold.fold import linear_op


def double(*shape: int, seed: int = 0) -> np.ndarray:
    return normal(*shape, seed=seed, dtype="float64")


def normal_of(shape: int | tuple[int, ...]) -> np.ndarray:
    return double(*np.atleast_1d(shape), seed=2)


CASES = {
    "conv": ("Conv <pads=[1,0,2,1], strides=[2,1]> (x, w, b)", (2, 4, 9, 8), (6, 4, 3, 3), 6),
    "dilated": ("Conv <dilations=[2,3]> (x, w, b)", (2, 4, 9, 9), (6, 4, 3, 2), 6),
    "grouped": ("Conv <group=2, pads=[1,1,1,1]> (x, w, b)", (2, 4, 7, 7), (6, 2, 3, 3), 6),
    "depthwise": ("Conv <group=4> (x, w, b)", (2, 4, 7, 7), (4, 1, 3, 3), 4),
    "same upper": ('Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w, b)', (2, 4, 8, 7), (6, 4, 3, 4), 6),
    "same lower": ('Conv <auto_pad="SAME_LOWER"> (x, w, b)', (2, 4, 8, 7), (6, 4, 2, 4), 6),
    "conv 1d": ("Conv <strides=[3]> (x, w, b)", (2, 4, 12), (6, 4, 3), 6),
    "conv 3d": ("Conv (x, w, b)", (1, 2, 5, 5, 5), (3, 2, 2, 2, 2), 3),
    "transposed": (
        "ConvTranspose <strides=[2,2], pads=[1,0,1,1], output_padding=[1,0]> (x, w, b)",
        (2, 4, 5, 6), (4, 3, 3, 3), 3,
    ),
    "transposed dilated": ("ConvTranspose <dilations=[2,1]> (x, w, b)", (2, 4, 5, 6), (4, 3, 3, 3), 3),
    "gemm": ("Gemm <alpha=0.5, beta=2.0, transB=1> (x, w, b)", (5, 4), (3, 4), 3),
    "gemm weight first": ("Gemm <transA=1, transB=1> (w, x, b)", (5, 4), (4, 3), (3, 1)),
    "gemm transposed": ("Gemm <transA=1> (x, w, b)", (4, 5), (4, 3), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_float64_evaluation_equals_the_reference(name: str) -> None:
    """Every attribute that moves a tap or a border is read; agreement to float64's rounding."""
    call, data_shape, weight_shape, channels = CASES[name]
    dims = ",".join(str(length) for length in data_shape)
    data, weight, bias = double(*data_shape), double(*weight_shape, seed=1), normal_of(channels)
    proto = model(f"g (double[{dims}] x) => (double y) {{ y = {call} }}", {"w": weight, "b": bias})
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": data})
    node = next(iter(ir.from_proto(proto).graph))
    op = linear_op(node, 17)
    assert op is not None
    got = truth.evaluate(op, data)
    assert got is not None
    limit = np.abs(weight).max() * np.abs(data).max() * op.linear.weight.fan_in**1.5 * 2.0**-50
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= limit


def test_grouped_transposed_convolution_is_two_ungrouped_ones() -> None:
    """The reference evaluator cannot do groups here, so the halves are its judge."""
    data, weight = double(2, 4, 5, 5), double(4, 3, 3, 3, seed=1)
    text = "g (double[2,{c},5,5] x) => (double y) {{ y = ConvTranspose <group={g}, strides=[2,2]> (x, w) }}"
    whole = model(text.format(c=4, g=2), {"w": weight})
    op = linear_op(next(iter(ir.from_proto(whole).graph)), 17)
    assert op is not None
    halves = []
    for half in (slice(0, 2), slice(2, 4)):
        part = model(text.format(c=2, g=1), {"w": weight[half]})
        halves.append(ReferenceEvaluator(part).run(None, {"x": data[:, half]})[0])
    got = truth.evaluate(op, data)
    assert got is not None
    assert np.abs(got - np.concatenate(halves, axis=1)).max() < 1e-13


def test_a_border_rule_that_is_not_evaluated_is_said_so() -> None:
    """None, not a guess."""
    text = "g (double[1,1,4,4] x) => (double y) { y = ConvTranspose <output_shape=[5,5]> (x, w) }"
    op = linear_op(next(iter(ir.from_proto(model(text, {"w": double(1, 1, 2, 2)})).graph)), 17)
    assert op is not None
    assert truth.evaluate(op, double(1, 1, 4, 4)) is None


def test_a_large_op_is_looked_at_on_fewer_rows() -> None:
    """The budget counts multiply-adds; at least one row is always looked at."""
    text = "g (float[N,1000] x) => (float[N,1000] y) { y = MatMul (x, w) }"
    proto = onnx.shape_inference.infer_shapes(model(text, {"w": normal(1000, 1000)}))
    op = linear_op(next(iter(ir.from_proto(proto).graph)), 17)
    assert op is not None
    assert truth.row_limit(op, np.empty((10_000, 1000), np.float32), 2 * 10**9) == 2000
    assert truth.row_limit(op, np.empty((1, 10**7), np.float32), 2 * 10**9) == 1
