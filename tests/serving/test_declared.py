"""What `config.pbtxt` declares, held against the model, and runs in the declared shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from infold.errors import ConfigError, InvalidInputError, SessionError
from infold.runtime import Stop, TritonConfig
from infold.runtime.triton_config import parse_triton_text
from infold.serving.declared import Shapes, declared
from infold.serving.reshaping import Run, as_declared
from infold.tensors import Array, Dim, Signature, Tensors, TensorSpec

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def spec(name: str, *shape: Dim, dtype: Any = F32) -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


def signature(*inputs: TensorSpec, outputs: Sequence[TensorSpec] = (spec("y", "n", 2),)) -> Signature:
    return Signature(inputs, tuple(outputs))


MODEL = signature(spec("x", "n", 3, "w"), spec("k", "n", dtype=np.int64))
X = "input { name: 'x' data_type: TYPE_FP32 dims: [3, -1] }"
K = "input { name: 'k' data_type: TYPE_INT64 dims: [1] reshape { shape: [] } }"
Y = "output { name: 'y' data_type: TYPE_FP32 dims: [2] }"


def config(text: str) -> TritonConfig:
    return parse_triton_text(text, "m/config.pbtxt")


def refusal(text: str, model: Signature = MODEL) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        declared(config(text), model)
    return caught.value


# -- signatures ---------------------------------------------------------------------------------------


def test_a_declaration_that_says_the_same_changes_nothing() -> None:
    """The model's own symbols included, which must stand for one length."""
    model = signature(spec("a", "n", "w"), spec("b", "n", "w"))
    text = f"""max_batch_size: 4 input {{ name: 'a' data_type: TYPE_FP32 dims: -1 }}
        input {{ name: 'b' data_type: TYPE_FP32 dims: -1 }} {Y}"""
    seen = declared(config(text), model)
    assert seen.signature == model
    assert seen.inputs == seen.outputs == {}


def test_inputs_are_in_the_order_of_the_declaration() -> None:
    """And of the outputs those that are declared."""
    two = Signature(MODEL.inputs, (spec("z", 5), spec("y", "n", 2)))
    seen = declared(config(f"max_batch_size: 4 {K} {X} {Y}"), two).signature
    assert [each.name for each in seen.inputs] == ["k", "x"]
    assert [each.name for each in seen.outputs] == ["y"]
    assert seen.is_batched and not two.is_batched


def test_a_length_that_is_declared_is_the_only_one_taken() -> None:
    """Though the model would take others."""
    text = f"max_batch_size: 4 input {{ name: 'x' data_type: TYPE_FP32 dims: [3, 5] }} {K} {Y}"
    seen = declared(config(text), MODEL).signature
    assert seen.inputs[0].shape == ("n", 3, 5)
    k = np.zeros((2, 1), np.int64)
    seen.check({"x": np.zeros((2, 3, 5), np.float32), "k": k})
    with pytest.raises(InvalidInputError, match=r"shape \[2, 3, 4\] given, the model takes \[-1, 3, 5\]"):
        seen.check({"x": np.zeros((2, 3, 4), np.float32), "k": k})


def test_without_a_batch_axis_first_lengths_may_differ() -> None:
    """An open first axis is an axis like any other, and nothing is joined along it."""
    model = signature(spec("a", "n", 2), spec("b", "m", 2), outputs=[spec("y", "k")])
    text = """input { name: 'a' data_type: TYPE_FP32 dims: [-1, 2] }
        input { name: 'b' data_type: TYPE_FP32 dims: [4, 2] }
        output { name: 'y' data_type: TYPE_FP32 dims: -1 }"""
    seen = declared(config(text), model).signature
    assert model.is_batched and not seen.is_batched
    assert [each.shape for each in seen.inputs] == [("n", 2), (4, 2)]


def test_what_is_not_declared_is_as_the_model_has_it() -> None:
    """With a batch axis if all first axes are open."""
    assert declared(config(""), MODEL).signature == MODEL
    fixed = signature(spec("x", 4, 3))
    assert not declared(config(""), fixed).signature.is_batched
    only_outputs = declared(config(Y), MODEL).signature
    assert only_outputs == MODEL
    assert "but the model's 'x' has shape [4, 3]" in str(refusal("max_batch_size: 2", fixed))


@pytest.mark.parametrize("has_rows", [True, False])
def test_an_open_rank_is_what_is_declared(has_rows: bool) -> None:
    """The model does not say."""
    model = Signature((TensorSpec("x", F32, None),), (TensorSpec("y", F32, None),))
    text = """input { name: 'x' data_type: TYPE_FP32 dims: [3, -1] }
        output { name: 'y' data_type: TYPE_FP32 dims: 2 }"""
    seen = declared(config(("max_batch_size: 8 " if has_rows else "") + text), model).signature
    rows = (None,) if has_rows else ()
    assert seen.inputs[0].shape == (*rows, 3, None)
    assert seen.outputs[0].shape == (*rows, 2)
    assert seen.is_batched == has_rows


