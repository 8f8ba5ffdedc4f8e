"""Every layout x group x bias x dtype: folding a norm behind a linear op changes nothing but its place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import ONNX_TYPES, Folded, fold, model, norm, normal
from infold.fold import Reason
from infold.tensors import Array
from oracle import assert_equal_within_rounding

SEEDS = st.integers(0, 2**16)


@dataclass(frozen=True, slots=True)
class Case:
    """A linear op with a norm behind it, and inputs for it.

    Attributes:
        node: The linear op as text, `h = Op <...> (x, w)`.
        shape: Shape of `x`; the first axis is symbolic in the graph.
        channels: Number of outputs.
        weights: The linear op's initializers.
        dtype: Of everything.
        tail: What turns `h` into `y`.
    """

    node: str
    shape: tuple[int, ...]
    channels: int
    weights: dict[str, Array] = field(default_factory=dict)
    dtype: str = "float32"
    tail: str = "[bn] y = BatchNormalization <epsilon=0.001> (h, gamma, beta, mean, variance)"

    def proto(self, seed: int) -> onnx.ModelProto:
        kind = ONNX_TYPES[self.dtype]
        text = f"""g ({kind}[N,{",".join(map(str, self.shape[1:]))}] x) => ({kind} y) {{
            {self.node}
            {self.tail}
        }}"""
        made = model(text, {**self.weights, **norm(self.channels, seed, self.dtype)})
        made.graph.output[0].type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True)
        made.graph.output[0].CopyFrom(inferred.graph.output[0])
        return made

    def feeds(self, seed: int) -> dict[str, Array]:
        return {"x": normal(*self.shape, seed=seed + 1, dtype=self.dtype)}


def assert_folds(case: Case, seed: int, into: str, *, has_kernels: bool = True) -> Folded:
    """Everything that is promised of one fold."""
    proto = case.proto(seed)
    before = proto.SerializeToString(deterministic=True)
    folded = fold(proto)
    assert proto.SerializeToString(deterministic=True) == before, "the source changed"
    assert "BatchNormalization" not in folded.ops
    assert folded.only.into_op == into, folded.only.why
    assert len(folded.ops) <= len(proto.graph.node)
    assert folded.report.nodes_before == len(proto.graph.node)
    assert folded.report.nodes_after == len(folded.ops)
    assert_same_interface(proto, folded.proto)
    old = {tensor.name for tensor in proto.graph.initializer}
    new = [tensor.name for tensor in folded.proto.graph.initializer]
    assert all(new) and len(set(new)) == len(new) and old.isdisjoint(new)
    onnx.checker.check_model(folded.proto, full_check=True)
    assert_equal_within_rounding(proto, folded.proto, case.feeds(seed), has_kernels=has_kernels)
    return folded


def assert_same_interface(proto: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    """Inputs and outputs keep name, dtype and shape, symbols included."""
    for before, after in ((proto.graph.input, folded.graph.input), (proto.graph.output, folded.graph.output)):
        assert [facts(value) for value in before] == [facts(value) for value in after]


def facts(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    kind = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim]
    return value.name, kind.elem_type, dims


# -- Conv -----------------------------------------------------------------------------------------


@st.composite
def conv_cases(draw: st.DrawFn, dtype: str) -> Case:
    space = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 2, 3, "depthwise"]))
    if groups == "depthwise":
        groups, share = 4, 1
        outputs = 4 * draw(st.integers(1, 2))
    else:
        share = draw(st.integers(1, 3))
        outputs = groups * draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(space)]
    strides = [draw(st.integers(1, 2)) for _ in range(space)]
    attributes = [f"group={groups}", f"kernel_shape={kernel}", f"strides={strides}"]
    padding = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "dilations"]))
    if padding == "pads":
        attributes.append(f"pads={[draw(st.integers(0, k - 1)) for k in kernel * 2]}")
    elif padding == "dilations":
        attributes.append(f"dilations={[2] * space}")
    else:
        attributes.append(f'auto_pad="{padding}"')
    seed = draw(SEEDS)
    weights = {"w": normal(outputs, share, *kernel, seed=seed, dtype=dtype)}
    bias = draw(st.sampled_from(["", ", b", ", "]))
    if bias == ", b":
        weights["b"] = normal(outputs, seed=seed + 9, dtype=dtype)
    return Case(
        f"[op] h = Conv <{', '.join(attributes)}> (x, w{bias.rstrip() if bias == ', b' else ''})",
        (2, groups * share, *[5] * space),
        outputs,
        weights,
        dtype,
    )


@settings(max_examples=80)
@given(conv_cases("float32"), SEEDS)
def test_norm_behind_conv(case: Case, seed: int) -> None:
    """A norm folds into Conv in one, two and three dimensions, however it is padded and grouped."""
    assert_folds(case, seed, "Conv")


@given(conv_cases("float16"), SEEDS)
def test_norm_behind_conv_in_float16(case: Case, seed: int) -> None:
    """... and in half precision, rounded to it once."""
    assert_folds(case, seed, "Conv")


@given(conv_cases("float64"), SEEDS)
def test_norm_behind_conv_in_float64(case: Case, seed: int) -> None:
    """... and in double precision, for which onnxruntime has no Conv."""
    assert_folds(case, seed, "Conv", has_kernels=False)


@pytest.mark.parametrize(("group", "shape"), [(3, (4, 2, 3, 3)), (0, (4, 2, 3, 3)), (1, (4,)), (1, (4, 2))])
def test_a_weight_that_does_not_fit_its_convolution_is_a_reason(group: int, shape: tuple[int, ...]) -> None:
    """No runtime would take it; folding says so and goes on."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv <group={group}> (x, w)  y = BatchNormalization (c, gamma, beta, mean, variance) }}""",
        {"w": normal(*shape), **norm(4)},
    )
    assert fold(proto).only.refusals[0].reason is Reason.AXIS_MISMATCH


