"""A MatMul over a stack of rows that has got a bias becomes a Gemm where a Reshape merges the stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from fold.patterns import bn
from graphs import fold, model, norm, normal
from infold.convert import convert
from oracle import assert_equal_within_rounding

ROWS = np.array([-1, 4], np.int64)
NORM = norm(4)


def written_out(reshape: str = "r = Reshape (a, rows)") -> onnx.ModelProto:
    """`x -> MatMul -> Mul -> Add -> a -> Reshape -> r -> Relu -> y`, channels last, open batch."""
    return model(
        f"""g (float[N,5,3] x) => (float[M,4] y) {{
            [dense] m = MatMul (x, w)  s = Mul (m, k)  a = Add (s, l)  [rows] {reshape}  y = Relu (r) }}""",
        {"w": normal(3, 4), "k": normal(4, seed=1), "l": normal(4, seed=2), "rows": ROWS},
    )


def test_the_batch_stays_open_and_the_rows_have_their_own_shape() -> None:
    """The new value in between is described as what it is, the Gemm carries the MatMul's name."""
    folded = fold(written_out())
    reshape, gemm, _ = folded.proto.graph.node
    (rows,) = (v for v in folded.proto.graph.value_info if v.name == reshape.output[0])
    assert [dim.dim_value for dim in rows.type.tensor_type.shape.dim][1] == 3
    assert not rows.type.tensor_type.shape.dim[0].HasField("dim_value")
    assert (reshape.name, gemm.name, gemm.output[0]) == ("rows", "dense", "r")
    onnx.checker.check_model(folded.proto, full_check=True)
    for batch in (1, 3, 0):
        assert_equal_within_rounding(written_out(), folded.proto, {"x": normal(batch, 5, 3)})


def test_a_shape_that_is_computed_is_understood_by_its_result() -> None:
    """Rows of equal length are the same rows, however their number was worked out."""
    proto = model(
        f"""g (float[N,5,3] x) => (float[M,4] y) {{
            m = MatMul (x, w)
            n = Shape <start=0, end=1> (x)  f = Mul (n, five)  s = Concat <axis=0> (f, four)
            h = Reshape (m, s)  {bn("y", "h")} }}""",
        {
            "w": normal(3, 4),
            "five": np.array([5], np.int64),
            "four": np.array([4], np.int64),
            **NORM,
        },
    )
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["M", 4]))
    folded = fold(proto)
    assert folded.ops == ["Reshape", "Gemm"]  # what computed the shape is not needed any more
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(2, 5, 3)})


def test_a_norm_in_front_of_a_stack_of_rows() -> None:
    """The bias that a norm in front brings goes the same way."""
    proto = model(
        f"""g (float[N,3,1] x) => (float[M,4] y) {{
            {bn("n", "x")}  t = Transpose <perm=[0,2,1]> (n)
            m = MatMul (t, w)  r = Reshape (m, rows)  y = Relu (r) }}""",
        {"w": normal(3, 4), "rows": ROWS, **norm(3)},
    )
    folded = fold(proto)
    assert folded.ops == ["Transpose", "Reshape", "Gemm", "Relu"]
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(2, 3, 1)})


def test_a_quantized_weight_goes_into_the_gemm_as_it_is() -> None:
    """Its DequantizeLinear stays; the Gemm reads it."""
    integers = np.random.default_rng(0).integers(1, 127, (3, 4), np.int8)
    proto = model(
        f"""g (float[N,5,3] x) => (float[M,4] y) {{
            d = DequantizeLinear <axis=1> (w, s)  m = MatMul (x, d)
            h = Reshape (m, rows)  {bn("y", "h")} }}""",
        {"w": integers, "s": np.full(4, 0.02, np.float32), "rows": ROWS, **NORM},
        opset=21,
        ir_version=10,
    )
    folded = fold(proto)
    assert folded.ops == ["DequantizeLinear", "Reshape", "Gemm"]
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(2, 5, 3)})


def test_a_dequantizer_is_counted_only_where_there_is_one_more() -> None:
    """A stack without a Reshape takes the Add: the DequantizeLinear in front was there before."""
    integers = np.random.default_rng(0).integers(1, 127, (3, 4), np.int8)
    text = """g (float[N,5,3] x) => (float[N,5,4] y) {
        d = DequantizeLinear <axis=1> (w, s)  m = MatMul (x, d)  t = Mul (m, k)  y = Add (t, l) }"""
    numbers = {"s": np.full(4, 0.02, np.float32), "k": normal(4, seed=1), "l": normal(4, seed=2)}
    proto = model(text, {"w": integers, **numbers}, opset=21, ir_version=10)
    folded = fold(proto)
    assert folded.ops == ["DequantizeLinear", "MatMul", "Add"]
    assert_equal_within_rounding(proto, folded.proto, {"x": normal(2, 5, 3)})
    shared = text.replace("float[N,5,4] y", "float[N,5,4] y, float[N,5,4] z").replace(
        "y = Add (t, l)", "y = Add (t, l)  o = Abs (x)  z = MatMul (o, d)"
    )
    proto = model(shared, {"w": integers, **numbers}, opset=21, ir_version=10)
    assert fold(proto).report.nodes_after <= len(proto.graph.node)


def test_a_bias_that_no_fold_has_touched_stays_where_it_is() -> None:
    """Rewriting is for what folding made, not for everything that could be written otherwise."""
    proto = model(
        "g (float[N,5,3] x) => (float[M,4] y) { m = MatMul (x, w) a = Add (m, b) y = Reshape (a, rows) }",
        {"w": normal(3, 4), "b": normal(4), "rows": ROWS},
    )
    assert fold(proto).ops == ["MatMul", "Add", "Reshape"]


def test_the_proof_looks_at_the_rows(tmp_path: Path) -> None:
    """The value that carried the bias is gone; the same numbers as rows are compared in its stead."""
    path = tmp_path / "model.onnx"
    onnx.save(written_out(), str(path))
    done = convert(path, tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed
    assert [site.comparison.name for site in done.proof.sites] == ["r"] and not done.proof.unseen
