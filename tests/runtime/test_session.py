"""Loaded graphs: what they say of themselves, what they answer, how they fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, normal
from infold.errors import NoKernelError, SessionError
from infold.runtime import Session
from infold.runtime.options import RunOptions
from oracle import run


def save(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(proto, str(path))
    return path


def test_the_signature_is_the_model_s(tmp_path: Path) -> None:
    """Names, dtypes, fixed lengths, symbols and open lengths, in the model's order."""
    proto = model(
        "g (float[N,2] x, int64[M] i, bool p) => (float[N,2] y, int64[M] j, bool q) {"
        " y = Relu (x)  j = Identity (i)  q = Not (p) }"
    )
    signature = Session(save(proto, tmp_path)).signature
    assert [spec.name for spec in signature.inputs] == ["x", "i", "p"]
    assert [spec.shape for spec in signature.inputs] == [("N", 2), ("M",), ()]
    assert [str(spec.dtype) for spec in signature.inputs] == ["float32", "int64", "bool"]
    assert [spec.name for spec in signature.outputs] == ["y", "j", "q"]
    assert not signature.is_batched


def test_a_session_answers_by_name(tmp_path: Path) -> None:
    """All outputs, or those asked for in the order asked."""
    proto = model("g (float[N] x) => (float[N] a, float[N] b) { a = Neg (x)  b = Abs (x) }")
    session = Session(save(proto, tmp_path))
    x = {"x": np.array([-1.5], np.float32)}
    assert {name: array.tolist() for name, array in session.run(x).items()} == {"a": [1.5], "b": [1.5]}
    assert list(session.run(x, ["b", "a"])) == ["b", "a"]
    assert list(session.run(x, ["b"])) == ["b"]
    assert session.provider == "CPUExecutionProvider"


def test_without_optimization_the_graph_runs_as_written(tmp_path: Path) -> None:
    """The proof's session and the oracle's give the same bits."""
    proto = conv_norm()
    x = {"x": normal(2, 2, 6, 6)}
    session = Session(save(proto, tmp_path), RunOptions(optimize=False))
    assert (session.run(x)["y"] == run(proto, x)[0]).all()


def test_a_missing_file(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(SessionError, match="missing.onnx"):
        Session(tmp_path / "missing.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x08"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    """A file that is no model is one clear line."""
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(SessionError) as caught:
        Session(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_operator_has_no_kernel(tmp_path: Path) -> None:
    """An operator nobody implements is told apart from a broken file."""
    proto = model("g (float[N] x) => (float[N] y) { y = nowhere.Frobnicate (x) }", extra=', "nowhere" : 1')
    with pytest.raises(NoKernelError, match="Frobnicate"):
        Session(save(proto, tmp_path))


def test_a_convolution_in_float64_has_no_kernel(tmp_path: Path) -> None:
    """... and so is a type that an operator is not implemented in."""
    with pytest.raises(NoKernelError, match="Conv"):
        Session(save(conv_norm(dtype="float64"), tmp_path))


def test_bfloat16_has_no_kernel(tmp_path: Path) -> None:
    """Tensors that numpy cannot exchange count as not implemented."""
    with pytest.raises(NoKernelError):
        Session(save(conv_norm(dtype="bfloat16"), tmp_path))


def test_an_opset_that_is_too_new_has_no_kernel(tmp_path: Path) -> None:
    """An opset above what this onnxruntime knows is a matter of kernels, not of the file."""
    with pytest.raises(NoKernelError):
        Session(save(model("g (float[N] x) => (float[N] y) { y = Relu (x) }", opset=99), tmp_path))


def test_wrong_inputs_fail_as_session_errors(tmp_path: Path) -> None:
    """A shape that does not fit, and a missing input, are errors of the session."""
    session = Session(save(conv_norm(), tmp_path))
    for tensors in ({}, {"x": normal(2, 3, 6, 6)}, {"y": normal(1)}):
        with pytest.raises(SessionError):
            session.run(tensors)


def test_external_data_from_another_folder(tmp_path: Path) -> None:
    """A graph in a scratch folder may have its weights elsewhere."""
    weights = tmp_path / "weights"
    weights.mkdir()
    proto = conv_norm()
    want = run(proto, {"x": normal(1, 2, 6, 6)})[0]
    onnx.save(
        proto,
        str(weights / "model.onnx"),
        save_as_external_data=True,
        location="model.data",
        size_threshold=0,
    )
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((weights / "model.onnx").read_bytes())
    session = Session(alone, RunOptions(optimize=False), external_folder=weights)
    assert (session.run({"x": normal(1, 2, 6, 6)})["y"] == want).all()


def test_optimizers_can_be_left_out(tmp_path: Path) -> None:
    """Names of graph optimizers are passed on."""
    options = RunOptions(disabled_optimizers=("ConvBNFusion",))
    assert Session(save(conv_norm(), tmp_path), options).run({"x": normal(1, 2, 6, 6)})["y"].shape == (
        1,
        4,
        6,
        6,
    )
