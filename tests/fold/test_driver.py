"""Whole models: sharing, order, subgraphs, functions, and what the report says."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import pytest

from graphs import (
    Folded,
    conv_norm,
    dense_norm,
    fold,
    initializer,
    model,
    norm,
    normal,
    op_types,
    relu_only,
    to_ir,
)
from infold.fold import Outcome, Reason, fold_batch_norms
from infold.fold.places import spelled
from oracle import assert_equal_within_rounding, run

X = {"x": normal(2, 2, 5, 5, seed=7)}
BN = "BatchNormalization <epsilon=0.001>"


def params(prefix: str, kind: str = "") -> str:
    """The four parameter names of one norm."""
    return ", ".join(f"{prefix}{name}{kind}" for name in ("gamma", "beta", "mean", "variance"))


# -- sharing --------------------------------------------------------------------------------------


def test_a_shared_weight_is_copied() -> None:
    """Two convolutions share a weight; folding into one leaves the other's result alone, bit by bit."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y, float[N,4,3,3] z) {{
            [first] c = Conv (x, w)  [bn] y = {BN} (c, {params("")})
            [second] z = Conv (x, w) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )
    folded = fold(proto)
    assert folded.only.copied == ("w",)
    assert (initializer(folded.proto, "w") == initializer(proto, "w")).all()
    assert (run(folded.proto, X)[1] == run(proto, X)[1]).all()
    assert_equal_within_rounding(proto, folded.proto, X)


def test_two_norms_on_one_shared_weight() -> None:
    """Each convolution gets a copy of its own; the shared original goes when nobody reads it."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y, float[N,4,3,3] z) {{
            c = Conv (x, w)  y = {BN} (c, {params("a_")})
            d = Conv (x, w)  z = {BN} (d, {params("b_")}) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4, 1, prefix="a_"), **norm(4, 2, prefix="b_")},
    )
    folded = fold(proto)
    assert folded.ops == ["Conv", "Conv"]
    names = [tensor.name for tensor in folded.proto.graph.initializer]
    assert "w" not in names and len(set(names)) == 4
    assert_equal_within_rounding(proto, folded.proto, X)


def test_shared_norm_parameters() -> None:
    """One set of parameters for two norms, one of which stays: the parameters stay with it."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] z) {{
            c = Conv (x, w)  y = {BN} (c, {params("")})  r = Relu (y)  z = {BN} (r, {params("")}) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )
    folded = fold(proto)
    assert folded.ops == ["Conv", "Relu", "BatchNormalization"]
    assert_equal_within_rounding(proto, folded.proto, X)


def test_a_shared_bias_is_copied() -> None:
    """Another reader of the bias keeps the old one."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y, float[4] z) {{
            c = Conv (x, w, b)  y = {BN} (c, {params("")})  z = Relu (b) }}""",
        {"w": normal(4, 2, 3, 3), "b": normal(4, seed=2), **norm(4)},
    )
    folded = fold(proto)
    assert (run(folded.proto, X)[1] == run(proto, X)[1]).all()
    assert_equal_within_rounding(proto, folded.proto, X)


def test_the_bias_may_also_be_a_norm_parameter() -> None:
    """One array in two roles is read in both before it is dropped."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv (x, w, beta)  y = {BN} (c, {params("")}) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )
    folded = fold(proto)
    assert folded.ops == ["Conv"]
    assert_equal_within_rounding(proto, folded.proto, X)


def test_a_weight_that_is_a_graph_output_stays() -> None:
    """The caller asked for the weight itself."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y, float[4,2,3,3] w) {{
            c = Conv (x, w)  y = {BN} (c, {params("")}) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )
    folded = fold(proto)
    assert folded.ops == ["Conv"]
    assert (run(folded.proto, X)[1] == initializer(proto, "w")).all()
    assert_equal_within_rounding(proto, folded.proto, X)


# -- several norms --------------------------------------------------------------------------------


