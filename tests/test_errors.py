"""Errors that carry facts: the text is made of them, and names the place in the wire's words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from infold.errors import (
    DatatypeError,
    HalfInJsonError,
    InvalidInputError,
    MissingInputError,
    ModelNotReadyError,
    RequestError,
    ShapeError,
    UnknownTensorError,
)
from infold.rest.v2 import decode_infer
from infold.tensors import BFLOAT16, Signature, TensorSpec

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
PAIR = Signature(
    (TensorSpec("a", F32, ("n", 2)), TensorSpec("b", I64, (None,)), TensorSpec("c", BFLOAT16, ())),
    (TensorSpec("y", F32, ("n",)), TensorSpec("z", F32, None)),
)
A: dict[str, Any] = {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
B: dict[str, Any] = {"name": "b", "shape": [1], "datatype": "INT64", "data": [3]}
C: dict[str, Any] = {"name": "c", "shape": [], "datatype": "BF16", "data": 1.5}


def refusal(inputs: list[dict[str, Any]], *outputs: str, **how: bool) -> InvalidInputError:
    """What is wrong with a request."""
    body = {"inputs": inputs, "outputs": [{"name": name} for name in outputs]}
    with pytest.raises(InvalidInputError) as refused:
        decode_infer(json.dumps(body).encode(), None, PAIR, **how)
    return refused.value


def test_the_request_that_the_others_are_changes_of_is_right() -> None:
    """Or they would be refused for something else."""
    body = json.dumps({"inputs": [A, B, C], "outputs": [{"name": "z"}]}).encode()
    request = decode_infer(body, None, PAIR)
    assert {name: array.tolist() for name, array in request.tensors.items()} == {
        "a": [[1, 2]],
        "b": [3],
        "c": 1.5,
    }
    assert request.outputs == ("z",)


def test_an_unknown_tensor() -> None:
    """Its name, and those that there are."""
    failure = refusal([A, {**B, "name": "q"}, C])
    assert isinstance(failure, UnknownTensorError)
    assert (failure.place, failure.role, failure.name) == ("inputs[1].name", "input", "q")
    assert str(failure) == "inputs[1].name: the model has no input 'q'; it has 'a', 'b', 'c'"
    failure = refusal([A, B, C], "y", "q")
    assert isinstance(failure, UnknownTensorError)
    assert (failure.place, failure.role, failure.name) == ("outputs[1].name", "output", "q")
    assert str(failure) == "outputs[1].name: the model has no output 'q'; it has 'y', 'z'"


@pytest.mark.parametrize(
    ("given", "missing"),
    [([], ["a", "b", "c"]), ([B], ["a", "c"]), ([C, A], ["b"]), ([A, B], ["c"])],
)
def test_a_missing_input(given: list[dict[str, Any]], missing: list[str]) -> None:
    """The first of them, in the model's order; the facts have all."""
    failure = refusal(given)
    assert isinstance(failure, MissingInputError)
    assert list(failure.wanted) == ["a", "b", "c"]
    assert list(failure.given) == [each["name"] for each in given]
    assert failure.missing == missing
    assert str(failure) == f"inputs: '{missing[0]}' is missing"


def test_another_datatype() -> None:
    """Both, as the wire has them."""
    failure = refusal([A, {**B, "datatype": "INT32"}, C])
    assert isinstance(failure, DatatypeError)
    assert (failure.name, failure.expected, failure.got) == ("b", "INT64", "INT32")
    assert str(failure) == "inputs[1].datatype: INT32 given, the model takes INT64"
    assert str(refusal([A, B, {**C, "datatype": "FP32"}])) == (
        "inputs[2].datatype: FP32 given, the model takes BF16"
    )


@pytest.mark.parametrize(
    ("index", "shape", "data", "takes"),
    [
        (0, [2, 1], [1, 2], [-1, 2]),
        (0, [2], [1, 2], [-1, 2]),
        (0, [0, 3], [], [-1, 2]),
        (1, [1, 1], [1], [-1]),
        (1, [], [1], [-1]),
        (2, [1], [1], []),
    ],
)
def test_another_shape(index: int, shape: list[int], data: list[int], takes: list[int]) -> None:
    """Both, -1 for any length."""
    inputs = [A, B, C]
    inputs[index] = {**inputs[index], "shape": shape, "data": data}
    failure = refusal(inputs)
    assert isinstance(failure, ShapeError)
    assert (failure.name, list(failure.expected), list(failure.got)) == ("abc"[index], takes, shape)
    assert str(failure) == f"inputs[{index}].shape: shape {shape} given, the model takes {takes}"


def test_a_half_that_must_not_come_as_json() -> None:
    """Where only bytes are taken."""
    failure = refusal([A, B, C], halves=False)
    assert isinstance(failure, HalfInJsonError)
    assert (failure.role, failure.name, failure.datatype) == ("input", "c", "BF16")
    assert str(failure) == "inputs[2].data: input 'c' of BF16 has no JSON here; bytes have"


def test_a_model_that_cannot_answer_now() -> None:
    """Which, and what it is doing."""
    assert str(ModelNotReadyError("m", None, "failed")) == "model 'm' is not ready: failed"
    failure = ModelNotReadyError("m", 3, "loading", is_of_version=True)
    assert str(failure) == "model 'm' version 3 is not ready: loading"
    assert isinstance(failure, RequestError)
