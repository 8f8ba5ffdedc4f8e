"""Absorbing an affine into a weight: right, and rounded once."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from infold.fold import Affine, Reason
from infold.fold.linear import FoldedBias, FoldedTensor, Linear, Weight
from infold.fold.report import Refused

F64 = NDArray[np.float64]

UNIT = 2.0**-53
DTYPES = (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)


def conv_weight(rng: np.random.Generator, groups: int, dtype: ir.DataType = ir.DataType.DOUBLE) -> Weight:
    """Two outputs and three inputs a group, stored [O, I/G, K]."""
    stored = rng.standard_normal((2 * groups, 3, 2)).astype(dtype.numpy())
    return Weight(stored, dtype, out_axis=0, in_axis=1, groups=groups)


def conv_transpose_weight(
    rng: np.random.Generator, groups: int, dtype: ir.DataType = ir.DataType.DOUBLE
) -> Weight:
    """Two outputs and three inputs a group, stored [I, O/G, K]."""
    stored = rng.standard_normal((3 * groups, 2, 2)).astype(dtype.numpy())
    return Weight(stored, dtype, out_axis=1, in_axis=0, groups=groups)


def matrix_weight(
    rng: np.random.Generator, transposed: bool, dtype: ir.DataType = ir.DataType.DOUBLE
) -> Weight:
    """Four outputs and three inputs, stored [O, I] or [I, O]."""
    shape, axes = ((4, 3), (0, 1)) if transposed else ((3, 4), (1, 0))
    return Weight(rng.standard_normal(shape).astype(dtype.numpy()), dtype, *axes)


LAYOUTS: dict[str, Callable[..., Weight]] = {
    "conv": lambda rng, d=ir.DataType.DOUBLE: conv_weight(rng, 1, d),
    "conv-2-groups": lambda rng, d=ir.DataType.DOUBLE: conv_weight(rng, 2, d),
    "conv-3-groups": lambda rng, d=ir.DataType.DOUBLE: conv_weight(rng, 3, d),
    "conv-transpose": lambda rng, d=ir.DataType.DOUBLE: conv_transpose_weight(rng, 1, d),
    "conv-transpose-2-groups": lambda rng, d=ir.DataType.DOUBLE: conv_transpose_weight(rng, 2, d),
    "conv-transpose-3-groups": lambda rng, d=ir.DataType.DOUBLE: conv_transpose_weight(rng, 3, d),
    "matrix-out-in": lambda rng, d=ir.DataType.DOUBLE: matrix_weight(rng, True, d),
    "matrix-in-out": lambda rng, d=ir.DataType.DOUBLE: matrix_weight(rng, False, d),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def dense(weight: Weight) -> F64:
    """The weight written out as [O, I, K], zero between groups: an independent reading of the layout."""
    stored = weight.stored.astype(np.float64)
    stored = stored.reshape(*stored.shape[:2], -1)
    full = np.zeros((weight.outputs, weight.inputs, stored.shape[2]))
    for o in range(weight.outputs):
        for i in range(weight.inputs):
            group_of_output = o * weight.groups // weight.outputs
            group_of_input = i * weight.groups // weight.inputs
            if group_of_output != group_of_input:
                continue
            own_o = o % (weight.outputs // weight.groups)
            own_i = i % (weight.inputs // weight.groups)
            if weight.out_axis == 0:
                full[o, i] = stored[o, own_i]
            else:
                full[o, i] = stored[i, own_o]
    return full


def evaluate(linear: Linear, x: F64) -> F64:
    """y[o] = sum W x + b, with scales multiplied out; x is [I, K]."""
    full = dense(linear.weight) * linear.out_scale[:, None, None] * linear.in_scale[None, :, None]
    return np.einsum("oik,ik->o", full, x) + linear.bias


def written(linear: Linear) -> Weight:
    """What is read back from the written tensor, in the same layout."""
    stored = linear.weight_tensor("w").numpy()
    weight = linear.weight
    return Weight(stored, weight.dtype, weight.out_axis, weight.in_axis, weight.groups)


@layouts
def test_layout_counts_outputs_inputs_and_fan_in(layout: str) -> None:
    """Outputs, inputs and fan-in are those of the written out weight."""
    weight = LAYOUTS[layout](np.random.default_rng(0))
    full = dense(weight)
    assert (weight.outputs, weight.inputs) == full.shape[:2]
    assert weight.fan_in == np.count_nonzero(full[0])


@layouts
@given(seed=st.integers(0, 2**16))
def test_absorbing_equals_applying_afterwards(layout: str, seed: int) -> None:
    """The linear op that absorbed an affine gives what the op and then the affine give."""
    rng = np.random.default_rng(seed)
    weight = LAYOUTS[layout](rng)
    linear = Linear.of(weight, rng.standard_normal(weight.outputs), alpha=1.7)
    affine = Affine.of(rng.uniform(-3, 3, weight.outputs), rng.standard_normal(weight.outputs))
    x = rng.standard_normal((weight.inputs, dense(weight).shape[2]))
    want = affine.scale * evaluate(linear, x) + affine.shift
    absorbed = linear.absorb_output(affine)
    magnitude = np.abs(affine.scale) * (
        1.7 * np.einsum("oik,ik->o", np.abs(dense(weight)), np.abs(x)) + np.abs(linear.bias)
    ) + np.abs(affine.shift)
    allowed = 2 * (weight.fan_in + 8) * UNIT * magnitude
    assert (np.abs(evaluate(absorbed, x) - want) <= allowed).all()
    # And the written weight, with nothing left beside it, says the same.
    plain = Linear.of(written(absorbed), absorbed.bias)
    assert (np.abs(evaluate(plain, x) - want) <= allowed).all()


@layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_two_absorptions_round_once(layout: str, dtype: ir.DataType) -> None:
    """The written weight is the float64 product of weight and both scales, rounded one single time."""
    rng = np.random.default_rng(5)
    weight = LAYOUTS[layout](rng, dtype)
    first, second = (Affine.of(rng.uniform(0.5, 2, weight.outputs), 0.0) for _ in range(2))
    linear = Linear.of(weight).absorb_output(first).absorb_output(second)
    exact = dense(weight) * (first.scale * second.scale)[:, None, None]
    rounded = exact.astype(dtype.numpy())
    assert (dense(written(linear)) == rounded.astype(np.float64)).all()
    if dtype is not ir.DataType.DOUBLE:  # the test can tell: rounding after each step differs
        stepwise = (dense(weight) * first.scale[:, None, None]).astype(dtype.numpy()).astype(np.float64)
        stepwise = (stepwise * second.scale[:, None, None]).astype(dtype.numpy())
        assert (stepwise != rounded).any()


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=lambda dtype: dtype.name)
@given(seed=st.integers(0, 2**16))
def test_written_weights_are_off_by_half_a_step_at_most(dtype: ir.DataType, seed: int) -> None:
    """Each written element is the nearest one of its dtype to the float64 product."""
    rng = np.random.default_rng(seed)
    weight = conv_weight(rng, 2, dtype)
    scale = rng.uniform(0.1, 4, weight.outputs)
    tensor = Linear.of(weight).absorb_output(Affine.of(scale, 0.0)).weight_tensor("w")
    exact = weight.stored.astype(np.float64) * scale[:, None, None]
    step = np.spacing(np.abs(exact).astype(dtype.numpy())).astype(np.float64)
    assert (np.abs(tensor.numpy().astype(np.float64) - exact) <= step / 2).all()


def test_bfloat16_weights_are_rounded_once_too() -> None:
    """A product just above the middle of two bfloat16 numbers goes up, not to even by way of float32."""
    bfloat16 = ir.DataType.BFLOAT16.numpy()
    weight = Weight(np.ones((1, 1), bfloat16), ir.DataType.BFLOAT16, 0, 1)
    middle = 1 + 2.0**-8 + 2.0**-40
    tensor = Linear.of(weight).absorb_output(Affine.of(middle, 0.0)).weight_tensor("w")
    assert float(tensor.numpy()[0, 0]) == 1 + 2.0**-7


@layouts
@pytest.mark.parametrize("block_elements", [1, 7, 10**6])
def test_tofile_writes_what_numpy_holds(
    layout: str, block_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes written block by block are those of the whole array, whatever the block's size."""
    monkeypatch.setattr("infold.fold.linear.BLOCK_ELEMENTS", block_elements)
    rng = np.random.default_rng(3)
    weight = LAYOUTS[layout](rng, ir.DataType.FLOAT)
    scale = rng.uniform(0.5, 2, weight.outputs)
    tensor = Linear.of(weight).absorb_output(Affine.of(scale, 0.0)).weight_tensor("w")
    file = io.BytesIO()
    tensor.tofile(file)
    assert file.getvalue() == tensor.numpy().tobytes() == tensor.tobytes()
    expected = (dense(weight) * scale[:, None, None]).astype(np.float32)
    read = Weight(tensor.numpy(), weight.dtype, weight.out_axis, weight.in_axis, weight.groups)
    assert (dense(read) == expected).all()