def two_in_a_row(dtype: str = "float32") -> onnx.ModelProto:
    kind = {"float32": "float", "float16": "float16"}[dtype]
    return model(
        f"""g ({kind}[N,2,5,5] x) => ({kind}[N,4,3,3] y) {{
            c = Conv (x, w)
            [bn1] n = {BN} (c, {params("a_")})
            [bn2] y = {BN} (n, {params("b_")}) }}""",
        {
            "w": normal(4, 2, 3, 3, dtype=dtype),
            **norm(4, 1, prefix="a_", dtype=dtype),
            **norm(4, 2, prefix="b_", dtype=dtype),
        },
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_two_norms_in_a_row_round_once(dtype: str) -> None:
    """Both fold, and the weight is the float64 product of all three factors, rounded once."""
    proto = two_in_a_row(dtype)
    folded = fold(proto)
    assert folded.ops == ["Conv"]
    assert [decision.site for decision in folded.report.folded] == ["bn1", "bn2"]
    scale = np.ones(4)
    for prefix in ("a_", "b_"):
        gamma, variance = (initializer(proto, prefix + n).astype(np.float64) for n in ("gamma", "variance"))
        scale = scale * (gamma / np.sqrt(variance + float(np.float32(0.001))))
    exact = initializer(proto, "w").astype(np.float64) * scale[:, None, None, None]
    written = initializer(folded.proto, folded.proto.graph.node[0].input[1])
    assert (written == exact.astype(dtype)).all()
    # The bias too: the first shift goes through the second norm in float64.
    bias, stepwise = np.zeros(4), np.zeros(4)
    for prefix in ("a_", "b_"):
        gamma, beta, mean, variance = (
            initializer(proto, prefix + name).astype(np.float64)
            for name in ("gamma", "beta", "mean", "variance")
        )
        factor = gamma / np.sqrt(variance + float(np.float32(0.001)))
        bias = bias * factor + (beta - mean * factor)
        stepwise = (stepwise * factor + (beta - mean * factor)).astype(dtype).astype(np.float64)
    assert (initializer(folded.proto, folded.proto.graph.node[0].input[2]) == bias.astype(dtype)).all()
    if dtype == "float32":  # here the numbers tell one rounding from two
        assert (stepwise != bias.astype(dtype)).any()
    feeds = {"x": normal(2, 2, 5, 5, dtype=dtype)}
    assert_equal_within_rounding(proto, folded.proto, feeds)


def test_a_norm_and_a_chain_in_a_row() -> None:
    """A BatchNormalization and a written-out norm behind it both go into the convolution."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv (x, w)  n = {BN} (c, {params("")})  s = Mul (n, k)  [tail] y = Sub (k, s) }}""",
        {"w": normal(4, 2, 3, 3), "k": normal(4, 1, 1, seed=3), **norm(4)},
    )
    folded = fold(proto)
    assert folded.ops == ["Conv"]
    assert [decision.spelling for decision in folded.report.folded] == ["BatchNormalization", "Mul,Sub"]
    assert_equal_within_rounding(proto, folded.proto, X)


def stacked(left: bool) -> onnx.ModelProto:
    """A MatMul of rank 3 with two norms behind it."""
    if left:
        data, weight, product = "float[N,3,5]", normal(4, 3), "MatMul (w, x)"
        return model(
            f"""g ({data} x) => (float[N,4,5] y) {{
                h = {product}  [bn1] n = {BN} (h, {params("a_")})  [bn2] y = {BN} (n, {params("b_")}) }}""",
            {"w": weight, **norm(4, 1, prefix="a_"), **norm(4, 2, prefix="b_")},
        )
    return model(
        """g (float[N,5,3] x) => (float[N,5,4] y, float[N,5,4] r) {
            h = MatMul (x, w)  s = Mul (h, k)  [bn1] n = Add (s, k)
            t = Mul (n, l)  [bn2] y = Add (t, l)  r = Relu (y) }""",
        {"w": normal(3, 4), "k": normal(4, seed=1), "l": normal(4, seed=2)},
    )


