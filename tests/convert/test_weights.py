"""The written weights are the float64 fold rounded to nearest, and a slip is seen."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, to_ir
from infold.convert.weights import check_weights
from infold.errors import ProofError
from infold.fold import fold_batch_norms


def test_what_was_folded_is_what_was_written() -> None:
    """Weight and bias."""
    import onnx_ir as ir

    folded, _ = fold_batch_norms(to_ir(conv_norm()))
    assert check_weights(folded, ir.to_proto(folded), Path()) == 2


@pytest.mark.parametrize("units", [1, 4])
def test_a_weight_off_by_units_in_the_last_place_is_found(units: int) -> None:
    """One element, one unit: no measurement of outputs would show it."""
    import onnx_ir as ir

    folded, _ = fold_batch_norms(to_ir(conv_norm()))
    written = ir.to_proto(folded)
    (tensor,) = (each for each in written.graph.initializer if each.name == "w/folded")
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.reshape(-1).view(np.int32)[5] += units
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ProofError, match="folded weight 'w/folded' at"):
        check_weights(folded, written, Path())


def test_a_number_without_axes_is_compared_too() -> None:
    """Several factors of one element that stay become one, and one summand."""
    import onnx_ir as ir

    proto = model(
        "g (float[N,4] x) => (float[N,4] y) { a = Mul (x, k)  b = Add (a, k)  c = Mul (b, k)  y = Abs (c) }",
        {"k": np.array(0.1, np.float32)},
    )
    folded, _ = fold_batch_norms(to_ir(proto))
    assert [node.op_type for node in folded.graph] == ["Mul", "Add", "Abs"]
    assert check_weights(folded, ir.to_proto(folded), Path()) == 2