@layouts
@pytest.mark.parametrize("block_elements", [1, 7, 10**6])
@pytest.mark.parametrize("dtype", [*DTYPES, ir.DataType.BFLOAT16])
def test_the_peak_of_a_channel_is_exact(
    layout: str, block_elements: int, dtype: ir.DataType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest magnitude as stored, be it subnormal or negative, whatever the dtype."""
    monkeypatch.setattr("infold.fold.linear.BLOCK_ELEMENTS", block_elements)
    weight = LAYOUTS[layout](np.random.default_rng(5), dtype)
    weight.stored[-1] *= -1000
    weight.stored[0] = np.finfo(np.float16).smallest_subnormal
    assert (weight.peaks() == np.abs(dense(weight)).max(axis=(1, 2))).all()


@layouts
@pytest.mark.parametrize("block_elements", [1, 10**6])
def test_a_weight_that_overflows_is_refused_with_its_channel(
    layout: str, block_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 ends at 65504: a scale that goes beyond is refused, and the channel is named."""
    monkeypatch.setattr("infold.fold.linear.BLOCK_ELEMENTS", block_elements)
    weight = LAYOUTS[layout](np.random.default_rng(1), ir.DataType.FLOAT16)
    for channel in range(weight.outputs):
        scale = np.ones(weight.outputs)
        scale[channel] = 1e8
        linear = Linear.of(weight).absorb_output(Affine.of(scale, 0.0))
        with pytest.raises(Refused, match=f"channel {channel} .*above the largest float16") as caught:
            linear.weight_tensor("w")
        assert caught.value.reason is Reason.NOT_REPRESENTABLE


@layouts
def test_a_weight_that_vanishes_is_refused_with_its_channel(layout: str) -> None:
    """A channel whose largest weight falls below the normal numbers would lose its bits."""
    weight = LAYOUTS[layout](np.random.default_rng(1), ir.DataType.FLOAT16)
    for channel in range(weight.outputs):
        scale = np.ones(weight.outputs)
        scale[channel] = 1e-8
        linear = Linear.of(weight).absorb_output(Affine.of(scale, 0.0))
        with pytest.raises(Refused, match=f"channel {channel} .*below the smallest normal") as caught:
            linear.weight_tensor("w")
        assert caught.value.reason is Reason.NOT_REPRESENTABLE


def test_a_dead_channel_is_exact() -> None:
    """A scale of zero writes zeros and is no loss of bits."""
    weight = conv_weight(np.random.default_rng(1), 2, ir.DataType.FLOAT16)
    scale = np.array([1.0, 0.0, 1.0, 1.0])
    tensor = Linear.of(weight).absorb_output(Affine.of(scale, 0.0)).weight_tensor("w")
    assert not tensor.numpy()[1].any() and tensor.numpy()[0].any()


def test_one_small_element_beside_large_ones_is_no_loss() -> None:
    """Only a channel that is small throughout vanishes; single small weights do not matter."""
    stored = np.array([[1.0, 2.0**-13]], np.float16)
    weight = Weight(stored, ir.DataType.FLOAT16, 0, 1)
    tensor = Linear.of(weight).absorb_output(Affine.of(0.125, 0.0)).weight_tensor("w")
    assert tensor.numpy().tolist() == [[0.125, 2.0**-16]]


def test_a_bias_that_overflows_is_refused_with_its_channel() -> None:
    """The shift goes into the bias, which has the weight's dtype."""
    weight = conv_weight(np.random.default_rng(1), 1, ir.DataType.FLOAT16)
    linear = Linear.of(weight).absorb_output(Affine.of(1.0, [0.0, -7e4]))
    with pytest.raises(Refused, match="bias of channel 1 .*above the largest float16") as caught:
        linear.bias_tensor("b")
    assert caught.value.reason is Reason.NOT_REPRESENTABLE


def test_a_nan_is_never_representable() -> None:
    """A weight that holds NaN is refused rather than written."""
    weight = Weight(np.array([[np.nan, 1.0]], np.float32), ir.DataType.FLOAT, 0, 1)
    with pytest.raises(Refused, match="channel 0"):
        Linear.of(weight).weight_tensor("w")


def test_a_tiny_bias_may_vanish() -> None:
    """A bias is added, not multiplied: below the normal numbers nothing of the sum is lost."""
    weight = conv_weight(np.random.default_rng(1), 1, ir.DataType.FLOAT16)
    linear = Linear.of(weight).absorb_output(Affine.of(1.0, [1e-9, 0.0]))
    assert linear.bias_tensor("b").numpy().tolist() == [0.0, 0.0]


def test_the_bias_keeps_its_float64_until_it_is_read() -> None:
    """The exact bias is at hand for the next fold; what is read is rounded."""
    weight = conv_weight(np.random.default_rng(1), 1, ir.DataType.FLOAT)
    bias = Linear.of(weight).absorb_output(Affine.of(1.0, [0.1, 0.2])).bias_tensor("b")
    assert isinstance(bias, FoldedBias)
    assert bias.exact.tolist() == [0.1, 0.2]
    assert bias.numpy().dtype == np.float32
    assert bias.numpy().tolist() == np.array([0.1, 0.2], np.float32).tolist()


def test_the_stored_weight_is_left_alone() -> None:
    """Reading the product, several times and in blocks, never multiplies the original."""
    weight = conv_weight(np.random.default_rng(1), 1)
    before = weight.stored.copy()
    tensor = Linear.of(weight).absorb_output(Affine.of(3.0, 0.0).over(2)).weight_tensor("w")
    assert isinstance(tensor, FoldedTensor)
    first, second = tensor.numpy().copy(), tensor.numpy()
    assert (weight.stored == before).all() and (first == second).all()