def test_two_norms_behind_a_matmul_of_rank_3() -> None:
    """The first leaves MatMul and Add behind; the second must find its way into them."""
    proto = stacked(left=True)
    folded = fold(proto)
    assert folded.ops == ["MatMul", "Add"], [decision.why for decision in folded.report.decisions]
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(2, 3, 5)})


@pytest.mark.parametrize("left", [True, False])
def test_folding_a_matmul_of_rank_3_again_changes_nothing(left: bool) -> None:
    """What one pass can fold, one pass folds."""
    once = fold(stacked(left)).proto
    twice = fold(once)
    assert list(op_types(twice.proto.graph)) == list(op_types(once.graph))
    assert twice.report.decisions == ()


@pytest.mark.parametrize("make", [conv_norm, dense_norm, two_in_a_row, relu_only])
def test_folding_twice_changes_nothing(make: object) -> None:
    """The folded model holds nothing more to fold and comes out as it went in."""
    assert callable(make)
    once = fold(make()).proto
    twice = fold(once)
    assert twice.report.folded == ()
    assert twice.proto.SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_folding_is_deterministic() -> None:
    """The same model gives the same bytes."""
    first, second = (fold(two_in_a_row()).proto.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_the_model_that_goes_in_is_left_alone() -> None:
    """Folding works on a clone."""
    source = to_ir(two_in_a_row())
    before = [node.op_type for node in source.graph], sorted(source.graph.initializers)
    fold_batch_norms(source)
    assert ([node.op_type for node in source.graph], sorted(source.graph.initializers)) == before


def test_decisions_come_in_graph_order() -> None:
    """Kept and folded norms are told in the order in which data meets them."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            [first] a = {BN} (x, {params("a_")})  s = Sigmoid (a)
            c = Conv (s, w)  [second] b = {BN} (c, {params("b_")})
            r = Relu (b)  [third] d = {BN} (r, {params("b_")})
            t = Sigmoid (d)  e = Conv (t, w2)  [fourth] y = {BN} (e, {params("b_")}) }}""",
        {
            "w": normal(4, 2, 3, 3),
            "w2": normal(4, 4, 1, 1),
            **norm(2, 1, prefix="a_"),
            **norm(4, 2, prefix="b_"),
        },
    )
    folded = fold(proto)
    assert [d.site for d in folded.report.norms] == ["first", "second", "third", "fourth"]
    assert [d.outcome.value for d in folded.report.norms] == ["kept", "folded", "kept", "folded"]
    assert_equal_within_rounding(proto, folded.proto, X)


def test_the_decision_says_where_the_norm_went() -> None:
    """Rule, operator, node and probe of a folded norm, and its trained parameters."""
    decision = fold(conv_norm()).only
    assert (decision.outcome, decision.rule, decision.into, decision.into_op) == (
        Outcome.FOLDED,
        "producer",
        "conv",
        "Conv",
    )
    assert decision.why == "into producer Conv" and decision.at == "conv"
    assert decision.probes == ("y",) and decision.copied == () and decision.across == ()
    assert decision.parameters is not None and decision.affine is not None
    assert (decision.parameters.gamma == norm(4)["gamma"]).all()
    assert decision.parameters.epsilon == np.float32(0.001)


def test_a_norm_without_a_name_is_called_by_its_output() -> None:
    """Unnamed nodes can still be told apart in a report."""
    proto = conv_norm()
    for node in proto.graph.node:
        node.name = ""
    decision = fold(proto).only
    assert (decision.site, decision.into) == ("y", "c")


