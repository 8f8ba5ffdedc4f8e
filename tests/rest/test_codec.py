import sys
from unittest import mock

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infold.errors import InvalidInputError
from infold.rest import codec
from infold.rest.codec import DTYPES, count_nulls, decode_array, encode_json, json_ready
from infold.tensors import BFLOAT16

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
        ("[1, Infinity]", "FP64", "data: not valid JSON"),
        ("[-Infinity]", "BF16", "data: not valid JSON"),
        ("[null]", "BOOL", "data[0]: null is no BOOL"),
        ("[[1, 2], [3, null]]", "UINT64", "data[1][1]: null is no UINT64"),
        ("[null]", "BYTES", "data[0]: null is no BYTES"),
        ("[0.5, 1e400]", "FP32", "data[1]: 1e400 does not fit FP32"),
        ("[[0.5], [-1E+400]]", "FP64", "data[1][0]: -1E+400 does not fit FP64"),
        ("1e999", "BF16", "data: 1e999 does not fit BF16"),
        ("[3, 1e400]", "INT8", "data[1]: 1e400 does not fit INT8"),
        ("[3, 18446744073709551615, 1e400]", "UINT64", "data[2]: 1e400 does not fit UINT64"),
        ("[1e400, 18446744073709551616]", "BOOL", "data[0]: 1e400 is no BOOL"),
        ("[18446744073709551616, 1e400]", "UINT64", "data[0]: 1.8446744073709552e+19 does not fit UINT64"),
        ("[-9223372036854775808, 1e400]", "INT64", "data[1]: 1e400 does not fit INT64"),
        ("[-9223372036854775809, 1e400]", "INT64", "data[0]: -9.223372036854776e+18 does not fit INT64"),
        ("[9223372036854775807, 1e400]", "INT64", "data[1]: 1e400 does not fit INT64"),
        ("[1.5, 1e400]", "INT64", "data[0]: 1.5 is no INT64"),
        ('["1e400", 1e400]', "BYTES", "data[1]: 1e400 is no BYTES"),
        ('[{"a": 1e400}]', "FP32", 'data[0]: {"a":"1e400"} is no FP32'),
        ("[1" + "0" * 400 + "]", "FP32", "data[0]: 1" + "0" * 39 + " does not fit FP32"),
        ("[[1], [1e400, 2]]", "FP32", "data[1][0]: 1e400 does not fit FP32"),
        ("[1e400, NaN]", "FP32", "data: not valid JSON"),
        ("[1e400", "FP32", "data: not valid JSON"),
        ("[01]", "FP32", "data: not valid JSON"),
        ("[1e400, 01]", "FP32", "data: not valid JSON"),
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
    if dtype == BFLOAT16:
        pairs = data.draw(hnp.arrays(np.uint16, st.integers(1, 9))).view(BFLOAT16)
        again = decode_array(encode_json(json_ready(pairs)), dtype, "data")
        finite = np.where(np.isfinite(pairs), pairs, np.nan).astype(np.float32)
        np.testing.assert_array_equal(again.astype(np.float32), finite)
        return
    floats = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
    array = data.draw(hnp.arrays(dtype, shapes, elements=hnp.from_dtype(dtype, **floats)))  # type: ignore[call-overload]
    again = decode_array(encode_json(json_ready(array)), dtype, "data")
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, array)


@given(st.floats(-1e38, 1e38), st.integers(-2, 2))
def test_bfloat16_is_the_nearest_one(near: float, steps: int) -> None:
    """Rounded once: also next to the middle of two, where rounding by way of float32 goes wrong."""
    low = np.array([near]).astype(np.float32).view(np.uint32) & 0xFFFF0000
    both = np.array([low, low + 0x10000], np.uint32).view(np.float32).astype(np.float64).reshape(2)
    value = both.mean()
    for _ in range(abs(steps)):
        value = np.nextafter(value, both[1] if steps > 0 else both[0])
    got = float(decode_array(b"[%s]" % repr(float(value)).encode(), BFLOAT16, "data")[0])
    distances = np.abs(both - value)
    even = both[0] if not int(low[0]) >> 16 & 1 else both[1]
    assert got == (even if distances[0] == distances[1] else both[distances.argmin()])