# -- ConvTranspose --------------------------------------------------------------------------------


@st.composite
def conv_transpose_cases(draw: st.DrawFn, dtype: str) -> Case:
    space = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 2, 3, 4]))
    inputs = groups * draw(st.integers(1, 3))
    share = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(space)]
    strides = [draw(st.integers(1, 3)) for _ in range(space)]
    extra = [draw(st.integers(0, stride - 1)) for stride in strides]
    pads = [draw(st.integers(0, 1)) for _ in range(2 * space)]
    attributes = f"group={groups}, strides={strides}, output_padding={extra}, pads={pads}"
    seed = draw(SEEDS)
    weights = {"w": normal(inputs, share, *kernel, seed=seed, dtype=dtype)}
    has_bias = draw(st.booleans())
    if has_bias:
        weights["b"] = normal(groups * share, seed=seed + 9, dtype=dtype)
    return Case(
        f"[op] h = ConvTranspose <{attributes}> (x, w{', b' if has_bias else ''})",
        (2, inputs, *[4] * space),
        groups * share,
        weights,
        dtype,
    )


@settings(max_examples=80)
@given(conv_transpose_cases("float32"), SEEDS)
def test_norm_behind_conv_transpose(case: Case, seed: int) -> None:
    """A norm folds into ConvTranspose, whose weight has inputs first and a group's share of outputs."""
    assert_folds(case, seed, "ConvTranspose")


@given(conv_transpose_cases("float16"), SEEDS)
def test_norm_behind_conv_transpose_in_float16(case: Case, seed: int) -> None:
    """... and in half precision, rounded to it once."""
    assert_folds(case, seed, "ConvTranspose")


@given(conv_transpose_cases("float64"), SEEDS)
def test_norm_behind_conv_transpose_in_float64(case: Case, seed: int) -> None:
    """... and in double precision, for which onnxruntime has no ConvTranspose."""
    assert_folds(case, seed, "ConvTranspose", has_kernels=False)


def test_norm_behind_depthwise_conv_transpose() -> None:
    """One input and one output a group: each scale reaches its own kernel."""
    case = Case(
        "[op] h = ConvTranspose <group=4, strides=[2,2], output_padding=[1,1]> (x, w)",
        (2, 4, 3, 3),
        4,
        {"w": normal(4, 1, 3, 3)},
    )
    assert_folds(case, 0, "ConvTranspose")


# -- Gemm -----------------------------------------------------------------------------------------

ROWS = 3


@st.composite
def gemm_cases(draw: st.DrawFn, dtype: str) -> Case:
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    trans_a, trans_b = draw(st.booleans()), draw(st.booleans())
    attributes = [f"transA={int(trans_a)}", f"transB={int(trans_b)}"]
    if draw(st.booleans()):
        attributes.append(f"alpha={draw(st.sampled_from(['0.5', '-2.0', '1.25']))}")
    if draw(st.booleans()):
        attributes.append(f"beta={draw(st.sampled_from(['0.0', '0.5', '-3.0']))}")
    seed = draw(SEEDS)
    shape = (outputs, inputs) if trans_b else (inputs, outputs)
    weights = {"w": normal(*shape, seed=seed, dtype=dtype)}
    bias = draw(st.sampled_from([None, (), (1,), (outputs,), (1, outputs), (ROWS, 1), (ROWS, outputs)]))
    if bias is not None:
        weights["b"] = normal(*bias, seed=seed + 9, dtype=dtype).reshape(bias)
    node = f"[op] h = Gemm <{', '.join(attributes)}> (x, w{'' if bias is None else ', b'})"
    return Case(node, (inputs, ROWS) if trans_a else (ROWS, inputs), outputs, weights, dtype)