def test_values_that_keep_their_name_keep_their_meaning() -> None:
    """The convolution now computes what the norm computed, under the norm's name; the old name is gone."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] z) {{
            c = Conv (x, w)  n = {BN} (c, {params("")})  z = Relu (n) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )
    folded = fold(proto)
    assert [list(node.output) for node in folded.proto.graph.node] == [["n"], ["z"]]


def test_new_names_never_collide() -> None:
    """A model may already use the names that folding would take."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y, float[N,4,3,3] z) {{
            c = Conv (x, w)  y = {BN} (c, {params("")})
            d = Conv (x, taken)  z = Relu (d) }}""",
        {"w": normal(4, 2, 3, 3), "taken": normal(4, 2, 3, 3, seed=9), **norm(4)},
    )
    for tensor in proto.graph.initializer:
        if tensor.name == "taken":
            tensor.name = "w/folded"
    proto.graph.node[2].input[1] = "w/folded"
    folded = fold(proto)
    names = [tensor.name for tensor in folded.proto.graph.initializer]
    assert len(names) == len(set(names)) and "w/folded" in names
    assert_equal_within_rounding(proto, folded.proto, X)


def test_without_inferred_shapes_every_site_is_still_told() -> None:
    """Two affines that become a Mul and an Add keep the shape of their data, and so their account."""
    proto = model(
        f"""g (float[2,4,3,3] x) => (float y) {{
            a = Mul (x, k)  b = {BN} (a, {params("")})  y = Abs (b) }}""",
        {"k": normal(4, 1, 1), **norm(4)},
    )
    folded, report = fold_batch_norms(ir.from_proto(proto))
    assert [node.op_type for node in folded.graph] == ["Mul", "Add", "Abs"]
    told = [(each.site, each.outcome) for each in report.decisions]
    assert told == [("a", Outcome.KEPT), ("b", Outcome.FOLDED)]


def test_a_folded_model_can_be_printed() -> None:
    """Weights that are computed when they are read do not print themselves for ever."""
    folded, _ = fold_batch_norms(to_ir(conv_norm()))
    assert "Conv" in str(folded)


def test_a_norm_whose_data_is_a_constant_is_kept() -> None:
    """Nothing computes the data, so nothing can absorb the norm."""
    proto = model(
        f"g (float[1,4,2] x) => (float[1,4,2] y) {{ n = {BN} (k, {params('')})  y = Add (x, n) }}",
        {"k": normal(1, 4, 2), **norm(4)},
    )
    folded = fold(proto)
    assert "BatchNormalization" in folded.ops
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(1, 4, 2)})


# -- mixed precision ------------------------------------------------------------------------------


def test_float32_statistics_behind_a_float16_convolution() -> None:
    """BatchNormalization-15 may hold its statistics in another type than its data."""
    numbers = {n: a if n in ("mean", "variance") else a.astype(np.float16) for n, a in norm(4).items()}
    proto = model(
        f"""g (float16[N,2,5,5] x) => (float16[N,4,3,3] y) {{
            c = Conv (x, w)  y = {BN} (c, {params("")}) }}""",
        {"w": normal(4, 2, 3, 3, dtype="float16"), **numbers},
    )
    folded = fold(proto)
    assert folded.ops == ["Conv"]
    assert initializer(folded.proto, folded.proto.graph.node[0].input[2]).dtype == np.float16
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(2, 2, 5, 5, dtype="float16")})


# -- subgraphs and functions ----------------------------------------------------------------------


def branches(names: tuple[str, str]) -> onnx.ModelProto:
    """A convolution and a norm in both branches of an If; `names` are those of the norms' results."""
    return model(
        f"""g (float[N,2,5,5] x, bool p) => (float[N,4,3,3] y) {{
            y = If (p) <
              then_branch = t () => (float[N,4,3,3] {names[0]}) {{
                c = Conv (x, w)  {names[0]} = {BN} (c, {params("a_")}) }},
              else_branch = e () => (float[N,4,3,3] {names[1]}) {{
                d = Conv (x, w)  {names[1]} = {BN} (d, {params("b_")}) }}> }}""",
        {"w": normal(4, 2, 3, 3), **norm(4, 1, prefix="a_"), **norm(4, 2, prefix="b_")},
    )


def test_norms_in_the_branches_of_an_if_fold() -> None:
    """Each branch folds its own, and both copies of the shared weight live in their branch."""
    proto = branches(("m", "n"))
    folded = fold(proto)
    assert sorted(op_types(folded.proto.graph)) == ["Conv", "Conv", "If"]
    assert len(folded.report.folded) == 2
    onnx.checker.check_model(folded.proto, full_check=True)
    for choice in (True, False):
        assert_equal_within_rounding(proto, folded.proto, {**X, "p": np.array(choice)})