def test_only_what_json_cannot_say_is_counted() -> None:
    """A string that says null is none."""
    floats, words = np.array([1, np.nan, np.inf], np.float32), np.array(["null"], np.object_)
    text = encode_json([json_ready(floats), json_ready(words)])
    assert count_nulls(text, [floats, words]) == 2
    assert count_nulls(encode_json(json_ready(words)), [words]) == 0


@pytest.mark.parametrize(
    ("datatype", "fits", "does_not"),
    [
        ("FP16", 65519.999, 65520.0),
        ("BF16", float.fromhex("0x1.feffffffffffp127"), float.fromhex("0x1.ffp127")),
        ("FP32", float.fromhex("0x1.fffffefffffffp127"), float.fromhex("0x1.ffffffp127")),
        ("FP64", sys.float_info.max, float("inf")),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_what_rounds_to_the_largest_number_fits(
    datatype: str, fits: float, does_not: float, sign: int
) -> None:
    """And is not blamed for what is wrong behind it."""
    dtype, shown = DTYPES[datatype], "1e400" if does_not == float("inf") else repr(does_not)
    assert np.isfinite(decode_array(f"[{sign * fits!r}]".encode(), dtype, "data").astype(float)).all()
    with pytest.raises(InvalidInputError, match=r"^data\[1\]: true is no"):
        decode_array(f"[{sign * fits!r}, true]".encode(), dtype, "data")
    with pytest.raises(InvalidInputError, match=r"^data\[0\]: .* does not fit"):
        decode_array(f"[{'-' if sign < 0 else ''}{shown}, true]".encode(), dtype, "data")


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("spaces", [0, 3000], ids=["short", "long"])
def test_zero_keeps_its_sign(datatype: str, spaces: int) -> None:
    """In and out."""
    array = decode_array(b"[-0.0,%s 0.0, -0.0e7]" % (b" " * spaces), DTYPES[datatype], "data")
    assert np.signbit(array.astype(np.float64)).tolist() == [True, False, True]
    assert encode_json(json_ready(array)) == b"[-0.0,0.0,-0.0]"
    assert encode_json(json_ready(array[0])) == b"-0.0"


@pytest.mark.parametrize("spaces", [0, 3000], ids=["short", "long"])
def test_the_largest_integers_are_exact(spaces: int) -> None:
    """Beyond what a float64 holds."""
    for datatype, values in (("UINT64", [2**64 - 1, 2**53 + 1]), ("INT64", [-(2**63), 2**63 - 1])):
        text = f"[{values[0]},{' ' * spaces}{values[1]}]".encode()
        array = decode_array(text, DTYPES[datatype], "data")
        assert array.tolist() == values
        assert orjson.loads(encode_json(json_ready(array))) == values


@pytest.mark.parametrize(
    ("value", "text"), [(1.5, b"1.5"), (np.nan, b"null"), (True, b"true"), ("a", b'"a"')]
)
def test_a_scalar_is_no_list(value: object, text: bytes) -> None:
    """As it came."""
    array = np.array(value, np.object_ if isinstance(value, str) else None)
    assert encode_json(json_ready(array)) == text


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


# -- long arrays, read by simdjson, against the careful reader --------------------------------------

NUMBERS = [
    "0", "-0", "1", "-1", "7", "127", "128", "-129", "255", "256", "65535", "65536", "2147483648",
    "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "-9223372036854775809", "18446744073709551615", "18446744073709551616", "123456789012345678901234567890",
    "-0.0", "1.0", "1.5", "0.1", "-2.5e-3", "1E5", "1e-400", "1e39", "-1e39", "65519", "65520.0", "1e308",
    "3.4028235e38", "3.4028236e38", "0.1234567890123456789", "5e-324",
]  # fmt: skip
ODD = [
    "null", "true", "false", '"1"', '"["', '"]"', "[1]", "[]", "[[1]]", '{"a":[1]}', "{}", "", "1e400", "NaN",
    "01", "+1", "1.", ".5", "1 2", "[1", "1]", "\x00", "\xff", "-", "tru",
]  # fmt: skip
GAPS = ["", "", " ", "\n\t", " " * 40, "\x0b"]


@st.composite
def arrays_as_text(draw: st.DrawFn) -> bytes:
    """An array of up to three levels, regular in most cases; now and then something odd in it."""
    plain = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=8))
    elements = st.sampled_from(plain)
    odd = draw(st.sampled_from(range(4))) == 0
    if odd:
        elements = st.one_of(elements, elements, elements, st.sampled_from(ODD))
    gap = draw(st.sampled_from(GAPS if odd else GAPS[:-1]))
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    is_ragged = draw(st.sampled_from(range(4))) == 0

    def array(level: int) -> str:
        if level == len(shape):
            return draw(elements)
        length = max(0, shape[level] + (draw(st.sampled_from((-1, 0, 0, 1))) if is_ragged else 0))
        inner = f"{gap},{gap}".join(array(level + 1) for _ in range(length))
        return f"[{gap}{inner}{gap}]"

    tail = draw(st.sampled_from(["", " ", "]", ",1", " [2]"])) if odd else ""
    return (array(0) + tail).encode("latin-1")


