"""Norms written out as arithmetic with constants, and constants that only look like norms."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphs import Folded, fold, model, norm, normal
from infold.fold import Reason
from infold.tensors import Array
from oracle import assert_equal_within_rounding, run

C = 4
CHANNEL = (1, C, 1, 1)
CONV = "[conv] c = Conv <pads=[1,1,1,1]> (x, w, b)"


def conv_then(tail: str, constants: dict[str, Array], *, side: int = 5, opset: int = 17) -> onnx.ModelProto:
    """`x -> Conv -> c -> tail -> y` on [N, 2, side, side]."""
    return model(
        f"g (float[N,2,{side},{side}] x) => (float[N,{C},{side},{side}] y) {{ {CONV} {tail} }}",
        {"w": normal(C, 2, 3, 3), "b": normal(C, seed=1), **constants},
        opset=opset,
    )


def feeds(side: int = 5) -> dict[str, Array]:
    return {"x": normal(2, 2, side, side, seed=5)}


def shaped(seed: int, *shape: int, low: float = 0.5) -> Array:
    """Factors away from zero, of both signs."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(low, 2, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def assert_folds_into_conv(proto: onnx.ModelProto, side: int = 5) -> Folded:
    folded = fold(proto)
    assert folded.ops == ["Conv"], [d.why for d in folded.report.decisions]
    onnx.checker.check_model(folded.proto, full_check=True)
    assert_equal_within_rounding(proto, folded.proto, feeds(side))
    return folded


def assert_kept(proto: onnx.ModelProto, side: int = 5) -> Folded:
    folded = fold(proto)
    assert folded.ops == [node.op_type for node in proto.graph.node]
    assert_equal_within_rounding(proto, folded.proto, feeds(side))
    return folded


def test_sub_div_mul_add() -> None:
    """A norm from scratch, parameters of shape (1, C, 1, 1): one site of four nodes, gone."""
    proto = conv_then(
        "d = Sub (c, mean)  e = Div (d, deviation)  f = Mul (e, gamma)  [norm] y = Add (f, beta)",
        {n: shaped(i, *CHANNEL) for i, n in enumerate(["mean", "deviation", "gamma", "beta"])},
    )
    folded = assert_folds_into_conv(proto)
    assert folded.only.spelling == "Sub,Div,Mul,Add"
    assert folded.only.site == "norm"
    assert folded.only.parameters is None and folded.only.affine is not None


def test_mul_add() -> None:
    """A norm already reduced to scale and shift."""
    proto = conv_then(
        "f = Mul (c, scale)  y = Add (f, shift)", {"scale": shaped(1, *CHANNEL), "shift": shaped(2, *CHANNEL)}
    )
    assert assert_folds_into_conv(proto).only.spelling == "Mul,Add"


@pytest.mark.parametrize("shape", [(C, 1, 1), (1, C, 1, 1)])
def test_leading_axes_of_one_may_be_left_out(shape: tuple[int, ...]) -> None:
    """(C, 1, 1) broadcasts to the same place as (1, C, 1, 1)."""
    assert_folds_into_conv(conv_then("y = Mul (c, k)", {"k": shaped(1, *shape)}))


@pytest.mark.parametrize(
    ("tail", "spelling"),
    [
        ("y = Mul (k, c)", "Mul"),
        ("y = Add (k, c)", "Add"),
        ("y = Sub (k, c)", "Sub"),
        ("y = Sub (c, k)", "Sub"),
        ("y = Div (c, k)", "Div"),
        ("n = Neg (c) y = Mul (n, k)", "Neg,Mul"),
        ("n = Mul (c, k) y = Neg (n)", "Mul,Neg"),
        ("s = Sub (k, c) y = Sub (k, s)", "Sub,Sub"),
        ("s = Mul (k, c) t = Sub (k, s) y = Add (k, t)", "Mul,Sub,Add"),
    ],
)
def test_constants_on_either_side(tail: str, spelling: str) -> None:
    """Where the constant stands decides the sign, and nothing else."""
    folded = assert_folds_into_conv(conv_then(tail, {"k": shaped(3, *CHANNEL)}))
    assert folded.report.decisions[0].spelling == spelling


def test_constant_minus_data_negates() -> None:
    """`c - x` has scale -1 and shift c."""
    folded = fold(conv_then("y = Sub (k, c)", {"k": shaped(3, *CHANNEL)}))
    (decision,) = folded.report.decisions
    assert decision.affine is not None
    assert (decision.affine.scale == -1).all()
    assert (decision.affine.shift == shaped(3, *CHANNEL).reshape(-1)).all()
    assert decision.is_norm