def test_branches_that_use_the_same_names_are_told_apart() -> None:
    """Sibling branches may use one name for two values; the report still counts two norms."""
    proto = branches(("n", "n"))
    onnx.checker.check_model(proto, full_check=True)
    folded = fold(proto)
    assert sorted(op_types(folded.proto.graph)) == ["Conv", "Conv", "If"]
    assert len(folded.report.norms) == 2
    for choice in (True, False):
        assert_equal_within_rounding(proto, folded.proto, {**X, "p": np.array(choice)})


def test_a_norm_in_a_branch_behind_a_convolution_outside_is_kept() -> None:
    """The convolution also serves the other branch."""
    proto = model(
        f"""g (float[N,2,5,5] x, bool p) => (float[N,4,3,3] y) {{
            c = Conv (x, w)
            y = If (p) <
              then_branch = t () => (float[N,4,3,3] n) {{ n = {BN} (c, {params("")}) }},
              else_branch = e () => (float[N,4,3,3] m) {{ m = Identity (c) }}> }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
    )
    refusal, *_ = fold(proto).only.refusals
    assert refusal.reason is Reason.CAPTURED_BY_SUBGRAPH


def test_a_norm_in_the_body_of_a_loop_folds() -> None:
    """The body runs three times on its own result, folded or not."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,2,5,5] y) {{
            y = Loop (trips, , x) <body = b (int64 i, bool go, float[N,2,5,5] s)
                => (bool on, float[N,2,5,5] out) {{
                on = Identity (go)
                c = Conv <pads=[1,1,1,1]> (s, w)
                n = {BN} (c, {params("")})
                out = Tanh (n) }}> }}""",
        {"w": normal(2, 2, 3, 3), "trips": np.array(3, np.int64), **norm(2)},
    )
    folded = fold(proto)
    assert sorted(op_types(folded.proto.graph)) == ["Conv", "Identity", "Loop", "Tanh"]
    assert len(folded.report.folded) == 1
    onnx.checker.check_model(folded.proto, full_check=True)
    # Three rounds each pass on what the last one was off; Tanh never enlarges a difference, and a
    # convolution enlarges it by sum |s||w| at most.
    scale = np.abs(norm(2)["gamma"]) / np.sqrt(norm(2)["variance"])
    growth = float((scale[:, None] * np.abs(normal(2, 2, 3, 3)).reshape(2, -1)).sum(axis=1).max())
    largest = max(1.0, float(np.abs(X["x"]).max()))
    once = 2 * (18 + 8 + 3) * 2.0**-24 * (growth * largest + 4)
    allowed = once * (1 + growth + growth**2)
    assert np.abs(run(proto, X)[0] - run(folded.proto, X)[0]).max() <= allowed


FUNCTION_OPSETS = ', "local" : 1'


def with_function(body: str, call: str, *, attributes: str = "", inputs: str = "a") -> onnx.ModelProto:
    """A model whose function `block` computes `r` from `a`, called twice."""
    return model(
        f"""g (float[N,4,5,5] x) => (float[N,4,5,5] y) {{
            m = local.block{call} (x)  y = local.block{call} (m) }}
        <domain: "local", opset_import: ["" : 17]>
        block {attributes} ({inputs}) => (r) {{ {body} }}""",
        opset=17,
        extra=FUNCTION_OPSETS,
    )


CONSTANTS = """
    w = Constant <value = float[4,1,1,1] {0.5, -1.5, 2.0, 0.75}> ()
    gamma = Constant <value = float[4] {1.5, 0.5, -2.0, 1.0}> ()
    beta = Constant <value = float[4] {0.25, -0.5, 1.0, 0.0}> ()
    mean = Constant <value = float[4] {0.1, 0.2, -0.3, 0.4}> ()
    variance = Constant <value = float[4] {1.0, 0.5, 2.0, 0.25}> ()
"""


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without functions, for the oracle."""
    return onnx.inliner.inline_local_functions(proto)


