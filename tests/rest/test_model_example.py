"""Examples of requests: of golden inputs where there are good ones, and short enough for a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infold.rest import model_example
from infold.rest.codec import DTYPES
from infold.rest.v1 import decode_predict
from infold.rest.v2 import decode_infer
from infold.tensors import Array, Dim, Signature, TensorSpec


def tensor(name: str, datatype: str, *shape: Dim) -> TensorSpec:
    return TensorSpec(name, DTYPES[datatype], shape)


def golden(folder: Path, **arrays: Array) -> Path:
    """A model file beside which these inputs lie."""
    np.savez(folder / "golden.npz", **{f"in.{name}": array for name, array in arrays.items()})  # type: ignore[arg-type]
    return folder / "model.onnx"


ONE = Signature((tensor("x", "FP32", "n", 2),), (tensor("y", "FP32", "n"),))
TWO = Signature(
    (tensor("a", "FP16", "n", 2), tensor("b", "BYTES", "n")),
    (tensor("y", "FP32", "n"), tensor("z", "FP32", "n")),
)


def test_the_first_golden_row_is_the_example(tmp_path: Path) -> None:
    """In as few digits as its type needs."""
    model = golden(tmp_path, x=np.array([[0.1, np.nan], [5, 6]], np.float32))
    row = model_example.example_row(model, ONE)
    assert model_example.infer_example(row) == {
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.1, None]}]
    }
    assert model_example.predict_example(row, ONE) == {"instances": [[0.1, None]]}


def test_without_golden_inputs_there_are_zeros_and_text(tmp_path: Path) -> None:
    """Open lengths are 1."""
    row = model_example.example_row(tmp_path / "model.onnx", TWO)
    assert model_example.infer_example(row) == {
        "inputs": [
            {"name": "a", "shape": [1, 2], "datatype": "FP16", "data": [0.0, 0.0]},
            {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["text"]},
        ]
    }
    assert model_example.predict_example(row, TWO) == {"instances": [{"a": [0.0, 0.0], "b": "text"}]}


def test_golden_inputs_that_a_page_would_round_are_passed_over(tmp_path: Path) -> None:
    """JavaScript's whole numbers end at 2**53."""
    whole = Signature((tensor("x", "INT64", "n"),), ONE.outputs)
    for value, shown in ((2**53 - 1, 2**53 - 1), (2**53, 0), (-(2**63), 0)):
        row = model_example.example_row(golden(tmp_path, x=np.array([value, 1])), whole)
        assert row["x"].tolist() == [shown]


def test_golden_inputs_whose_first_rows_do_not_fit_together_are_passed_over(tmp_path: Path) -> None:
    """A symbol that counts the rows of one input and the columns of another."""
    crossed = Signature((tensor("a", "FP32", "n", 2), tensor("b", "FP32", 2, "n")), ONE.outputs)
    model = golden(tmp_path, a=np.ones((3, 2), np.float32), b=np.ones((2, 3), np.float32))
    row = model_example.example_row(model, crossed)
    crossed.check(row)
    assert row["b"].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("inputs", "outputs", "form"),
    [
        ([tensor("x", "FP32")], ["n"], "inputs"),
        ([tensor("x", "FP32", 2, 3)], ["n"], "instances"),
        ([tensor("x", "FP32", "n")], ["n", "n"], "instances"),
        ([tensor("x", "FP32", "n")], ["n", "m"], "inputs"),
        ([tensor("x", "FP32", None)], [None, None], "inputs"),
        ([tensor("x", "FP32", "n"), tensor("z", "FP32", "n")], ["n"], "instances"),
        ([tensor("x", "FP32", "n"), tensor("z", "FP32", "m")], ["n"], "inputs"),
        ([tensor("x", "FP32", "n"), tensor("z", "FP32")], ["n"], "inputs"),
        ([], ["n", "n"], "inputs"),
    ],
    ids=str,
)
def test_rows_are_shown_only_where_all_have_the_same(
    inputs: list[TensorSpec], outputs: list[Dim], form: str, tmp_path: Path
) -> None:
    """Else predict answers that there are none; columns are always answered."""
    wanted = Signature(tuple(inputs), tuple(tensor(f"y{i}", "FP32", dim) for i, dim in enumerate(outputs)))
    row = model_example.example_row(tmp_path / "model.onnx", wanted)
    request = model_example.predict_example(row, wanted)
    assert list(request) == [form]
    tensors, in_rows = decode_predict(json.dumps(request).encode(), wanted)
    assert in_rows == (form == "instances")
    wanted.check(tensors)


def test_long_inputs_are_large_together() -> None:
    """Two that are short by themselves, too."""
    half = np.zeros(2048)
    assert not model_example.is_large({"a": half, "b": half})
    assert model_example.is_large({"a": half, "b": half, "c": np.zeros(())})


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (tensor("x", "FP32", "n", 3, 8), 96),
        (tensor("x", "INT8", "n", "m"), 1),
        (tensor("x", "INT8", 2, "m", "k"), None),
        (tensor("x", "BYTES", "n"), None),
        (TensorSpec("x", DTYPES["FP32"], None), None),
    ],
    ids=str,
)
def test_bytes_alone_are_a_request_where_their_shape_follows(
    spec: TensorSpec, size: int | None, tmp_path: Path
) -> None:
    """As the service reads them."""
    wanted = Signature((spec,), ONE.outputs)
    row = model_example.example_row(tmp_path / "model.onnx", wanted)
    assert model_example.raw_bytes(row, wanted) == size
    if size is not None:
        assert decode_infer(bytes(size), 0, wanted).tensors["x"].shape == row["x"].shape
    assert model_example.raw_bytes({}, TWO) is None