def test_constant_over_data_is_no_affine() -> None:
    """`c / x` is never folded, and is no site at all."""
    folded = assert_kept(conv_then("y = Div (k, c)", {"k": shaped(3, *CHANNEL)}))
    assert folded.report.decisions == ()


def test_constant_over_data_ends_a_chain() -> None:
    """What follows a division by the data stays behind it."""
    proto = conv_then("d = Div (k, c)  f = Mul (d, k)  y = Add (f, k)", {"k": shaped(3, *CHANNEL)})
    assert assert_kept(proto).only.refusals[0].reason is Reason.BLOCKED_BY_OP


@pytest.mark.parametrize("shape", [(C,), (1, C), (1, 1, C), (1, C, 1), (C, 1), (1, 1, 1, C)])
def test_equal_lengths_prove_nothing(shape: tuple[int, ...]) -> None:
    """On [N, C, H, W] with C = H = W a constant along H or W is no norm of the channels."""
    proto = conv_then("y = Mul (c, k)", {"k": shaped(3, *shape)}, side=C)
    assert_kept(proto, side=C)


@pytest.mark.parametrize("shape", [(C, 1, 1, 1), (1, C, C, 1), (1, C, 1, C), (C, C, 1, 1)])
def test_more_than_channels_is_no_norm(shape: tuple[int, ...]) -> None:
    """A constant that varies along the batch, or along two axes, is not per channel."""
    proto = model(
        f"g (float[{C},2,{C},{C}] x) => (float[{C},{C},{C},{C}] y) {{ {CONV} y = Mul (c, k) }}",
        {"w": normal(C, 2, 3, 3), "b": normal(C, seed=1), "k": shaped(3, *shape)},
    )
    folded = fold(proto)
    assert folded.ops == ["Conv", "Mul"]
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(C, 2, C, C)})


def test_a_constant_that_adds_an_axis_is_kept() -> None:
    """One element of rank 5 would turn the data into rank 5."""
    proto = model(
        f"g (float[N,2,5,5] x) => (float[1,N,{C},5,5] y) {{ {CONV} y = Mul (c, k) }}",
        {"w": normal(C, 2, 3, 3), "b": normal(C, seed=1), "k": shaped(3, 1, 1, 1, 1, 1)},
    )
    assert_kept(proto)


def test_a_constant_that_enlarges_the_data_is_kept() -> None:
    """One channel times C constants gives C channels: that is no scaling of a channel."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,{C},5,5] y) {{
            c = Conv <pads=[1,1,1,1]> (x, w)  y = Mul (c, k) }}""",
        {"w": normal(1, 2, 3, 3), "k": shaped(3, *CHANNEL)},
    )
    assert_kept(proto)


def test_a_scalar_goes_with_any_axis() -> None:
    """A factor of one element is absorbed, but nothing a user would call a norm."""
    proto = conv_then("y = Mul (c, k)", {"k": np.array(0.25, np.float32)})
    folded = assert_folds_into_conv(proto)
    assert folded.report.norms == () and len(folded.report.decisions) == 1


def test_a_scalar_between_joins_the_chain() -> None:
    """Scalars and channel constants are one site."""
    proto = conv_then(
        "d = Mul (c, half)  e = Add (d, k)  y = Sub (e, half)",
        {"k": shaped(3, *CHANNEL), "half": np.array([0.5], np.float32)},
    )
    assert assert_folds_into_conv(proto).only.spelling == "Mul,Add,Sub"


def test_two_axes_are_two_sites() -> None:
    """A chain ends where the next constant lies along another axis; the first half folds alone."""
    proto = conv_then("d = Mul (c, k)  y = Add (d, row)", {"k": shaped(3, *CHANNEL), "row": shaped(4, 5)})
    folded = fold(proto)
    assert folded.ops == ["Conv", "Add"]
    assert_equal_within_rounding(proto, folded.proto, feeds())


def test_division_by_zero_is_refused() -> None:
    """An infinite scale is reported, not folded."""
    zeros = shaped(3, *CHANNEL)
    zeros[0, 2] = 0
    folded = fold(conv_then("d = Div (c, k)  y = Add (d, k)", {"k": zeros}))
    (refusal,) = folded.only.refusals
    assert refusal.reason is Reason.INVALID_STATISTICS and "channel 2" in refusal.detail


def test_integer_arithmetic_is_no_site() -> None:
    """Shape arithmetic on integers is passed over."""
    proto = model(
        "g (float[N,4] x) => (int64[2] y) { s = Shape (x)  y = Mul (s, k) }",
        {"k": np.array([2, 2], np.int64)},
    )
    assert fold(proto).report.decisions == ()