def test_a_norm_in_a_model_local_function_folds() -> None:
    """A function has no initializers: its new constants are Constant nodes, the old ones go."""
    proto = with_function(f"{CONSTANTS} c = Conv <group=4> (a, w)  r = {BN} (c, {params('')})", "")
    folded = fold(proto)
    (function,) = folded.proto.functions
    assert list(op_types(function)) == ["Constant", "Constant", "Conv"]
    assert len(folded.report.folded) == 1
    onnx.checker.check_model(folded.proto, full_check=True)
    feeds = {"x": normal(2, 4, 5, 5)}
    assert_equal_within_rounding(inlined(proto), inlined(folded.proto), feeds)
    assert_equal_within_rounding(inlined(proto), folded.proto, feeds)


def test_a_function_that_uses_the_names_we_give_is_folded_under_others() -> None:
    """It may have been folded before; a weight that others read keeps its name and its numbers."""
    constants = CONSTANTS.replace("w = Constant", '"w/folded" = Constant')
    proto = with_function(
        f"""{constants} c = Conv <group=4> (a, "w/folded")  n = {BN} (c, {params("")})
        d = Conv <group=4> (a, "w/folded")  r = Add (n, d)""",
        "",
    )
    folded = fold(proto)
    assert len(folded.report.folded) == 1
    names = [output for node in folded.proto.functions[0].node for output in node.output]
    assert len(names) == len(set(names))
    assert_equal_within_rounding(inlined(proto), inlined(folded.proto), {"x": normal(2, 4, 5, 5)})


def test_a_decision_says_where_its_norm_stands() -> None:
    """From the outside in; the main graph is nowhere in particular."""
    proto = model(
        f"""g (float[N,4,5,5] x, bool p) => (float[N,4,5,5] y) {{
            n = {BN} (x, {params("")})
            a = local.block (n)
            [rounds] y = Loop (trips, , a) <body = b (int64 i, bool go, float[N,4,5,5] s)
                => (bool on, float[N,4,5,5] out) {{
                on = Identity (go)
                out = If (p) <
                    then_branch = t () => (float[N,4,5,5] m) {{ m = {BN} (s, {params("")}) }},
                    else_branch = e () => (float[N,4,5,5] o) {{ o = Relu (s) }}> }}> }}
        <domain: "local", opset_import: ["" : 17]>
        block (a) => (r) {{ {CONSTANTS} r = {BN} (a, {params("")}) }}""",
        {"trips": np.array(2, np.int64), **norm(4)},
        extra=FUNCTION_OPSETS,
    )
    assert [spelled(decision.place) for decision in fold(proto).report.decisions] == [
        "",
        "loop 'rounds'/body > if 'out'/then_branch",
        "function 'local::block'",
    ]


def test_epsilon_set_by_the_caller_is_not_constant() -> None:
    """Each call of the function may bring another epsilon."""
    body = f"{CONSTANTS} c = Conv <group=4> (a, w)  "
    body += f"r = BatchNormalization <epsilon: float = @e> (c, {params('')})"
    proto = with_function(body, " <e = 0.001>", attributes="<e>")
    refusal, *_ = fold(proto).only.refusals
    assert refusal.reason is Reason.NOT_CONSTANT


def test_groups_set_by_the_caller_are_no_reason_to_fail() -> None:
    """A convolution whose group is an attribute of its function is kept as it is."""
    body = f"{CONSTANTS} c = Conv <group: int = @g> (a, w)  r = {BN} (c, {params('')})"
    proto = with_function(body, " <g = 4>", attributes="<g>")
    folded = fold(proto)
    assert folded.only.outcome is Outcome.KEPT


