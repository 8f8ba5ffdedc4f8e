"""Every reason for keeping a norm has a graph that triggers it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from graphs import conv_norm, fold, model, norm, normal, op_types
from infold.fold import Outcome, Reason

BN = "BatchNormalization <epsilon=0.001>"
PARAMETERS = "gamma, beta, mean, variance"


def graph_input() -> onnx.ModelProto:
    """A norm right behind the input."""
    return model(
        f"g (float[N,4] x) => (float[N,4] y) {{ [bn] y = {BN} (x, gamma, beta, mean, variance) }}", norm(4)
    )


def graph_output() -> onnx.ModelProto:
    """The convolution's own result is an output too."""
    return model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] c, float[N,4,3,3] y) {{
            c = Conv (x, w)  [bn] y = {BN} (c, gamma, beta, mean, variance) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )


def shared_output() -> onnx.ModelProto:
    """A shortcut reads what the norm reads."""
    return model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv (x, w)  [bn] n = {BN} (c, gamma, beta, mean, variance)  y = Add (c, n) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )


def captured_by_subgraph() -> onnx.ModelProto:
    """The branch of an If reads what the norm reads."""
    return model(
        f"""g (float[N,2,5,5] x, bool p) => (float[N,4,3,3] y, float[N,4,3,3] z) {{
            c = Conv (x, w)  [bn] y = {BN} (c, gamma, beta, mean, variance)
            z = If (p) <then_branch = t () => (float[N,4,3,3] a) {{ a = Relu (c) }},
                        else_branch = e () => (float[N,4,3,3] b) {{ b = Neg (c) }}> }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )


def not_constant() -> onnx.ModelProto:
    """The caller brings beta."""
    return model(
        f"""g (float[N,2,5,5] x, float[4] beta) => (float[N,4,3,3] y) {{
            c = Conv (x, w)  [bn] y = {BN} (c, gamma, beta, mean, variance) }}""",
        {"w": normal(4, 2, 3, 3), **{k: v for k, v in norm(4).items() if k != "beta"}},
    )


def training_mode() -> onnx.ModelProto:
    """Exported without leaving training mode."""
    return model(
        """g (float[N,2,5,5] x) => (float[N,4,3,3] y) {
            c = Conv (x, w)
            [bn] y, m, v = BatchNormalization <training_mode=1> (c, gamma, beta, mean, variance) }""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
        opset=15,
    )


def axis_mismatch() -> onnx.ModelProto:
    """A dense layer on sequences has its channels last; the norm has them on axis 1."""
    return model(
        f"""g (float[N,4,3] x) => (float[N,4,4] y) {{
            h = MatMul (x, w)  [bn] y = {BN} (h, gamma, beta, mean, variance) }}""",
        {"w": normal(3, 4), **norm(4)},
    )


def unknown_shape() -> onnx.ModelProto:
    """Nobody knows the rank of the product."""
    made = model(
        f"""g (float[N,3] x, int64[R] s) => (float[N,4] y) {{
            r = Reshape (x, s)  h = MatMul (r, w)  [bn] y = {BN} (h, gamma, beta, mean, variance) }}""",
        {"w": normal(3, 4), **norm(4)},
    )
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


def blocked_by_op() -> onnx.ModelProto:
    """The activation comes before the norm."""
    return model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv (x, w)  r = Sigmoid (c)  [bn] y = {BN} (r, gamma, beta, mean, variance) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )


def invalid_statistics() -> onnx.ModelProto:
    """A moving variance below zero."""
    made = conv_norm()
    values = norm(4)["variance"].copy()
    values[2] = -0.5
    for tensor in made.graph.initializer:
        if tensor.name == "variance":
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "variance"))
    return made


def not_representable() -> onnx.ModelProto:
    """A moving variance near zero makes a scale that float16 cannot hold."""
    made = conv_norm(dtype="float16")
    for tensor in made.graph.initializer:
        if tensor.name == "gamma":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 6e4, np.float16), "gamma"))
        if tensor.name == "variance":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 1e-7, np.float16), "variance"))
    return made


def zero_padding() -> onnx.ModelProto:
    """A norm with a shift in front of a padded convolution, whose zeros the norm never saw."""
    return model(
        f"""g (float[N,4,5,5] x) => (float[N,2,5,5] y) {{
            [bn] n = {BN} (x, {PARAMETERS})  y = Conv <pads=[1,1,1,1]> (n, w) }}""",
        {"w": normal(2, 4, 3, 3), **norm(4)},
    )


