"""What exporters leave behind is put right without touching a norm."""

from __future__ import annotations

import numpy as np
import onnx

from graphs import conv_norm, model, norm, normal
from infold.convert.frontends.tidy import BATCH, tidy
from oracle import run


def test_an_all_zero_bias_goes() -> None:
    """Even one of a wrong rank, as an exporter writes it; another bias stays."""
    text = """g (float[N,2,6,6] x) => (float[N,4,6,6] y, float[N,4,6,6] z) {
        y = Conv <pads=[1,1,1,1]> (x, w, zero)
        z = Conv <pads=[1,1,1,1]> (x, w, b) }"""
    zero = np.zeros((4, 1), np.float32)
    tidied = tidy(model(text, {"w": normal(4, 2, 3, 3), "zero": zero, "b": normal(4)}))
    assert [len(node.input) for node in tidied.graph.node] == [2, 3]
    assert {tensor.name for tensor in tidied.graph.initializer} == {"w", "b"}


def test_the_open_batch_axis_has_one_name() -> None:
    """Exporters call it differently on every side."""
    proto = conv_norm()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "unk__14"
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "unk__15"
    tidied = tidy(proto)
    for value in (tidied.graph.input[0], tidied.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == BATCH


def test_a_fixed_batch_axis_stays_fixed() -> None:
    """On the input, and so on the output."""
    proto = conv_norm()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    tidied = tidy(proto)
    assert tidied.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 5
    assert tidied.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_node_is_named_after_its_module_and_nothing_else_is_noted() -> None:
    """The exporter's call stacks hold paths of the machine that trained the network."""
    proto = conv_norm()
    for node, call in zip(proto.graph.node, ("conv2d", "batch_norm"), strict=True):
        scopes = f"['', 'blocks', 'blocks.0', 'blocks.0.unit', '{call}']"
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/me/train.py")
    tidied = tidy(proto)
    assert [node.name for node in tidied.graph.node] == ["blocks.0.unit", "blocks.0.unit:2"]
    assert b"/home/me" not in tidied.SerializeToString()


def test_the_numbers_stay() -> None:
    """Byte for byte the same answer, and every norm still there."""
    proto = conv_norm()
    x = {"x": np.asarray(normal(3, 2, 6, 6), np.float32)}
    tidied = tidy(proto)
    assert [node.op_type for node in tidied.graph.node] == ["Conv", "BatchNormalization"]
    np.testing.assert_array_equal(run(proto, x)[0], run(tidied, x)[0])
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tidied.graph.initializer}
    np.testing.assert_array_equal(held["gamma"], norm(4)["gamma"])


def test_a_length_written_as_a_symbol_is_a_fixed_length() -> None:
    """One exporter writes `"16"` as the name of an axis that it has fixed."""
    proto = conv_norm()
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "16"
    tidied = tidy(proto)
    for value in (tidied.graph.input[0], tidied.graph.output[0]):
        dim = value.type.tensor_type.shape.dim[0]
        assert (dim.dim_value, dim.dim_param) == (16, "")