def test_matmul_and_add_alone_is_a_bias() -> None:
    """A dense layer's own bias is no norm, and stays as it is written."""
    proto = model(
        "g (float[N,3] x) => (float[N,4] y) { h = MatMul (x, w)  y = Add (h, b) }",
        {"w": normal(3, 4), "b": normal(4)},
    )
    folded = fold(proto)
    assert folded.report.decisions == () and folded.ops == ["MatMul", "Add"]


def test_a_bias_behind_conv_is_no_norm() -> None:
    """An Add of (1, C, 1, 1) goes into the convolution, but is not counted as a norm."""
    folded = assert_folds_into_conv(conv_then("y = Add (c, k)", {"k": shaped(3, *CHANNEL)}))
    assert folded.report.norms == ()


# -- parameters behind arithmetic -----------------------------------------------------------------

PARAMETERS = ("gamma", "beta", "mean", "variance")


@pytest.mark.parametrize(
    ("prelude", "shape"),
    [
        (" ".join(f"{p}_ = Identity ({p})" for p in PARAMETERS), (C,)),
        (" ".join(f"{p}_ = Reshape ({p}, flat)" for p in PARAMETERS), CHANNEL),
        (" ".join(f"{p}_ = Squeeze ({p}, space)" for p in PARAMETERS), (C, 1, 1)),
        (" ".join(f"{p}_ = Squeeze ({p})" for p in PARAMETERS), (1, C, 1)),
    ],
    ids=["identity", "reshape", "squeeze", "squeeze-all"],
)
def test_batch_norm_parameters_behind_relabelling(prelude: str, shape: tuple[int, ...]) -> None:
    """Exporters put Identity, Reshape or Squeeze in front of a parameter; its worth is the same."""
    ints = {"flat": np.array([-1], np.int64), "space": np.array([1, 2], np.int64)}
    used = {name: array for name, array in ints.items() if name in prelude}
    numbers = {name: array.reshape(shape) for name, array in norm(C).items()}
    tail = f"{prelude} y = BatchNormalization (c, gamma_, beta_, mean_, variance_)"
    folded = assert_folds_into_conv(conv_then(tail, numbers | used))
    names = {each.name for each in folded.proto.graph.initializer}
    assert len(names) == 2, "the old parameters are dropped with their arithmetic"


