"""The mended reference evaluator against onnxruntime, in a type that both can do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import model, norm, normal
from infold.convert import convert
from infold.convert.reference import evaluate_model
from infold.tensors import Array
from oracle import run

BN = "gamma, beta, mean, variance"


def assert_agrees(proto: onnx.ModelProto, x: Array) -> None:
    """Same shape, same numbers to float32's rounding of sums of this size."""
    (want,) = run(proto, {"x": x})
    (got,) = evaluate_model(proto, {"x": x}).values()
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        "group=2",
        "group=2, strides=[2,2], output_padding=[1,0]",
        "group=4, pads=[1,0,0,1], strides=[3,2]",
        "dilations=[2,1], pads=[1,1,0,0]",
        'group=2, auto_pad="SAME_UPPER", strides=[2,2]',
        'group=2, auto_pad="SAME_LOWER", strides=[2,2]',
        'auto_pad="VALID", strides=[2,1]',
        "group=2, output_shape=[10,9], strides=[2,2]",
        'auto_pad="SAME_UPPER", output_shape=[9,10], strides=[2,2]',
    ],
)
@pytest.mark.parametrize("bias", ["", ", b"])
def test_transposed_convolution(attributes: str, bias: str) -> None:
    """Groups, strides, dilations and every way to say how much is cut off."""
    groups = int(attributes.split("group=")[1][0]) if "group=" in attributes else 1
    weights = {"w": normal(4, 3, 3, 3), "b": normal(3 * groups, seed=1)}
    text = f"g (float[2,4,5,5] x) => (float[N,O,H,W] y) {{ y = ConvTranspose <{attributes}> (x, w{bias}) }}"
    proto = model(text, weights if bias else {"w": weights["w"]})
    assert_agrees(proto, normal(2, 4, 5, 5, seed=2))


def test_transposed_convolution_of_one_and_three_dimensions() -> None:
    """Nothing is made for images alone."""
    for space in (1, 3):
        dims = ",".join("4" * space)
        text = f"g (float[2,4,{dims}] x) => (float y) {{ y = ConvTranspose <group=2> (x, w) }}"
        proto = model(text, {"w": normal(4, 2, *[2] * space)})
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        assert_agrees(proto, normal(2, 4, *[4] * space, seed=2))


@pytest.mark.parametrize("opset", [7, 8, 9, 14, 15])
def test_batch_normalization_at_inference(opset: int) -> None:
    """By its moving statistics, whatever its opset."""
    text = f"g (float[2,4,3,3] x) => (float[2,4,3,3] y) {{ y = BatchNormalization <epsilon=0.01> (x, {BN}) }}"
    assert_agrees(model(text, norm(4), opset=opset), normal(2, 4, 3, 3, seed=2))


def test_batch_normalization_with_a_statistic_for_each_position() -> None:
    """`spatial=0`, which only opset 7 and 8 have; onnxruntime knows no more than its formula."""
    numbers = {name: np.abs(normal(4, 3, seed=i)) for i, name in enumerate(BN.split(", "))}
    text = f"g (float[2,4,3] x) => (float[2,4,3] y) {{ y = BatchNormalization <spatial=0> (x, {BN}) }}"
    x = normal(2, 4, 3, seed=9)
    (got,) = evaluate_model(model(text, numbers, opset=8), {"x": x}).values()
    wide = {name: array.astype(np.float64) for name, array in numbers.items()}
    want = wide["gamma"] * (x - wide["mean"]) / np.sqrt(wide["variance"] + 1e-5) + wide["beta"]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_batch_normalization_in_training() -> None:
    """A norm that stays may be one in training: then the batch's own statistics are used and returned."""
    text = f"""g (float[2,4,3,3] x) => (float[2,4,3,3] y, float[4] m, float[4] v) {{
        y, m, v = BatchNormalization <training_mode=1, momentum=0.7> (x, {BN}) }}"""
    proto = model(text, norm(4))
    x = normal(2, 4, 3, 3, seed=2)
    got = evaluate_model(proto, {"x": x})
    for name, want in zip(got, run(proto, {"x": x}), strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "kind", "opset"),
    [("float64", "double", 9), ("float64", "double", 17), ("bfloat16", "bfloat16", 17)],
)
def test_a_grouped_transposed_convolution_is_proven_in_every_type(
    tmp_path: Path, dtype: str, kind: str, opset: int
) -> None:
    """In these types onnxruntime has no kernel and onnx's own evaluator fails on groups."""
    text = f"""g ({kind}[N,4,5,5] x) => ({kind}[N,6,11,11] y) {{
        c = ConvTranspose <group=2, strides=[2,2]> (x, w)  y = BatchNormalization (c, {BN}) }}"""
    path = tmp_path / "model.onnx"
    onnx.save(
        model(text, {"w": normal(4, 3, 3, 3, dtype=dtype), **norm(6, 0, dtype)}, opset=opset), str(path)
    )
    done = convert(path, tmp_path / "folded.onnx")
    assert done.proof is not None and done.proof.passed and done.report.folded
    assert "reference evaluator" in done.proof.oracle