def outcome(raw: bytes, dtype: np.dtype[np.generic]) -> tuple[object, ...]:
    """What comes of decoding: everything there is to the array, or the refusal."""
    try:
        array = decode_array(raw, dtype, "data")
    except InvalidInputError as refused:
        return "refused", str(refused)
    return array.dtype, array.shape, array.tobytes()


@pytest.mark.parametrize("datatype", NUMERIC)
@settings(max_examples=100)
@given(raw=arrays_as_text())
def test_long_arrays_are_read_as_short_ones_are(datatype: str, raw: bytes) -> None:
    """The same bits, or the same refusal in the same place, whichever reader it was."""
    dtype = DTYPES[datatype]
    with mock.patch.object(codec, "LONG_BYTES", 1):
        fast = outcome(raw, dtype)
    with mock.patch.object(codec, "LONG_BYTES", sys.maxsize):
        assert fast == outcome(raw, dtype)


@pytest.mark.parametrize(
    "text",
    ["[1, 2, 3]", "[[1, 2], [3, 4]]", "[[[1], [2]], [[3], [4]]]", "[[1.5, -2e3]]", "[-0.0, 0]"],
)
def test_long_plain_arrays_do_take_the_short_way(text: str) -> None:
    """Or the comparison above would compare the careful reader with itself."""
    raw = text.replace(",", "," + " " * 2100).encode()
    with mock.patch.object(codec, "_decoder", side_effect=AssertionError("the careful reader was asked")):
        array = decode_array(raw, np.dtype(np.float32), "data")
    assert array.tolist() == orjson.loads(text)


def test_an_array_is_not_changed_by_the_next_one() -> None:
    """The reader keeps its memory; what it gave away is nobody else's."""
    first = decode_array(b"[1" + b", 1" * 2000 + b"]", np.dtype(np.float64), "data")
    decode_array(b"[2" + b", 2" * 2000 + b"]", np.dtype(np.float64), "data")
    assert (first == 1).all()


def test_a_value_nested_deeper_than_can_be_shown() -> None:
    """It is refused as any other that is no number."""
    with pytest.raises(InvalidInputError, match=r"data\[0\]: what is nested so deep is no FP32"):
        decode_array(b"[" + b'{"a":' * 500 + b"1" + b"}" * 500 + b"]", np.dtype(np.float32), "data")


@pytest.mark.parametrize(
    "text",
    [
        "[[1, [2]], [3, 4]]",
        "[[[1], 2], [3, 4]]",
        "[[[1], [2]], [[3], [4, [5]]], [[6], []]]",
        "[[1, 2, 3], [4], [5, 6]]",
        str([[1] * 8, [2] * 9, [3] * 7]),
        "[[1], [2, 3, 4], [5, 6]]",
        "[[[1, 2]], [[3], [4]]]",
        "[[1, 2], [3, 4], [[], []]]",
        '[[1], {"a": [1]}]',
        "[1, [2], 3]",
        "[[], [], [[]]]",
    ],
)
def test_a_long_array_with_rows_that_differ_is_refused_as_a_short_one(text: str) -> None:
    """Also where the number of its values, or of its brackets, would be right."""
    raw = text.replace(",", "," + " " * 2100).encode()
    for dtype in (np.dtype(np.float32), np.dtype(np.int64)):
        with pytest.raises(InvalidInputError) as long:
            decode_array(raw, dtype, "data")
        with pytest.raises(InvalidInputError) as short:
            decode_array(text.encode(), dtype, "data")
        assert str(long.value) == str(short.value)