def scattered_border() -> onnx.ModelProto:
    """A norm with a shift in front of a transposed convolution, whose borders see fewer taps."""
    return model(
        f"""g (float[N,4,5,5] x) => (float[N,2,7,7] y) {{
            [bn] n = {BN} (x, {PARAMETERS})  y = ConvTranspose (n, w) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )


def negative_scale() -> onnx.ModelProto:
    """A maximum turns into a minimum under a negative scale."""
    numbers = norm(4) | {"gamma": np.array([1, -1, 1, 1], np.float32)}
    return model(
        f"""g (float[N,2,6,6] x) => (float[N,4,2,2] y) {{
            c = Conv (x, w)  p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c)
            [bn] y = {BN} (p, {PARAMETERS}) }}""",
        {"w": normal(4, 2, 3, 3), **numbers},
    )


def shift_not_movable() -> onnx.ModelProto:
    """A positive scale would pass a Relu, a shift does not."""
    numbers = norm(4) | {"gamma": np.ones(4, np.float32)}
    return model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv (x, w)  r = Relu (c)  [bn] y = {BN} (r, {PARAMETERS}) }}""",
        {"w": normal(4, 2, 3, 3), **numbers},
    )


def costs_more() -> onnx.ModelProto:
    """Two readers would need a bias of their own each: four nodes instead of three."""
    return model(
        f"""g (float[N,4,5] x) => (float[N,3,5] y, float[N,3,5] z) {{
            [bn] n = {BN} (x, {PARAMETERS})  y = MatMul (w, n)  z = MatMul (v, n) }}""",
        {"w": normal(3, 4), "v": normal(3, 4, seed=1), **norm(4)},
    )


def quantized() -> onnx.ModelProto:
    """A norm in front of integer weights: a scale for each input has no place in them."""
    integers = np.arange(24, dtype=np.int8).reshape(6, 4, 1, 1)
    return model(
        f"""g (float[N,4,5,5] x) => (float[N,6,5,5] y) {{
            [bn] n = {BN} (x, {PARAMETERS})
            w = DequantizeLinear <axis=0> (q, s)  y = Conv (n, w) }}""",
        {"q": integers, "s": np.full(6, 0.5, np.float32), **norm(4)},
    )


GRAPHS: dict[Reason, Callable[[], onnx.ModelProto]] = {
    Reason.GRAPH_INPUT: graph_input,
    Reason.GRAPH_OUTPUT: graph_output,
    Reason.SHARED_OUTPUT: shared_output,
    Reason.CAPTURED_BY_SUBGRAPH: captured_by_subgraph,
    Reason.NOT_CONSTANT: not_constant,
    Reason.TRAINING_MODE: training_mode,
    Reason.AXIS_MISMATCH: axis_mismatch,
    Reason.UNKNOWN_SHAPE: unknown_shape,
    Reason.BLOCKED_BY_OP: blocked_by_op,
    Reason.ZERO_PADDING: zero_padding,
    Reason.SCATTERED_BORDER: scattered_border,
    Reason.NEGATIVE_SCALE: negative_scale,
    Reason.SHIFT_NOT_MOVABLE: shift_not_movable,
    Reason.COSTS_MORE: costs_more,
    Reason.QUANTIZED: quantized,
    Reason.INVALID_STATISTICS: invalid_statistics,
    Reason.NOT_REPRESENTABLE: not_representable,
}


def test_every_reason_has_a_graph() -> None:
    """A reason that nothing triggers would be a reason nobody has seen."""
    assert set(GRAPHS) == set(Reason)


@pytest.mark.parametrize("reason", GRAPHS, ids=str)
def test_reason(reason: Reason) -> None:
    """The norm is kept for this reason, and the graph stays exactly as it was."""
    proto = GRAPHS[reason]()
    folded = fold(proto)
    decision = folded.only
    assert decision.outcome is Outcome.KEPT
    assert decision.site == "bn"
    assert reason in [refusal.reason for refusal in decision.refusals]
    assert reason.value in decision.why
    assert decision.at
    assert folded.report.kept == (decision,) and folded.report.folded == ()
    assert list(op_types(folded.proto.graph)) == list(op_types(proto.graph))
    assert {t.name: t.raw_data for t in folded.proto.graph.initializer} == {
        t.name: t.raw_data for t in proto.graph.initializer
    }


@pytest.mark.parametrize(
    ("node", "detail"),
    [
        ("y = BatchNormalization (c, gamma, beta, mean)", "fewer than five inputs"),
        ("y = BatchNormalization (c, gamma, beta, mean, longer)", "differ"),
        ("y = BatchNormalization (c, gamma, beta, mean, matrix)", "not [C]"),
        ("y = BatchNormalization (c, gamma, beta, mean, not_a_number)", "channel 1 is nan"),
        ("y = BatchNormalization (c, gamma, beta, mean, endless)", "channel 1 is inf"),
        ("y = BatchNormalization <epsilon=0.0> (c, gamma, beta, mean, zero)", "channel 1 is 0"),
        ("y = BatchNormalization (c, gamma, beta, endless, variance)", "shift of channel 1"),
    ],
)
def test_statistics_that_make_no_sense(node: str, detail: str) -> None:
    """Missing, ragged, multi-dimensional, NaN, infinite and zero statistics are told apart."""
    bad = {
        "longer": normal(5),
        "matrix": np.ones((4, 1), np.float32),
        "not_a_number": np.array([1, np.nan, 1, 1], np.float32),
        "endless": np.array([1, np.inf, 1, 1], np.float32),
        "zero": np.array([1, 0, 1, 1], np.float32),
    }
    used = {name: array for name, array in (norm(4) | bad).items() if name in node}
    proto = model(
        f"g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{ c = Conv (x, w)  {node} }}",
        {"w": normal(4, 2, 3, 3), **used},
    )
    (refusal,) = fold(proto).only.refusals
    assert refusal.reason is Reason.INVALID_STATISTICS and detail in refusal.detail


