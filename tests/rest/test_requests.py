"""Infer and predict requests: whichever way one is read, it says the same."""

import json
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infold.errors import InvalidInputError, RequestError
from infold.rest import v2
from infold.rest.codec import DTYPES
from infold.rest.v2 import InferRequest, decode_infer
from infold.tensors import Array, Signature, TensorSpec


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (TensorSpec("y", np.dtype(np.float32), ("n",)),))


def one(datatype: str, *shape: int | str | None, name: str = "x") -> Signature:
    return signature(TensorSpec(name, DTYPES[datatype], shape))


def said(tensors: Mapping[str, Array]) -> list[tuple[object, ...]]:
    return [
        (name, array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in tensors.items()
    ]


def infer_outcome(body: bytes, json_bytes: int | None, wanted: Signature) -> object:
    """All that a request says, or its refusal; nothing else may come of it."""
    try:
        request: InferRequest = decode_infer(body, json_bytes, wanted)
    except RequestError as refused:
        return type(refused), str(refused)
    return said(request.tensors), request.outputs, request.id, dict(request.binary), request.is_binary


# -- shapes that no array can have ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62], [2**40, 0, 2**40], [1] * 100, [0] * 100])
@pytest.mark.parametrize("form", ["json", "bytes"])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_shape_that_no_array_has_is_refused(shape: list[int], form: str, is_open: bool) -> None:
    """400 and where; never a failure of ours."""
    wanted = signature(TensorSpec("x", np.dtype(np.float32), None if is_open else ("n", "m")))
    values = [0.0] * (1 if all(shape) else 0)
    entry: dict[str, Any] = {"name": "x", "shape": shape, "datatype": "FP32"}
    if form == "json":
        body, json_bytes = json.dumps({"inputs": [{**entry, "data": values}]}).encode(), None
        blob = b""
    else:
        blob = np.array(values, np.float32).tobytes()
        entry["parameters"] = {"binary_data_size": len(blob)}
        body = json.dumps({"inputs": [entry]}).encode()
        json_bytes = len(body)
    with pytest.raises(InvalidInputError, match=r"inputs\[0\]\.shape"):
        decode_infer(body + blob, json_bytes, wanted)


# -- the quick readers of plain requests ------------------------------------------------------------

VALUES = [
    "0", "1", "-1", "2.5", "1.0", "-0.0", "1e39", "70000", "300", "-129", "9223372036854775808",
    "18446744073709551616", "1e400", "true", "null", '"1"', "[1]", "[1,2]",
]  # fmt: skip
SHAPES = ["[1,2]", "[2,1]", "[2]", "[]", "[0,2]", "[-1,-2]", "[1,-2]", "[1.0,2]", "[true,2]", "[1,2,1]"]
SHAPES += ["null", "2", '["1",2]', "[4,2]", "[" + "1," * 40 + "2]", "[0,9223372036854775808]"]
PARAMETERS = ["null", "{}", "[]", '{"a":[1]}', '{"binary_data_output":true}', '{"binary_data_output":null}']
PARAMETERS += ['{"binary_data_output":1}', '{"binary_data_size":8}', '{"binary_data_size":null}']
IDS = [
    '"a"',
    "null",
    "7",
    '"' + "x" * 64 + '"',
    '"' + "x" * 65 + '"',
    '"' + "ü" * 129 + '"',
    r'"\ud800"',
    r'"\u0000"',
]
OUTPUTS = [
    "null",
    "[]",
    '[{"name":"y"}]',
    '[{"name":"y","parameters":{"binary_data":true}}]',
    '[{"name":"z"}]',
    "5",
]


@st.composite
def objects(draw: st.DrawFn, fields: Mapping[str, st.SearchStrategy[str]], *, usual: tuple[str, ...]) -> str:
    """JSON of an object: its usual fields; now and then one more, one twice, or one missing."""
    names = list(usual)
    match draw(st.sampled_from(range(8))):
        case 0:
            names.append(draw(st.sampled_from(sorted(fields))))
        case 1:
            names.append(draw(st.sampled_from(usual)))
        case 2:
            names.remove(draw(st.sampled_from(usual)))
        case 3:
            names.append("more")
    names = draw(st.permutations(names))
    return "{" + ",".join(f'"{name}":{draw(fields.get(name, st.just("[1]")))}' for name in names) + "}"


def mostly(usual: str, *others: str) -> st.SearchStrategy[str]:
    return st.sampled_from([usual] * 4 * max(1, len(others) // 4) + list(others))


@st.composite
def json_requests(draw: st.DrawFn, datatype: str) -> bytes:
    count = draw(st.sampled_from([2, 2, 2, 2, 0, 1, 3]))
    element = st.sampled_from(VALUES[:2] if draw(st.booleans()) else VALUES)
    data = draw(
        st.sampled_from(["[" + ",".join(draw(element) for _ in range(count)) + "]"] * 9 + ["[[1,2]]", "1"])
    )
    entry = objects(
        {
            "name": mostly('"x"', '"z"', "1", "null"),
            "shape": mostly(*SHAPES),
            "datatype": mostly(f'"{datatype}"', '"FP64"', '"FP32"', '"what"', "1"),
            "data": st.just(data),
            "parameters": st.sampled_from(PARAMETERS),
        },
        usual=("name", "shape", "datatype", "data"),
    )
    entries = draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
    inputs = "[" + ",".join(draw(entry) for _ in range(entries)) + "]"
    request = objects(
        {
            "inputs": st.just(inputs),
            "id": mostly(*IDS),
            "outputs": st.sampled_from(OUTPUTS),
            "parameters": st.sampled_from(PARAMETERS),
        },
        usual=draw(st.sampled_from([("inputs",), ("inputs", "id")])),
    )
    text = draw(request) + draw(st.sampled_from([""] * 9 + [" ", "{}", "]"]))
    return text.encode()


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
@settings(max_examples=100)
@given(data=st.data())
def test_a_plain_request_read_in_one_go_says_what_it_says_to_the_careful_reader(
    datatype: str, data: st.DataObject
) -> None:
    """The same tensors, bit by bit, or the same refusal."""
    body = data.draw(json_requests(datatype))
    for wanted in (one(datatype, "n", 2), one(datatype, "n"), one(datatype, None, None)):
        quick = infer_outcome(body, None, wanted)
        with mock.patch.object(v2, "read_plain", return_value=None):
            assert quick == infer_outcome(body, None, wanted)


@st.composite
def byte_requests(draw: st.DrawFn, datatype: str) -> tuple[bytes, int]:
    item = max(1, DTYPES[datatype].itemsize)
    size = draw(st.sampled_from([2 * item] * 5 + [0, item, 3 * item, 2 * item + 1]))
    sizes = mostly(str(size), str(2 * item), "0", "-1", "true", "null", f"{size}.0", '"8"', str(10**30))
    entry = objects(
        {
            "name": mostly('"x"', '"z"'),
            "shape": mostly(*SHAPES),
            "datatype": mostly(f'"{datatype}"', '"FP64"', '"FP32"'),
            "data": st.sampled_from(["null", "[1,2]", "[]"]),
            "parameters": objects({"binary_data_size": sizes}, usual=("binary_data_size",)),
        },
        usual=("name", "shape", "datatype", "parameters"),
    )
    entries = draw(st.sampled_from([1, 1, 1, 1, 2]))
    request = objects(
        {
            "inputs": st.just("[" + ",".join(draw(entry) for _ in range(entries)) + "]"),
            "id": mostly(*IDS),
            "outputs": st.sampled_from(OUTPUTS),
            "parameters": st.sampled_from(PARAMETERS),
        },
        usual=draw(st.sampled_from([("inputs",), ("inputs", "id"), ("inputs", "parameters")])),
    )
    header = (draw(request) + " " * draw(st.integers(0, 8))).encode()
    blob = draw(st.binary(min_size=size, max_size=size))
    return header + blob, len(header)


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
@settings(max_examples=100)
@given(data=st.data())
def test_bytes_read_in_one_go_say_what_they_say_to_the_careful_reader(
    datatype: str, data: st.DataObject
) -> None:
    """Aligned or not: the same tensors, bit by bit, or the same refusal."""
    body, json_bytes = data.draw(byte_requests(datatype))
    for wanted in (one(datatype, "n", 2), one(datatype, "n"), one(datatype, None, None)):
        quick = infer_outcome(body, json_bytes, wanted)
        with mock.patch.object(v2, "read_plain_bytes", return_value=None):
            assert quick == infer_outcome(body, json_bytes, wanted)


def test_plain_requests_do_take_the_short_way() -> None:
    """Or the comparisons above would compare the careful reader with itself."""
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32"}
    tensors = np.array([[1, 2.5]], np.float32)
    with mock.patch.object(v2, "_tensors", side_effect=AssertionError("the careful reader was asked")):
        body = json.dumps({"id": "a", "inputs": [{**entry, "data": [1, 2.5]}]}).encode()
        assert decode_infer(body, None, one("FP32", "n", 2)).tensors["x"].tolist() == tensors.tolist()
        header = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": 8}}]}).encode()
        for lead in (b"", b" "):
            request = decode_infer(lead + header + tensors.tobytes(), len(lead + header), one("FP32", "n", 2))
            assert request.tensors["x"].tolist() == tensors.tolist()
            assert request.tensors["x"].flags.aligned