@settings(max_examples=80)
@given(gemm_cases("float32"), SEEDS)
def test_norm_behind_gemm(case: Case, seed: int) -> None:
    """A norm folds into Gemm with any alpha, beta, transposition and form of C."""
    assert_folds(case, seed, "Gemm")


@given(gemm_cases("float64"), SEEDS)
def test_norm_behind_gemm_in_float64(case: Case, seed: int) -> None:
    """... and in double precision."""
    assert_folds(case, seed, "Gemm")


@given(gemm_cases("float16"), SEEDS)
def test_norm_behind_gemm_in_float16(case: Case, seed: int) -> None:
    """... and in half precision."""
    assert_folds(case, seed, "Gemm")


def test_gemm_is_written_without_alpha_and_beta() -> None:
    """What alpha and beta did is in the weight and the bias afterwards; transB stays."""
    case = Case(
        "[op] h = Gemm <alpha=2.0, beta=3.0, transB=1> (x, w, b)",
        (3, 2),
        4,
        {"w": normal(4, 2), "b": normal(4, seed=1)},
    )
    folded = assert_folds(case, 1, "Gemm")
    (node,) = folded.proto.graph.node
    assert {attribute.name for attribute in node.attribute} == {"transB"}


def test_with_a_beta_of_zero_gemm_does_not_read_its_bias() -> None:
    """Whatever C holds, and whether it is known: it is gone with the fold."""
    text = """g (float[N,2] x, float[4] c) => (float[N,4] y) {
        h = Gemm <beta=0.0> (x, w, c)  y = BatchNormalization (h, gamma, beta, mean, variance) }"""
    proto = model(text, {"w": normal(2, 4), **norm(4)})
    folded = fold(proto)
    assert folded.ops == ["Gemm"]
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(3, 2), "c": normal(4)})


# -- MatMul ---------------------------------------------------------------------------------------

MUL_ADD = "[scale] s = Mul (h, gamma)  [shift] y = Add (s, beta)"


@st.composite
def matmul_cases(draw: st.DrawFn, dtype: str) -> Case:
    """MatMul of rank 2 or 3, weight on either side, with or without the Add of a bias."""
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    rank = draw(st.sampled_from([2, 3]))
    weight_first = draw(st.booleans())
    bias = draw(st.sampled_from(["", "h = Add (p, b)", "h = Add (b, p)"]))
    seed = draw(SEEDS)
    name = "p" if bias else "h"
    stack = (2,) if rank == 3 else ()
    if weight_first:
        node, weight, data = f"[op] {name} = MatMul (w, x)", (outputs, inputs), (*stack, inputs, 5)
    else:
        node, weight, data = f"[op] {name} = MatMul (x, w)", (inputs, outputs), (*stack, 5, inputs)
    # A norm's channels are on axis 1; a dense layer of rank 3 has them on the last axis, written out.
    batch_norm = (rank == 2 and not weight_first) or (rank == 3 and weight_first)
    along = (outputs, 1) if weight_first else (outputs,)
    weights = {"w": normal(*weight, seed=seed, dtype=dtype)}
    if bias:
        weights["b"] = normal(*along, seed=seed + 9, dtype=dtype)
    if batch_norm:
        return Case(f"{node} {bias}", data, outputs, weights, dtype)
    written_out = {
        "scale": normal(*along, seed=seed + 3, dtype=dtype),
        "shift": normal(*along, seed=seed + 4, dtype=dtype),
    }
    tail = "[scaled] s = Mul (h, scale)  [shifted] y = Add (s, shift)"
    return Case(f"{node} {bias}", data, outputs, {**weights, **written_out}, dtype, tail)


@settings(max_examples=80)
@given(matmul_cases("float32"), SEEDS)
def test_norm_behind_matmul(case: Case, seed: int) -> None:
    """A norm folds into MatMul and its bias: Gemm at rank 2, MatMul and Add above."""
    without_spare_parameters(case, seed, "MatMul")