@pytest.mark.parametrize(
    ("attribute", "call"),
    [("alpha: float = @k", "k = 2.0"), ("beta: float = @k", "k = 2.0"), ("transB: int = @k", "k = 1")],
    ids=["alpha", "beta", "transB"],
)
def test_gemm_attributes_set_by_the_caller_are_not_guessed(attribute: str, call: str) -> None:
    """A Gemm that gets an attribute from its function's caller is kept as it is, square or not."""
    weight = "w = Constant <value = float[2,2] {1.0, 2.0, 3.0, 4.0}> ()"
    vectors = " ".join(
        f"{name} = Constant <value = float[2] {{{numbers}}}> ()"
        for name, numbers in [
            ("b", "5.0, 6.0"),
            ("gamma", "1.0, 2.0"),
            ("beta", "0.5, 0.0"),
            ("mean", "0.0, 1.0"),
            ("variance", "1.0, 2.0"),
        ]
    )
    proto = model(
        f"""g (float[N,2] x) => (float[N,2] y) {{ y = local.block <{call}> (x) }}
        <domain: "local", opset_import: ["" : 17]>
        block <k> (a) => (r) {{ {weight} {vectors}
            h = Gemm <{attribute}> (a, w, b)  r = {BN} (h, {params("")}) }}""",
        extra=FUNCTION_OPSETS,
    )
    folded = fold(proto)
    assert_equal_within_rounding(inlined(proto), inlined(folded.proto), {"x": normal(3, 2)})
    assert folded.only.outcome is Outcome.KEPT


def test_a_weight_set_by_the_caller_is_not_constant() -> None:
    """A Constant node whose value is an attribute of its function has no value yet."""
    body = f"""{CONSTANTS.replace("w = Constant <value = float[4,1,1,1] {0.5, -1.5, 2.0, 0.75}> ()", "")}
        k = Constant <value: tensor = @t> ()  c = Conv <group=4> (a, k)  r = {BN} (c, {params("")})"""
    value = "float[4,1,1,1] {0.5, -1.5, 2.0, 0.75}"
    proto = with_function(body, f" <t = {value}>", attributes="<t>")
    refusal, *_ = fold(proto).only.refusals
    assert refusal.reason is Reason.NOT_CONSTANT


def test_two_functions_that_use_the_same_names_are_told_apart() -> None:
    """Names inside functions are their own; the report still counts every norm."""
    body = f"{CONSTANTS} c = Conv <group=4> (a, w)  r = {BN} (c, {params('')})"
    functions = "".join(
        f'<domain: "local", opset_import: ["" : 17]> {name} (a) => (r) {{ {body} }}\n'
        for name in ("one", "two")
    )
    proto = model(
        f"g (float[N,4,5,5] x) => (float[N,4,5,5] y) {{ m = local.one (x)  y = local.two (m) }}\n{functions}",
        extra=FUNCTION_OPSETS,
    )
    folded = fold(proto)
    assert len(folded.report.folded) == 2
    assert_equal_within_rounding(inlined(proto), folded.proto, {"x": normal(2, 4, 5, 5)})


def test_a_function_keeps_its_output_when_the_convolution_is_one_too() -> None:
    """A value that a function returns is seen by its callers."""
    proto = model(
        f"""g (float[N,4,5,5] x) => (float[N,4,5,5] y, float[N,4,5,5] z) {{ y, z = local.block (x) }}
        <domain: "local", opset_import: ["" : 17]>
        block (a) => (c, r) {{ {CONSTANTS} c = Conv <group=4> (a, w)  r = {BN} (c, {params("")}) }}""",
        extra=FUNCTION_OPSETS,
    )
    refusal, *_ = fold(proto).only.refusals
    assert refusal.reason is Reason.GRAPH_OUTPUT


def test_a_node_of_another_domain_is_no_norm() -> None:
    """Somebody else's BatchNormalization means whatever they say it means."""
    proto = model(
        f"""g (float[N,2,5,5] x) => (float[N,4,3,3] y) {{
            c = Conv (x, w)  y = other.BatchNormalization (c, {params("")}) }}""",
        {"w": normal(4, 2, 3, 3), **norm(4)},
        extra=', "other" : 1',
    )
    assert fold(proto).report.decisions == ()


# -- users' questions, with their numbers ---------------------------------------------------------

UNTRAINED = np.array([[0, 0.9995004], [1.9990008, 2.9985013]])
UNTRAINED_NORM = {
    "gamma": np.ones(2, np.float32),
    "beta": np.zeros(2, np.float32),
    "mean": np.zeros(2, np.float32),
    "variance": np.ones(2, np.float32),
}