@pytest.mark.parametrize(
    ("old", "new", "place", "said", "own"),
    [
        (X, "", "input", "is not declared", "'x'"),
        (X, X + X.replace("'x'", "'z'"), "input 'z'", "none of that name", "'x', 'k'"),
        ("'y'", "'z'", "output 'z'", "none of that name", "'y'"),
        (X, X.replace("FP32", "FP16"), "input 'x'.data_type", "TYPE_FP16", "TYPE_FP32"),
        (Y, Y.replace("FP32", "BF16"), "output 'y'.data_type", "TYPE_BF16", "TYPE_FP32"),
        ("[3, -1]", "[4, -1]", "input 'x'.dims", "[-1, 4, -1]", "[-1, 3, -1]"),
        ("[3, -1]", "[-1, -1]", "input 'x'.dims", "[-1, -1, -1]", "[-1, 3, -1]"),
        ("[3, -1]", "[3]", "input 'x'.dims", "[-1, 3]", "[-1, 3, -1]"),
        ("max_batch_size: 4", "", "input 'x'.dims", "[3, -1]", "[-1, 3, -1]"),
        ("shape: []", "shape: [1]", "input 'k'.reshape.shape", "[-1, 1]", "[-1]"),
        ("[2]", "[3]", "output 'y'.dims", "[-1, 3]", "[-1, 2]"),
        ("[2]", "[-1]", "output 'y'.dims", "[-1, -1]", "[-1, 2]"),
    ],
)
def test_a_mismatch_names_both(old: str, new: str, place: str, said: str, own: str) -> None:
    """What is declared, and what the model has."""
    text = f"max_batch_size: 4 {X} {K} {Y}"
    declared(config(text), MODEL)
    error = refusal(text.replace(old, new))
    assert error.place == f"m/config.pbtxt: {place}"
    assert said in error.detail and own in error.detail


def test_an_output_promises_no_length_that_the_model_leaves_open() -> None:
    """An input may: it is checked before it is run."""
    model = signature(spec("x", "n", "w"), outputs=[spec("y", "n", "w")])
    text = "max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: 3 } output { name: 'y' "
    declared(config(f"{text} data_type: TYPE_FP32 dims: -1 }}"), model)
    assert refusal(f"{text} data_type: TYPE_FP32 dims: 3 }}", model).place.endswith("output 'y'.dims")


def test_rows_need_an_open_first_axis() -> None:
    """Of a fixed length it is none of rows."""
    model = signature(spec("x", 4, 3))
    text = f"max_batch_size: 4 input {{ name: 'x' data_type: TYPE_FP32 dims: 3 }} {Y}"
    assert refusal(text, model).detail == (
        "[-1, 3] with the axis of the batch declared, the model's shape is [4, 3]"
    )


# -- reshapes -----------------------------------------------------------------------------------------