@given(matmul_cases("float64"), SEEDS)
def test_norm_behind_matmul_in_float64(case: Case, seed: int) -> None:
    """... and in double precision."""
    without_spare_parameters(case, seed, "MatMul")


@given(matmul_cases("float16"), SEEDS)
def test_norm_behind_matmul_in_float16(case: Case, seed: int) -> None:
    """... and in half precision."""
    without_spare_parameters(case, seed, "MatMul")


def without_spare_parameters(case: Case, seed: int, into: str) -> None:
    """Initializers that nobody reads are dropped from a graph with a written-out norm."""
    proto = case.proto(seed)
    used = {name for node in proto.graph.node for name in node.input}
    spare = [tensor for tensor in proto.graph.initializer if tensor.name not in used]
    for tensor in spare:
        proto.graph.initializer.remove(tensor)
    folded = fold(proto)
    assert folded.only.into_op == into, folded.only.why
    assert "BatchNormalization" not in folded.ops and "Mul" not in folded.ops
    assert len(folded.ops) < len(proto.graph.node) + (case.tail.startswith("[bn]") and "Add" not in case.node)
    assert_same_interface(proto, folded.proto)
    onnx.checker.check_model(folded.proto, full_check=True)
    assert_equal_within_rounding(proto, folded.proto, case.feeds(seed))


def test_matmul_of_rank_2_becomes_gemm() -> None:
    """One node with a bias instead of MatMul and norm."""
    case = Case("[op] h = MatMul (x, w)", (3, 2), 4, {"w": normal(2, 4)})
    assert assert_folds(case, 0, "MatMul").ops == ["Gemm"]


def test_matmul_and_bias_of_rank_2_become_gemm() -> None:
    """One node instead of MatMul, Add and norm."""
    case = Case(
        "[op] p = MatMul (x, w)  [bias] h = Add (b, p)", (3, 2), 4, {"w": normal(2, 4), "b": normal(4)}
    )
    assert assert_folds(case, 0, "MatMul").ops == ["Gemm"]


def test_matmul_of_rank_3_keeps_an_add() -> None:
    """Gemm takes matrices only, so the bias of a stack is an Add: still no more nodes than before."""
    case = Case("[op] h = MatMul (w, x)", (2, 3, 5), 4, {"w": normal(4, 3)})
    assert assert_folds(case, 0, "MatMul").ops == ["MatMul", "Add"]


def test_a_pure_scale_leaves_a_matmul_bare() -> None:
    """Without a shift there is no bias to add."""
    proto = model(
        "g (float[N,3] x) => (float[N,4] y) { h = MatMul (x, w)  y = Mul (h, s) }",
        {"w": normal(3, 4), "s": normal(4, seed=1)},
    )
    folded = fold(proto)
    assert folded.ops == ["MatMul"]
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(5, 3)})


def test_no_bias_is_added_for_a_pure_scale() -> None:
    """A Conv without bias stays without one where the norm shifts nothing."""
    channels = 4
    numbers = norm(channels) | {
        "beta": np.zeros(channels, np.float32),
        "mean": np.zeros(channels, np.float32),
    }
    proto = model(
        """g (float[N,2,6,6] x) => (float[N,4,4,4] y) {
            c = Conv (x, w)  y = BatchNormalization (c, gamma, beta, mean, variance) }""",
        {"w": normal(channels, 2, 3, 3), **numbers},
    )
    folded = fold(proto)
    assert len(folded.proto.graph.node[0].input) == 2
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(2, 2, 6, 6)})


def test_a_vector_times_matrix_is_left_alone() -> None:
    """A MatMul whose data is a vector has no axis 1 for Gemm; nothing breaks."""
    proto = model(
        "g (float[3] x) => (float[4] y) { h = MatMul (x, w)  y = Mul (h, s) }",
        {"w": normal(3, 4), "s": normal(4, seed=1)},
    )
    assert fold(proto).only.refusals[0].reason is Reason.AXIS_MISMATCH


def test_attributes_of_conv_stay() -> None:
    """Strides, pads and groups are those of the old node."""
    case = Case(
        "[op] h = Conv <strides=[2,1], pads=[1,0,1,0], group=2, kernel_shape=[3,3]> (x, w)",
        (2, 4, 6, 6),
        6,
        {"w": normal(6, 2, 3, 3)},
    )
    before = case.proto(0).graph.node[0]
    after = assert_folds(case, 0, "Conv").proto.graph.node[0]
    assert {a.name: list(a.ints) or a.i for a in before.attribute} == {
        a.name: list(a.ints) or a.i for a in after.attribute
    }
    assert after.name == "op"