@pytest.mark.parametrize(
    ("layer", "ops"),
    [("", ["BatchNormalization"]), ("MatMul (x, w)", ["MatMul"]), ("Gemm (x, w)", ["Gemm"])],
    ids=["alone", "matmul", "gemm"],
)
def test_an_untrained_norm_still_divides_by_its_epsilon(layer: str, ops: list[str]) -> None:
    """Keras's fresh layer (epsilon 0.001) takes 1 to 0.9995004, alone or folded into a dense layer."""
    head = f"h = {layer}" if layer else "h = Identity (x)"
    proto = model(
        f"g (float[N,2] x) => (float[N,2] y) {{ {head}  y = {BN} (h, {params('')}) }}",
        UNTRAINED_NORM | ({"w": np.eye(2, dtype=np.float32)} if layer else {}),
    )
    folded = fold(proto)
    assert [op for op in folded.ops if op != "Identity"] == ops
    feeds = {"x": np.array([[0, 1], [2, 3]], np.float32)}
    for each in (proto, folded.proto):
        assert np.abs(run(each, feeds)[0] - UNTRAINED).max() <= 3e-7
    assert_equal_within_rounding(proto, folded.proto, feeds)


def moving_average_model() -> onnx.ModelProto:
    """A dense layer of one unit without bias, and the norm of a user who asked for its formula."""
    return model(
        f"g (float[N,1] x) => (float[N,1] y) {{ h = MatMul (x, w)  y = {BN} (h, {params('')}) }}",
        {
            "w": np.ones((1, 1), np.float32),
            "gamma": np.array([0.999], np.float32),
            "beta": np.array([-0.001], np.float32),
            "mean": np.array([0.3514931], np.float32),
            "variance": np.array([0.74709475], np.float32),
        },
    )


def test_the_default_epsilon_is_a_float32() -> None:
    """An attribute left out is what the operator's schema says, and that is no float64."""
    numbers = norm(4, dtype="float64") | {"variance": np.full(4, 1e-6)}
    four = params("")
    proto = model(
        f"g (double[N,3] x) => (double[N,4] y) {{ h = Gemm (x, w)  y = BatchNormalization (h, {four}) }}",
        {"w": normal(3, 4, dtype="float64"), **numbers},
    )
    assert_equal_within_rounding(proto, fold(proto).proto, {"x": normal(2, 3, dtype="float64")})


def test_the_formula_with_trained_numbers() -> None:
    """Hidden values 0 and 1.404974 leave the norm as -0.40697935 and 1.215785, folded as well."""
    proto = moving_average_model()
    folded = fold(proto)
    assert folded.ops == ["Gemm"]
    feeds = {"x": np.array([[0.0], [1.404974]], np.float32)}
    expected = np.array([[-0.40697935], [1.215785]])
    # Half a unit in the last place quoted, and the roundings of a dense layer with a norm.
    allowed = np.array([[0.5e-8], [0.5e-6]]) + 12 * 2.0**-24 * (1.16 * (feeds["x"] + 0.36) + 0.001)
    for each in (proto, folded.proto):
        assert (np.abs(run(each, feeds)[0] - expected) <= allowed).all()


def test_opset_and_ir_version_stay() -> None:
    """Folding does not convert: the versions are those of the source."""
    for opset in (13, 15, 18, 21):
        proto = conv_norm(opset=opset)
        folded = fold(proto).proto
        assert folded.ir_version == proto.ir_version
        assert [(o.domain, o.version) for o in folded.opset_import] == [("", opset)]


def check(folded: Folded) -> None:
    """A folded model is valid ONNX."""
    onnx.checker.check_model(folded.proto, full_check=True)


@pytest.mark.parametrize("make", [conv_norm, dense_norm, two_in_a_row])
def test_folded_models_are_valid(make: object) -> None:
    """The checker and strict shape inference agree with every folded graph."""
    assert callable(make)
    check(fold(make()))