@pytest.mark.parametrize(
    "prelude",
    [
        "k1 = Concat <axis=0> (half, half)",
        "k1 = Gather (long, places)",
        "ones = ConstantOfShape <value = float[1] {1.0}> (shape)  k1 = Mul (ones, whole)",
    ],
)
def test_parameters_that_are_put_together(prelude: str) -> None:
    """Joined, picked or filled in: as long as nothing but constants goes in, it is one."""
    numbers = {
        "half": shaped(3, C // 2, 1, 1),
        "long": shaped(3, C + 2, 1, 1),
        "places": np.arange(C, 0, -1),
        "shape": np.array(CHANNEL),
        "whole": shaped(3, *CHANNEL),
    }
    used = {name: array for name, array in numbers.items() if name in prelude}
    assert_folds_into_conv(conv_then(f"{prelude}  y = Mul (c, k1)", used))


@pytest.mark.parametrize(
    "prelude",
    [
        "g = Reshape (gamma, wrong)",
        "g = Squeeze (gamma, wrong)",
        "g = Expand (gamma, wrong)",
        "g = Gather (gamma, wrong)",
        "g = Add (gamma, long)",
        "g = Cast <to=99> (gamma)",
        "g = Constant ()",
    ],
)
def test_arithmetic_that_cannot_be_done_is_not_constant(prelude: str) -> None:
    """A broken computation of a parameter is a reason, no traceback."""
    proto = conv_then(
        f"{prelude}  y = BatchNormalization (c, g, beta, mean, variance)",
        {**norm(C), "wrong": np.array([7, 5], np.int64), "long": shaped(3, C + 1)},
    )
    assert fold(proto).only.refusals[0].reason is Reason.NOT_CONSTANT


def test_unsqueezed_parameters() -> None:
    """(C,) lifted to (C, 1, 1) by Unsqueeze is per channel."""
    proto = conv_then(
        "k1 = Unsqueeze (k, axes)  y = Mul (c, k1)", {"k": shaped(3, C), "axes": np.array([1, 2], np.int64)}
    )
    assert_folds_into_conv(proto)


def test_unsqueezed_parameters_before_opset_13() -> None:
    """There the axes are an attribute."""
    proto = conv_then("k1 = Unsqueeze <axes=[1, 2]> (k)  y = Mul (c, k1)", {"k": shaped(3, C)}, opset=11)
    assert_folds_into_conv(proto)


def test_cast_parameters() -> None:
    """float16 parameters cast to float32 are worth what the cast gives."""
    half = shaped(3, *CHANNEL).astype(np.float16)
    proto = conv_then("k1 = Cast <to=1> (k)  y = Mul (c, k1)", {"k": half})
    folded = fold(proto)
    assert folded.ops == ["Conv"]
    same = conv_then("y = Mul (c, k)", {"k": half.astype(np.float32)})
    assert_equal_within_rounding(same, folded.proto, feeds())


def test_a_cast_that_rounds_is_taken_at_its_word() -> None:
    """Parameters that the model itself rounds to float16 are folded as rounded."""
    proto = conv_then(
        "h = Cast <to=10> (k)  k1 = Cast <to=1> (h)  y = Mul (c, k1)", {"k": shaped(3, *CHANNEL)}
    )
    folded = fold(proto)
    rounded = shaped(3, *CHANNEL).astype(np.float16).astype(np.float32)
    same = conv_then("y = Mul (c, k)", {"k": rounded})
    assert folded.ops == ["Conv"]
    assert_equal_within_rounding(same, folded.proto, feeds())


def test_square_root_of_variance_and_epsilon() -> None:
    """The whole formula written out, its constants computed in the graph."""
    numbers = {name: array.reshape(CHANNEL) for name, array in norm(C).items()}
    proto = conv_then(
        """v = Add (variance, epsilon)  s = Sqrt (v)  d = Sub (c, mean)  e = Div (d, s)
           f = Mul (e, gamma)  y = Add (f, beta)""",
        numbers | {"epsilon": np.array(1e-3, np.float32)},
    )
    folded = assert_folds_into_conv(proto)
    same = conv_then("y = BatchNormalization <epsilon=0.001> (c, gamma, beta, mean, variance)", norm(C))
    assert_equal_within_rounding(same, folded.proto, feeds())


def test_reciprocal_square_root_as_power() -> None:
    """`(variance + epsilon) ^ -0.5 * gamma` in front of a Mul, as some exporters have it."""
    numbers = {name: array.reshape(CHANNEL) for name, array in norm(C).items()}
    proto = conv_then(
        """v = Add (variance, epsilon)  r = Pow (v, exponent)  s = Mul (r, gamma)
           d = Sub (c, mean)  f = Mul (d, s)  y = Add (f, beta)""",
        numbers | {"epsilon": np.array(1e-3, np.float32), "exponent": np.array(-0.5, np.float32)},
    )
    assert_folds_into_conv(proto)


def test_constants_from_constant_nodes() -> None:
    """A Constant node is as good as an initializer, and goes when nobody reads it any more."""
    proto = conv_then("k = Constant <value=float[1,4,1,1] {1.5,-2.0,0.25,3.0}> ()  y = Mul (c, k)", {})
    assert_folds_into_conv(proto)


def test_an_operator_outside_the_table_is_not_constant() -> None:
    """A parameter computed by an operator that folding does not know stays where it is."""
    tail = "g1 = Sin (gamma)  y = BatchNormalization (c, g1, beta, mean, variance)"
    (refusal,) = fold(conv_then(tail, norm(C))).only.refusals
    assert refusal.reason is Reason.NOT_CONSTANT and "Sin" in refusal.detail


def test_a_parameter_that_the_caller_may_override_is_not_constant() -> None:
    """An initializer that is also a graph input is only a default."""
    proto = conv_then("y = BatchNormalization (c, gamma, beta, mean, variance)", norm(C))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("beta", onnx.TensorProto.FLOAT, [C]))
    (refusal,) = fold(proto).only.refusals
    assert refusal.reason is Reason.NOT_CONSTANT


def test_a_from_scratch_norm_with_channel_parameters_folds_to_its_number() -> None:
    """A textbook implementation with (1, C, 1, 1) parameters, on numbers done by hand.

    conv = identity: (x - 1) / sqrt(3.75 + 0.25) * 3 + 0.5 takes 5 to 6.5 and 1 to 0.5.
    """
    ones = np.ones((1, 2, 1, 1), np.float32)
    proto = model(
        """g (float[N,2,H,W] x) => (float[N,2,H,W] y) {
            c = Conv (x, w)
            centred = Sub (c, mean)  v = Add (variance, epsilon)  deviation = Sqrt (v)
            hat = Div (centred, deviation)  scaled = Mul (gamma, hat)  y = Add (scaled, beta) }""",
        {
            "w": np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1),
            "mean": ones,
            "variance": 3.75 * ones,
            "epsilon": np.array(0.25, np.float32),
            "gamma": 3 * ones,
            "beta": ones / 2,
        },
    )
    folded = fold(proto)
    assert folded.ops == ["Conv"]
    (y,) = run(folded.proto, {"x": np.array([5, 1], np.float32).reshape(1, 2, 1, 1)})
    assert y.reshape(-1).tolist() == [6.5, 0.5]
