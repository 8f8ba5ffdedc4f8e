"""Schemas of models: they take what the service takes, and nothing that it refuses."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from openapi_schema_validator import OAS30Validator

from infold.errors import RequestError
from infold.rest import model_schema, v1, v2
from infold.rest.codec import DTYPES
from infold.tensors import Array, Dim, Signature, TensorSpec


def tensor(name: str, datatype: str, *shape: Dim) -> TensorSpec:
    return TensorSpec(name, DTYPES[datatype], shape)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (tensor("y", "FP32", "n"),))


def is_valid(schema: model_schema.Schema, value: Any) -> bool:
    return bool(OAS30Validator(schema).is_valid(value))


def is_taken(wanted: Signature, request: dict[str, Any]) -> bool:
    try:
        v2.decode_infer(json.dumps(request).encode(), None, wanted)
    except RequestError:
        return False
    return True


def entry(name: str, datatype: str, shape: list[Any], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


EDGES: list[Any] = [
    0, 1, -1, 0.5, True, None, "text",
    127, 128, -128, -129, 255, 256, 2**15 - 1, 2**15, -(2**15) - 1, 2**16 - 1, 2**16,
    2**31 - 1, 2**31, -(2**31) - 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1,
    2**64 - 1, 2**64, 65504, 65600, -65600,
]  # fmt: skip


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_an_element_is_valid_exactly_if_it_is_taken(datatype: str) -> None:
    """Types and limits of every datatype, at their edges."""
    wanted = signature(tensor("x", datatype, 1))
    schema = model_schema.infer_request(wanted)
    verdicts = set()
    for value in EDGES:
        request = {"inputs": [entry("x", datatype, [1], [value])]}
        assert is_valid(schema, request) == is_taken(wanted, request), value
        verdicts.add(is_valid(schema, request))
    assert verdicts == {True, False}


PAIR = signature(tensor("a", "FP32", "n", 2), tensor("b", "INT64", 3))
A, B = entry("a", "FP32", [2, 2], [1, 2, 3, 4]), entry("b", "INT64", [3], [1, 2, 3])


def test_inputs_come_in_any_order_flat_or_nested() -> None:
    """And with an id, outputs and parameters, or none of them."""
    schema = model_schema.infer_request(PAIR)
    more = {"id": "a", "outputs": [{"name": "y", "parameters": {"binary_data": True}}], "parameters": {}}
    nested = A | {"data": [[1, 2], [3, 4]]}
    for request in ({"inputs": [A, B]}, {"inputs": [B, A]}, {"inputs": [nested, B]} | more):
        assert is_taken(PAIR, request)
        assert is_valid(schema, request)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "c"},
        {"datatype": "FP64"},
        {"shape": [2, 2, 1]},
        {"shape": [4]},
        {"shape": [-2, 2]},
        {"shape": [2.5, 2]},
        {"data": ["1", 2, 3, 4]},
        {"data": [[1, 2, 3, 4], 2]},
        {"data": [[1, 2, 3]]},
        {"data": {}},
    ],
    ids=str,
)
def test_what_is_refused_is_not_valid(change: dict[str, Any]) -> None:
    """Wrong names, types, numbers of axes, and rows of a wrong length."""
    request = {"inputs": [A | change, B]}
    assert not is_taken(PAIR, request)
    assert not is_valid(model_schema.infer_request(PAIR), request)


def test_a_shape_that_is_all_fixed_is_valid_as_it_is() -> None:
    """No other, even of as many elements; and data of no other length."""
    wanted = signature(tensor("x", "UINT8", 2, 3))
    schema = model_schema.infer_request(wanted)
    assert is_valid(schema, {"inputs": [entry("x", "UINT8", [2, 3], [0] * 6)]})
    assert not is_valid(schema, {"inputs": [entry("x", "UINT8", [3, 2], [0] * 6)]})
    assert not is_valid(schema, {"inputs": [entry("x", "UINT8", [2, 3], [0] * 5)]})
    assert not is_valid(schema, {"inputs": [entry("x", "UINT8", [2, 3], [[0] * 2] * 3)]})


def test_a_scalar_and_an_open_rank_are_valid_as_they_are_taken() -> None:
    """The shape [] with one value; any shape where the model leaves it open."""
    scalar = signature(tensor("x", "FP64"))
    open_rank = signature(TensorSpec("x", np.dtype(np.float64), None))
    one = {"inputs": [entry("x", "FP64", [], [3.5])]}
    for wanted in (scalar, open_rank):
        assert is_taken(wanted, one)
        assert is_valid(model_schema.infer_request(wanted), one)
    deep = {"inputs": [entry("x", "FP64", [1, 1, 2], [[[1, 2]]])]}
    assert is_taken(open_rank, deep)
    assert is_valid(model_schema.infer_request(open_rank), deep)
    assert not is_valid(model_schema.infer_request(scalar), deep)


def test_an_input_that_is_missing_is_not_valid() -> None:
    """Nor one too many."""
    schema = model_schema.infer_request(PAIR)
    for inputs in ([A], [A, B, B], []):
        assert not is_taken(PAIR, {"inputs": inputs})
        assert not is_valid(schema, {"inputs": inputs})


def test_long_data_has_no_length_in_the_schema() -> None:
    """A page makes up as many values as a schema demands, and would freeze."""
    wanted = signature(tensor("x", "FP32", "n", 3, 224, 224), tensor("z", "FP32", 5000))
    text = json.dumps([model_schema.infer_request(wanted), model_schema.predict_request(wanted)])
    assert "224" not in text.replace("[n, 3, 224, 224]", "")
    assert '"minItems": 5000' not in text
    assert '"enum": [[5000]]' in text


# -- answers ----------------------------------------------------------------------------------------


def no_classes(output: str, array: Array, top: int) -> Array:
    raise AssertionError(f"nobody asked for {top} classes of {output}")


@pytest.mark.parametrize(
    "results",
    [
        {"y": np.array([1, np.nan, np.inf], np.float32), "t": np.array([["a"], ["b"]], object)},
        {"y": np.zeros(0, np.float32)},
    ],
    ids=["all", "one, empty"],
)
def test_answers_are_valid(results: dict[str, Array]) -> None:
    """With NaN as null, and with fewer outputs where fewer were asked for."""
    both = Signature((), (tensor("y", "FP32", "n"), tensor("t", "BYTES", "n", 1)))
    request = v2.InferRequest({}, id="own")
    answer = json.loads(bytes(v2.encode_infer("m", 7, request, results, no_classes).parts[0]))
    schema = model_schema.infer_response("m", both)
    assert is_valid(schema, answer)
    for key, value in (("model_name", "other"), ("outputs", []), ("outputs", [{"name": "y"}])):
        changed = copy.deepcopy(answer) | {key: value}
        assert not is_valid(schema, changed)


# -- predict ----------------------------------------------------------------------------------------

ROWS = Signature(
    (tensor("a", "FP32", "n", 2), tensor("b", "INT64", "n")),
    (tensor("y", "FP32", "n", 1), tensor("z", "BYTES", "n", 1)),
)
ONE = Signature((tensor("x", "FP32", "n", 2),), (tensor("y", "FP32", "n", 1),))


@pytest.mark.parametrize(
    ("wanted", "request_body", "is_good"),
    [
        (ONE, {"instances": [[1, 2], [3, 4]]}, True),
        (ONE, {"instances": [{"x": [1, 2]}]}, True),
        (ONE, {"inputs": [[1, 2]]}, True),
        (ONE, {"inputs": {"x": [[1, 2]]}}, True),
        (ONE, {"inputs": [[1, 2]], "instances": [[1, 2]]}, False),
        (ONE, {"instances": [[1, 2, 3]]}, False),
        (ONE, {"instances": [{"y": [1, 2]}]}, False),
        (ONE, {"inputs": {"x": [[1, 2]], "y": []}}, False),
        (ONE, {}, False),
        (ROWS, {"instances": [{"a": [1, 2], "b": 3}]}, True),
        (ROWS, {"inputs": {"a": [[1, 2]], "b": [3]}}, True),
        (ROWS, {"instances": [{"a": [1, 2]}]}, False),
        (ROWS, {"inputs": [[1, 2]]}, False),
        (signature(tensor("x", "FP32")), {"inputs": 3}, True),
        (signature(tensor("x", "FP32")), {"instances": [3]}, False),
        (Signature((), ONE.outputs), {"inputs": {}}, True),
    ],
    ids=str,
)
def test_a_predict_request_is_valid_exactly_if_it_is_taken(
    wanted: Signature, request_body: dict[str, Any], is_good: bool
) -> None:
    """Rows or columns, by name or bare; never both, never half."""
    try:
        v1.decode_predict(json.dumps(request_body).encode(), wanted)
        is_taken = True
    except RequestError:
        is_taken = False
    assert (is_taken, is_valid(model_schema.predict_request(wanted), request_body)) == (is_good, is_good)


@pytest.mark.parametrize("in_rows", [True, False])
@pytest.mark.parametrize("wanted", [ONE, ROWS], ids=["one output", "two"])
def test_answers_to_predict_are_valid(wanted: Signature, in_rows: bool) -> None:
    """In the form of the request."""
    results = {
        spec.name: np.full(
            [2] + [1] * (len(spec.shape or ()) - 1), "a" if spec.dtype == object else 0, spec.dtype
        )
        for spec in wanted.outputs
    }
    answer = json.loads(v1.encode_predict(results, wanted, in_rows=in_rows))
    assert is_valid(model_schema.predict_response(wanted), answer)
    assert not is_valid(model_schema.predict_response(wanted), {"outputs": "text"})


def test_a_tensor_is_shown_in_one_line() -> None:
    """Lengths that have a name by it, others as a question mark."""
    assert model_schema.shown(tensor("x", "FP32", "n", None, 3)) == "`x`: FP32 `[n, ?, 3]`"
    assert model_schema.shown(TensorSpec("x", DTYPES["BOOL"], None)) == "`x`: BOOL, of any shape"