def test_a_zero_variance_with_an_epsilon_folds() -> None:
    """A dead channel is legal: epsilon keeps its scale finite."""
    numbers = norm(4) | {"variance": np.array([1, 0, 1, 1], np.float32)}
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv (x, w)  y = {BN} (c, gamma, beta, mean, variance) }}""",
        {"w": normal(4, 2, 3, 3), **numbers},
    )
    assert fold(proto).ops == ["Conv"]


def test_statistics_for_another_number_of_channels() -> None:
    """Five statistics cannot belong to four channels."""
    proto = model(
        f"g (float[N,2,5,5] x) => (float y) {{ c = Conv (x, w)  y = {BN} (c, gamma, beta, mean, variance) }}",
        {"w": normal(4, 2, 3, 3), **norm(5)},
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    (refusal,) = fold(proto).only.refusals
    assert refusal.reason is Reason.INVALID_STATISTICS


# -- training in its disguises --------------------------------------------------------------------


def disguised(node: str, opset: int) -> onnx.ModelProto:
    return model(
        f"g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{ c = Conv (x, w)  {node} }}",
        {"w": normal(4, 2, 3, 3), **norm(4)},
        opset=opset,
    )


@pytest.mark.parametrize(
    ("opset", "node", "reason"),
    [
        (
            15,
            "y, m, v = BatchNormalization <training_mode=1> (c, gamma, beta, mean, variance)",
            "training-mode",
        ),
        (
            14,
            "y, m, v = BatchNormalization <training_mode=1> (c, gamma, beta, mean, variance)",
            "training-mode",
        ),
        (15, "y = BatchNormalization <training_mode=1> (c, gamma, beta, mean, variance)", "training-mode"),
        (9, "y, m, v, sm, sv = BatchNormalization (c, gamma, beta, mean, variance)", "training-mode"),
        (7, "y, m, v, sm, sv = BatchNormalization (c, gamma, beta, mean, variance)", "training-mode"),
        (6, "y = BatchNormalization <is_test=0> (c, gamma, beta, mean, variance)", "training-mode"),
        (6, "y = BatchNormalization (c, gamma, beta, mean, variance)", "training-mode"),
        (7, "y = BatchNormalization <spatial=0> (c, gamma, beta, mean, variance)", "axis-mismatch"),
        (
            6,
            "y = BatchNormalization <is_test=1, spatial=0> (c, gamma, beta, mean, variance)",
            "axis-mismatch",
        ),
    ],
)
def test_training_is_seen_through_every_disguise(opset: int, node: str, reason: str) -> None:
    """Batch statistics are no constants, however an opset spells them."""
    folded = fold(disguised(node, opset))
    assert [refusal.reason.value for refusal in folded.only.refusals] == [reason]
    assert "BatchNormalization" in folded.ops


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (15, "y = BatchNormalization <training_mode=0> (c, gamma, beta, mean, variance)"),
        (9, "y = BatchNormalization (c, gamma, beta, mean, variance)"),
        (8, "y = BatchNormalization <spatial=1> (c, gamma, beta, mean, variance)"),
        (6, "y = BatchNormalization <is_test=1> (c, gamma, beta, mean, variance)"),
        (
            1,
            "y = BatchNormalization <consumed_inputs=[0,0,0,1,1], is_test=1> (c, " + PARAMETERS + ")",
        ),
    ],
)
def test_inference_folds_in_every_opset(opset: int, node: str) -> None:
    """The same norm as each version of the operator spells it."""
    assert fold(disguised(node, opset)).ops == ["Conv"]


def test_empty_extra_outputs_are_inference() -> None:
    """BatchNormalization-9 with unnamed statistics asks for none of them."""
    proto = disguised("y = BatchNormalization (c, gamma, beta, mean, variance)", 9)
    proto.graph.node[1].output.extend(["", "", "", ""])
    assert fold(proto).ops == ["Conv"]


def test_empty_extra_outputs_are_cut_where_the_norm_stays() -> None:
    """Onnxruntime crashes on them, so a norm that is kept loses them."""
    proto = graph_input()
    proto.opset_import[0].version = 9
    proto.graph.node[0].output.extend(["", "", "", ""])
    folded = fold(proto)
    assert list(folded.proto.graph.node[0].output) == ["y"]
