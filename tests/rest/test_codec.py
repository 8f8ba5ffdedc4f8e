import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infold.errors import InvalidInputError
from infold.rest.codec import DTYPES, decode_array, encode_json, json_ready

NUMERIC = [name for name in DTYPES if name != "BYTES"]


@pytest.mark.parametrize(
    ("text", "datatype", "message"),
    [
        ("[1, 300]", "UINT8", "data[1]: 300 does not fit UINT8"),
        ("[1, -1]", "UINT16", "data[1]: -1 does not fit UINT16"),
        ("[0, 1.7]", "INT32", "data[1]: 1.7 is no INT32"),
        ("[true]", "INT32", "data[0]: true is no INT32"),
        ('[1, "3"]', "INT64", 'data[1]: "3" is no INT64'),
        ("[1, null]", "INT8", "data[1]: null is no INT8"),
        ("[9223372036854775808]", "INT64", "data[0]: 9223372036854775808 does not fit INT64"),
        ("[18446744073709551616]", "UINT64", "data[0]: 1.8446744073709552e+19 does not fit UINT64"),
        ("[-1]", "UINT64", "data[0]: -1 does not fit UINT64"),
        ("[0, 1]", "BOOL", "data[0]: 0 is no BOOL"),
        ("[1.0, true]", "FP32", "data[1]: true is no FP32"),
        ("[0.5, 1e39]", "FP32", "data[1]: 1e+39 does not fit FP32"),
        ("[70000.0]", "FP16", "data[0]: 70000.0 does not fit FP16"),
        ("[1, 2", "FP32", "data: not valid JSON"),
        ("[NaN]", "FP32", "data: not valid JSON"),
        ("[[1, 2], [3]]", "FP32", "data[1]: rows differ in length"),
        ("[[1], 2]", "FP32", "data[1]: rows differ in length"),
        ("[[[1]], [[2], [3]]]", "INT32", "data[1]: rows differ in length"),
        ("[1, 2]", "BYTES", "data[0]: 1 is no BYTES"),
        ("[" * 40 + "]" * 40, "FP32", "data: nested more than 32 deep"),
        ('{"a": 1}', "FP32", 'data: {"a":1} is no FP32'),
    ],
)
def test_a_wrong_element_is_refused_by_its_place(text: str, datatype: str, message: str) -> None:
    """Typing is strict, and the message names what is wrong and where."""
    with pytest.raises(InvalidInputError) as refused:
        decode_array(text.encode(), DTYPES[datatype], "data")
    assert str(refused.value) == message


@pytest.mark.parametrize("datatype", NUMERIC)
@given(data=st.data())
def test_an_array_survives_the_way_out_and_back(datatype: str, data: st.DataObject) -> None:
    """JSON carries every finite value of every type exactly."""
    dtype = DTYPES[datatype]
    floats = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
    array = data.draw(hnp.arrays(dtype, shapes, elements=hnp.from_dtype(dtype, **floats)))  # type: ignore[call-overload]
    again = decode_array(encode_json(json_ready(array)), dtype, "data")
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, array)


def test_null_is_nan_for_floats_and_nan_is_null() -> None:
    """JSON has no NaN; infinities cannot be told from it on the way out."""
    assert np.isnan(decode_array(b"[null, 1]", np.dtype(np.float32), "data")).tolist() == [True, False]
    out = encode_json(json_ready(np.array([np.nan, np.inf, 1], np.float32)))
    assert orjson.loads(out) == [None, None, 1.0]


def test_floats_take_integers() -> None:
    """Most clients write 1 for 1.0."""
    assert decode_array(b"[1, 2.5]", np.dtype(np.float32), "data").tolist() == [1.0, 2.5]


def test_strings_keep_their_nesting() -> None:
    """BYTES tensors are strings in JSON."""
    array = decode_array('[["a", "ü"], ["", "d"]]'.encode(), np.dtype(object), "data")
    assert array.tolist() == [["a", "ü"], ["", "d"]]
    assert orjson.loads(encode_json(json_ready(array))) == [["a", "ü"], ["", "d"]]


def test_an_empty_array_is_legal() -> None:
    """Zero rows are rows too."""
    assert decode_array(b"[]", np.dtype(np.float32), "data").shape == (0,)
    assert decode_array(b"[[], []]", np.dtype(np.int8), "data").shape == (2, 0)
