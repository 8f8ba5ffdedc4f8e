"""A Pad with a constant is crossed if the constant can go through the affine too, or back through it."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from graphs import Folded, fold, initializer, model, normal
from infold.fold import Reason
from infold.tensors import Array
from oracle import assert_equal_within_rounding, run

PADS = np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64)
W = {"w": normal(4, 2, 3, 3), "p": PADS}
X = {"x": normal(2, 2, 6, 6, seed=1)}


def behind(
    scale: float | list[float], shift: float | list[float], value: float, dtype: str = "float32"
) -> onnx.ModelProto:
    """`Conv -> Pad with a value -> Mul -> Add`."""
    kind = "float" if dtype == "float32" else dtype
    numbers = {"k": scale, "l": shift, "v": value}
    constants = {name: np.array(number, dtype) for name, number in numbers.items()}
    constants |= {name: constants[name].reshape(-1, 1, 1) for name in "kl" if constants[name].ndim}
    weights = {"w": W["w"].astype(dtype), "p": PADS, **constants}
    text = f"""g ({kind}[N,2,6,6] x) => ({kind}[N,4,5,5] y) {{
        c = Conv (x, w)  d = Pad (c, p, v)  m = Mul (d, k)  y = Add (m, l) }}"""
    return model(text, weights)


def in_front(scale: float | list[float], shift: float | list[float], value: float) -> onnx.ModelProto:
    """`Mul -> Add -> Pad with a value -> Conv`."""
    constants = {name: np.array(n, np.float32) for name, n in (("k", scale), ("l", shift), ("v", value))}
    constants |= {name: constants[name].reshape(-1, 1, 1) for name in "kl" if constants[name].ndim}
    text = """g (float[N,2,6,6] x) => (float[N,4,5,5] y) {
        m = Mul (x, k)  n = Add (m, l)  d = Pad (n, p, v)  y = Conv (d, w) }"""
    return model(text, {**W, **constants})


def padding(folded: Folded) -> Array:
    """What the Pad pads with."""
    (pad,) = (node for node in folded.proto.graph.node if node.op_type == "Pad")
    return initializer(folded.proto, pad.input[2])


def refusal(proto: onnx.ModelProto, direction: int) -> Reason:
    """Why it was kept."""
    (decision,) = fold(proto).report.decisions
    return decision.refusals[direction].reason


def test_against_the_flow_the_constant_goes_through_the_affine() -> None:
    """Behind the fold the Pad writes what the norm would have made of it."""
    proto = behind(-2.0, 3.0, 5.0)
    folded = fold(proto)
    assert folded.ops == ["Conv", "Pad"] and padding(folded) == np.float32(-7)
    assert_equal_within_rounding(proto, folded.proto, X)


def test_with_the_flow_the_constant_goes_back_through_it() -> None:
    """In front of the fold the Pad writes what the norm would have made the constant of."""
    proto = in_front(-2.0, 3.0, 5.0)
    folded = fold(proto)
    assert folded.ops == ["Pad", "Conv"] and padding(folded) == np.float32(-1)
    assert_equal_within_rounding(proto, folded.proto, X)


def test_zeros_take_any_scale_and_a_shift_that_is_the_same_everywhere() -> None:
    """Nothing times any scale is nothing; then the shift comes, and has to be one number."""
    proto = behind([1.0, -2.0, 3.0, 0.0], 0.5, 0.0)
    folded = fold(proto)
    assert folded.ops == ["Conv", "Pad"] and padding(folded) == np.float32(0.5)
    assert_equal_within_rounding(proto, folded.proto, X)
    assert refusal(behind(2.0, [0.0, 0.0, 0.0, 1.0], 0.0), 0) is Reason.ZERO_PADDING


def test_a_scale_of_zero_cannot_be_gone_back_through() -> None:
    """Unless what comes out is what was padded with anyway."""
    assert refusal(in_front(0.0, 3.0, 5.0), 1) is Reason.BLOCKED_BY_OP
    proto = in_front([0.0, 2.0], [5.0, 1.0], 5.0)
    folded = fold(proto)
    assert folded.ops == ["Pad", "Conv"] and padding(folded) == np.float32(2)
    assert_equal_within_rounding(proto, folded.proto, X)


def test_two_affines_round_the_constant_once() -> None:
    """The second starts from the exact number, as weights do."""
    proto = behind(0.1, 0.1, 0.1)
    again = onnx.ModelProto()
    again.CopyFrom(proto)
    again.graph.node[-1].output[0] = "a"
    again.graph.node.extend(
        [
            onnx.helper.make_node("Identity", ["a"], ["i"]),
            onnx.helper.make_node("Mul", ["i", "k"], ["b"]),
            onnx.helper.make_node("Add", ["b", "l"], ["y"]),
        ]
    )
    folded = fold(again)
    assert folded.ops == ["Conv", "Pad", "Identity"]
    tenth = float(np.float32(0.1))
    exact = (tenth * tenth + tenth) * tenth + tenth
    assert padding(folded) == np.float32(exact)
    assert_equal_within_rounding(again, folded.proto, X)


def test_a_constant_that_others_read_is_copied() -> None:
    """Another Pad with the same constant goes on padding with it."""
    proto = behind(-2.0, 3.0, 5.0)
    proto.graph.node.append(onnx.helper.make_node("Pad", ["x", "p", "v"], ["z"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 2, 7, 7]))
    folded = fold(proto)
    assert initializer(folded.proto, "v") == np.float32(5)
    assert_equal_within_rounding(proto, folded.proto, X)


def test_a_constant_that_the_type_cannot_hold_is_refused() -> None:
    """Neither infinity nor a few bits of a subnormal number stand for it."""
    assert refusal(behind(60.0, 0.0, 3000.0, "float16"), 0) is Reason.NOT_REPRESENTABLE
    assert refusal(behind(2.0**-10, 0.0, 2.0**-10, "float16"), 0) is Reason.NOT_REPRESENTABLE
    assert refusal(in_front(1e-30, 1.0, 1e10), 1) is Reason.NOT_REPRESENTABLE


@pytest.mark.parametrize(("scale", "crosses"), [(1.0, True), (-1.0, False), (0.0, False)])
def test_minus_infinity_stays_what_it_is_under_a_positive_scale(scale: float, crosses: bool) -> None:
    """It is padded with in front of a maximum, where nothing else may win."""
    text = """g (float[N,2,6,6] x) => (float[N,4,4,4] y) {
        c = Conv (x, w)  d = Pad (c, p, v)  m = Mul (d, k)  a = Add (m, l)
        y = MaxPool <kernel_shape=[2,2]> (a) }"""
    k = np.array([0.5, 2.0, 3.0, scale], np.float32).reshape(-1, 1, 1)
    numbers = {"k": k, "l": normal(4, 1, 1), "v": np.array(-np.inf, np.float32)}
    proto = model(text, {**W, **numbers})
    folded = fold(proto)
    assert folded.ops == (["Conv", "Pad", "MaxPool"] if crosses else [n.op_type for n in proto.graph.node])
    for want, got in zip(run(proto, X), run(folded.proto, X), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("opset", "pad"),
    [
        (7, "Pad <pads=[0,0,1,0,0,0,0,1], value=5.0> (c)"),
        (10, "Pad <pads=[0,0,1,0,0,0,0,1]> (c)"),
        (11, "Pad (c, p, v)"),
        (13, "Pad (c, p)"),
        (18, "Pad (c, q, v, axes)"),
        (21, "Pad (c, q, , axes)"),
    ],
)
def test_every_spelling_of_pad(opset: int, pad: str) -> None:
    """The constant is an attribute, an input or not there at all; axes may be chosen."""
    text = f"""g (float[N,2,6,6] x) => (float[N,4,5,5] y) {{
        c = Conv (x, w)  d = {pad}  m = Mul (d, k)  y = Add (m, l) }}"""
    constants = {
        "v": np.array(5, np.float32),
        "k": np.array(-2, np.float32),
        "l": np.array(3, np.float32),
        "q": np.array([1, 0, 0, 1], np.int64),
        "axes": np.array([2, -1], np.int64),
    }
    names = set(re.findall(r"\w+", text))
    used = {name: array for name, array in {**W, **constants}.items() if name in names}
    proto = model(text, used, opset=opset, ir_version=10 if opset > 18 else 8)
    folded = fold(proto)
    assert folded.ops == ["Conv", "Pad"]
    onnx.checker.check_model(folded.proto, full_check=True)
    assert_equal_within_rounding(proto, folded.proto, X)


def test_a_pad_that_only_crops_has_no_constant_to_map() -> None:
    """Taking away is no padding."""
    text = """g (float[N,2,6,6] x) => (float[N,4,3,4] y) {
        c = Conv (x, w)  d = Pad (c, p, v)  m = Mul (d, k)  y = Add (m, l) }"""
    numbers = {
        "w": W["w"],
        "p": np.array([0, 0, -1, 0, 0, 0, 0, 0], np.int64),
        "v": np.array(5, np.float32),
        "k": normal(4, 1, 1),
        "l": normal(4, 1, 1, seed=3),
    }
    proto = model(text, numbers)
    folded = fold(proto)
    assert folded.ops == ["Conv", "Pad"] and padding(folded) == np.float32(5)
    for want, got in zip(run(proto, X), run(folded.proto, X), strict=True):  # onnx's reference cannot crop
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