class Watched:
    """Runs a function of arrays and keeps what it was given."""

    def __init__(self, **outputs: Any) -> None:
        self.functions = outputs
        self.given: Tensors = {}
        self.asked: Sequence[str] | None = None
        self.stop: Stop | None = None

    def run(self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        self.given, self.asked, self.stop = tensors, outputs, stop
        names = self.functions if outputs is None else outputs
        return {name: self.functions[name](tensors) for name in names}


def presented(text: str, model: Signature, run: Run) -> tuple[Run, Signature]:
    seen = declared(config(text), model)
    return as_declared(run, "m", [each.name for each in model.outputs], seen), seen.signature


def test_tensors_go_in_and_out_in_the_declared_shapes() -> None:
    """As views of the same memory; the other input is not touched."""
    model = signature(
        spec("x", "n", 3, "w"), spec("k", "n", dtype=np.int64), outputs=[spec("y", "n", "w", 3)]
    )
    text = f"""max_batch_size: 8 {K}
        input {{ name: 'x' data_type: TYPE_FP32 dims: [3, 1, -1] reshape {{ shape: [3, -1] }} }}
        output {{ name: 'y' data_type: TYPE_FP32 dims: [-1, 1, 3] reshape {{ shape: [-1, 3] }} }}"""
    watched = Watched(y=lambda given: given["x"].transpose(0, 2, 1).copy())
    run, seen = presented(text, model, watched.run)
    assert [each.shape for each in seen.inputs] == [("n", 1), ("n", 3, 1, "w")]
    assert seen.outputs[0].shape == ("n", "w", 1, 3)
    assert seen.is_batched
    x, k = np.arange(24, dtype=np.float32).reshape(2, 3, 1, 4), np.array([[7], [8]])
    seen.check({"x": x, "k": k})
    stop = Stop()
    result = run({"x": x, "k": k}, None, stop)
    assert watched.given["x"].shape == (2, 3, 4) and np.shares_memory(watched.given["x"], x)
    assert watched.given["k"].tolist() == [7, 8]
    assert watched.stop is stop
    assert result["y"].shape == (2, 4, 1, 3)
    assert (result["y"][:, :, 0] == x[:, :, 0].transpose(0, 2, 1)).all()
    assert x.shape == (2, 3, 1, 4)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_any_number_of_rows_is_reshaped(rows: int) -> None:
    """None too."""
    model = signature(spec("k", "n"), outputs=[spec("y", "n")])
    text = "max_batch_size: 8 " + " ".join(
        f"{kind} {{ name: '{name}' data_type: TYPE_FP32 dims: [1] reshape {{ shape: [] }} }}"
        for kind, name in (("input", "k"), ("output", "y"))
    )
    watched = Watched(y=lambda given: given["k"] * 2)
    run, _ = presented(text, model, watched.run)
    given = np.arange(rows, dtype=np.float32).reshape(rows, 1)
    assert (run({"k": given}, None, None)["y"] == given * 2).all()
    assert watched.given["k"].shape == (rows,)


def test_a_scalar_is_declared_with_one_element() -> None:
    """Its shape on the wire is what is declared; where `dims` is empty, nothing is reshaped."""
    model = signature(spec("x"), outputs=[spec("y")])
    text = """input { name: 'x' data_type: TYPE_FP32 dims: [1] }
        output { name: 'y' data_type: TYPE_FP32 dims: [1, 1] }"""
    watched = Watched(y=lambda given: given["x"] + 1)
    run, seen = presented(text, model, watched.run)
    assert (seen.inputs[0].shape, seen.outputs[0].shape) == ((1,), (1, 1))
    assert run({"x": np.array([2], np.float32)}, None, None)["y"].tolist() == [[3]]
    assert watched.given["x"].shape == ()
    bare = "input { name: 'x' data_type: TYPE_FP32 } output { name: 'y' data_type: TYPE_FP32 }"
    assert declared(config(bare), model).inputs == {}
    assert refusal(text.replace("dims: [1] ", "dims: [2] "), model).place.endswith("input 'x'.dims")
    assert refusal(f"max_batch_size: 1 {text}", model).place.endswith("input 'x'.dims")


def test_only_what_is_declared_is_asked_of_the_model() -> None:
    """Others are not computed; an order that is asked for is kept."""
    outputs = [spec("a", "n"), spec("b", "n"), spec("c", "n")]
    model = signature(spec("x", "n"), outputs=outputs)
    tensors = [("input", "x"), ("output", "c"), ("output", "a")]
    text = "max_batch_size: 8 " + " ".join(
        f"{kind} {{ name: '{name}' data_type: TYPE_FP32 }}" for kind, name in tensors
    )
    watched = Watched(**{each.name: lambda given: given["x"] for each in outputs})
    run, seen = presented(text, model, watched.run)
    assert [each.name for each in seen.outputs] == ["c", "a"]
    x = {"x": np.zeros(1, np.float32)}
    assert list(run(x, None, None)) == ["c", "a"]
    assert list(run(x, ["a"], None)) == ["a"] == watched.asked


def test_a_model_without_a_reshape_is_run_by_itself() -> None:
    """No function stands in between."""
    model = signature(spec("x", "n"), outputs=[spec("a", "n"), spec("b", "n")])
    watched = Watched()
    for text in ("", "max_batch_size: 8"):
        run, _ = presented(text, model, watched.run)
        assert run == watched.run


def test_a_model_that_gives_another_shape_than_it_says_is_told() -> None:
    """As an error of the run."""
    model = signature(spec("x", "n"), outputs=[spec("y", "n", 2)])
    text = """max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 }
        output { name: 'y' data_type: TYPE_FP32 dims: [2, 1] reshape { shape: [2] } }"""
    for shape in ((1, 3), (1, 2, 1), ()):
        run, _ = presented(text, model, Watched(y=lambda given, shape=shape: np.zeros(shape)).run)
        with pytest.raises(SessionError, match=r"output 'y' has shape .*, declared is \[-1, 2\]"):
            run({"x": np.zeros(1, np.float32)}, None, None)


def test_shapes_that_are_equal_are_no_reshape() -> None:
    """Though one is declared."""
    model = signature(spec("x", "n", 2), outputs=[spec("y", "n", 2)])
    text = f"max_batch_size: 8 input {{ name: 'x' data_type: TYPE_FP32 dims: 2 reshape {{ shape: 2 }} }} {Y}"
    assert declared(config(text), model).inputs == {}
    other = text.replace("dims: 2 reshape", "dims: [2, 1] reshape")
    assert declared(config(other), model).inputs == {"x": Shapes((-1, 2, 1), (-1, 2))}
