"""Infer and predict requests: whichever way one is read, it says the same."""

import json
import sys
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infold.errors import InvalidInputError, RequestError
from infold.rest import v1, v2
from infold.rest.codec import DTYPES
from infold.rest.cutting import cut
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
    return said(request.tensors), request.outputs, request.id, dict(request.wishes), request.is_binary


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
    '[{"name":"y","parameters":{"binary_data":false}}]',
    '[{"name":"y","parameters":{"binary_data":null}}]',
    '[{"name":"y","parameters":{"binary_data":1}}]',
    '[{"name":"y","parameters":{"binary_data":true,"more":1}}]',
    '[{"name":"y","parameters":{"classification":1}}]',
    '[{"name":"y","parameters":null,"more":[1]}]',
    '[{"name":"y"},{"name":"y"}]',
    '[{"name":"y"},{"name":"z"}]',
    '[{"name":"z"}]',
    '[{"name":7}]',
    "[{}]",
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
        usual=draw(st.sampled_from([("inputs",), ("inputs", "id"), ("inputs", "outputs")])),
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
        usual=draw(
            st.sampled_from([("inputs",), ("inputs", "id"), ("inputs", "parameters"), ("inputs", "outputs")])
        ),
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
    wanted = [{"name": "y", "parameters": {"binary_data": True}}]
    with mock.patch.object(v2, "read_inputs", side_effect=AssertionError("the careful reader was asked")):
        body = json.dumps({"id": "a", "inputs": [{**entry, "data": [1, 2.5]}], "outputs": wanted}).encode()
        assert decode_infer(body, None, one("FP32", "n", 2)).tensors["x"].tolist() == tensors.tolist()
        of_bytes = {**entry, "parameters": {"binary_data_size": 8}}
        header = json.dumps({"inputs": [of_bytes], "outputs": wanted}).encode()
        for lead in (b"", b" "):
            request = decode_infer(lead + header + tensors.tobytes(), len(lead + header), one("FP32", "n", 2))
            assert request.tensors["x"].tolist() == tensors.tolist()
            assert request.tensors["x"].flags.aligned


# -- large arrays cut out of a body -----------------------------------------------------------------


def predict_outcome(body: bytes, wanted: Signature) -> object:
    try:
        tensors, in_rows = v1.decode_predict(body, wanted)
    except RequestError as refused:
        return type(refused), str(refused)
    return said(tensors), in_rows


PLACES = [r'"\u0000cut 0"', r'"\u0000cut 1"', r'"\u0000cut ' + "1" * 5000 + '"', r'"\u0000CUT 0"']
LONG = "[" + ",".join(str(number % 90) for number in range(40)) + "]"
ARRAYS = [
    LONG, LONG.replace("1", "7"), "[" + LONG + "]", "[" + LONG + " , " + LONG + "]", f"[{LONG},[1]]", "[1,2]",
    LONG[:-1], LONG + "]", LONG + "," + LONG, LONG.replace("5", "null"), LONG.replace(",7,", ",true,"),
    LONG[:-1] + ',"x"]', f'[{LONG},["x"]]', LONG[:-1] + ',{"x":[1]}]', LONG.replace(",", ",,"), f'["{LONG}"]',
    r'["\"data\":' + LONG + '"]', "[" * 40 + "1" * 90 + "]" * 40, "[" + " " * 80 + "]",
]  # fmt: skip
KEYS = ["data", "inputs", "instances", r"x\"data", r"\"inputs", "name", "a", "parameters"]


def long_arrays() -> st.SearchStrategy[str]:
    return st.one_of(st.just(LONG), st.sampled_from(ARRAYS))


def any_values() -> st.SearchStrategy[str]:
    """Values with large arrays at any depth, under keys that look like those of arrays."""
    leaves = st.one_of(st.sampled_from([*PLACES, '"data"', r'"\"data\":[1"', "null", "3"]), long_arrays())
    keys = st.sampled_from(KEYS)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(st.tuples(keys, inner), max_size=3).map(
                lambda pairs: "{" + ", ".join(f'"{key}" : {value}' for key, value in pairs) + "}"
            ),
            st.lists(inner, max_size=3).map(lambda values: "[" + ",".join(values) + "]"),
        ),
        max_leaves=4,
    )


@st.composite
def infer_bodies(draw: st.DrawFn) -> bytes:
    names = draw(st.sampled_from([["a", "data"], ["data", "a"], ["a"], ["a", "data", "a"]]))
    entries = []
    for name in names:
        odd = draw(st.sampled_from(range(6)))
        datatype = "BYTES" if odd == 5 else "FP32"
        data = draw(st.sampled_from(PLACES) if odd == 0 else any_values() if odd == 1 else long_arrays())
        fields = [f'"name":"{name}"', '"shape":[1,40]', f'"datatype":"{datatype}"', f'"data": {data}']
        if odd == 2:
            fields.append(f'"parameters":{{"data":{draw(any_values())}}}')
        if odd == 3:
            fields.append(f'"data":{draw(long_arrays())}')
        entries.append("{" + ",".join(draw(st.permutations(fields))) + "}")
    fields = [f'"inputs":[{",".join(entries)}]']
    for key in draw(st.lists(st.sampled_from(["id", "parameters", "data", "outputs"]), max_size=2)):
        fields.append(f'"{key}":{draw(any_values())}')
    tail = draw(st.sampled_from([""] * 6 + ["}", "{}", f'{{"data":{LONG}}}']))
    return ("{" + ",".join(draw(st.permutations(fields))) + "}" + tail).encode()


def cut_at(size: int) -> Any:
    return mock.patch.multiple("infold.rest.cutting", SMALL_BYTES=size)


@settings(max_examples=200)
@given(body=infer_bodies())
def test_an_infer_request_says_the_same_with_its_large_arrays_cut_out(body: bytes) -> None:
    """The same tensors or the same refusal, whatever it holds and wherever."""
    fp32, text = np.dtype(np.float32), np.dtype(object)
    for second in (fp32, text):
        wanted = signature(TensorSpec("a", fp32, ("n", None)), TensorSpec("data", second, ("n", None)))
        with cut_at(60):
            parted = infer_outcome(body, None, wanted)
        with cut_at(sys.maxsize):
            assert parted == infer_outcome(body, None, wanted)


@st.composite
def predict_bodies(draw: st.DrawFn) -> bytes:
    def value() -> str:
        return draw(
            st.sampled_from(range(4)).flatmap(lambda odd: any_values() if odd == 0 else long_arrays())
        )

    def named() -> str:
        names = draw(
            st.sampled_from([["inputs"], ["inputs"], ["instances"], ["inputs", "inputs"], ["inputs", "b"]])
        )
        return "{" + ",".join(f'"{name}":{value()}' for name in names) + "}"

    match draw(st.sampled_from(range(4))):
        case 0:
            inner = value()
        case 1:
            inner = named()
        case 2:
            inner = "[" + ",".join(named() for _ in range(draw(st.integers(1, 3)))) + "]"
        case _:
            inner = "[" + ",".join(value() for _ in range(draw(st.integers(1, 3)))) + "]"
    fields = [f'"{draw(st.sampled_from(["inputs", "instances"]))}": {inner}']
    for key in draw(st.lists(st.sampled_from(["signature_name", "inputs", "more"]), max_size=1)):
        fields.append(f'"{key}":{draw(any_values())}')
    return ("{" + ",".join(fields) + "}" + draw(st.sampled_from(["", "", "", "{}"]))).encode()


@settings(max_examples=200)
@given(body=predict_bodies())
def test_a_predict_request_says_the_same_with_its_large_arrays_cut_out(body: bytes) -> None:
    """Also where an input is called as the key that arrays are looked for by."""
    for name in ("inputs", "instances"):
        for datatype in ("FP32", "BYTES"):
            wanted = signature(TensorSpec(name, DTYPES[datatype], None))
            with cut_at(60):
                parted = predict_outcome(body, wanted)
            with cut_at(sys.maxsize):
                assert parted == predict_outcome(body, wanted)


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_an_input_that_is_called_inputs(form: str) -> None:
    """As Keras likes to; its large array is one like any other."""
    values = list(range(5000))
    body = {"instances": [{"inputs": values}]} if form == "rows" else {"inputs": {"inputs": [values]}}
    wanted = one("FP32", "n", 5000, name="inputs")
    tensors, _ = v1.decode_predict(json.dumps(body).encode(), wanted)
    assert tensors["inputs"].tolist() == [values]


def test_a_request_cannot_ask_for_an_array_that_was_cut_out() -> None:
    """The text that stands in an array's place is a text like any other where a caller writes it."""
    place = r'"\u0000cut 0"'
    entry = '{"name":"%s","shape":[1,5000],"datatype":"FP32","data":%s}'
    body = '{"inputs":[' + entry % ("a", [1] * 5000) + "," + entry % ("b", place) + "]}"
    fp32 = np.dtype(np.float32)
    wanted = signature(TensorSpec("a", fp32, ("n", 5000)), TensorSpec("b", fp32, ("n", 5000)))
    with pytest.raises(InvalidInputError, match=r"inputs\[1\]\.data: .* is no FP32"):
        decode_infer(body.encode(), None, wanted)


def test_large_arrays_are_cut_out() -> None:
    """Or the comparisons above would compare a body with itself."""
    fp32 = np.dtype(np.float32)
    wanted = signature(TensorSpec("a", fp32, ("n", 5000)), TensorSpec("b", fp32, ("n", 5000)))
    entry = '{"name":"%s","shape":[1,5000],"datatype":"FP32","data":%s}'
    body = '{"inputs":[' + entry % ("a", [1] * 5000) + "," + entry % ("b", [2] * 5000) + "]}"
    parted = cut(body.encode(), v2.DATA_KEY)
    assert len(parted.text) < 300
    assert [len(json.loads(bytes(array))) for array in parted.arrays.values()] == [5000, 5000]
    tensors = decode_infer(body.encode(), None, wanted).tensors
    assert [tensors[name][0, 0] for name in "ab"] == [1, 2]


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":{"\xff":[1]}}',
        b'{"inputs":{"x":["\xff"]}}',
        b'{"inputs":{"\\ud800":[1]}}',
        b'{"instances":[{"\xff":1}]}',
        b'{"instances":[{"x":"\xff"}]}',
        b'{"instances":[{"x":1},{"x\xff":1}]}',
        b'{"instances":"\xff"}',
        b'{"instances":[' + b'{"x":' * 900 + b"1" + b"}" * 900 + b"]}",
        b'{"inputs":' + b'{"x":' * 90 + b"1" + b"}" * 90 + b"}",
        b'{"instances":{"x":[1]}}',
        b'{"instances":[[1],{"x":1}]}',
        b'{"instances":[]}',
        b'{"inputs":{}}',
        b'{"inputs":null}',
        b'{"instances":[null]}',
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "INT8"])
def test_a_predict_request_that_makes_no_sense_is_refused(body: bytes, datatype: str) -> None:
    """As the caller's mistake, never as ours."""
    wanted = signature(TensorSpec("x", DTYPES[datatype], ("n", 2)))
    assert len(predict_outcome(body, wanted)) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["parameters", "twice", "more"])
def test_an_array_that_nobody_reads_is_looked_at_all_the_same(where: str) -> None:
    """A body is JSON as a whole or not at all."""
    bad = "[" + "1,," * 5000 + "1]"
    good = str([1] * 5000)
    data = f'"data":{bad},"data":{good}' if where == "twice" else f'"data":{good}'
    entry = f'{{"name":"x","shape":[1,5000],"datatype":"FP32",{data}}}'
    more = f',"{where}":{{"data":{bad}}}' if where != "twice" else ""
    body = f'{{"inputs":[{entry}]{more}}}'.encode()
    with pytest.raises(RequestError, match="not valid JSON"):
        decode_infer(body, None, one("FP32", "n", 5000))
    mended = body.replace(b"1,,", b"1, ")
    if where == "parameters":
        with pytest.raises(RequestError, match=r"parameters\.data: must be a string"):
            decode_infer(mended, None, one("FP32", "n", 5000))
    else:
        assert decode_infer(mended, None, one("FP32", "n", 5000)).tensors["x"].sum() == 5000


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        *(("INT8", each) for each in (-129, 128)),
        *(("INT16", each) for each in (-(2**15) - 1, 2**15)),
        *(("INT32", each) for each in (-(2**31) - 1, 2**31)),
        *(("INT64", each) for each in (-(2**63) - 1, 2**63)),
        *((f"UINT{bits}", each) for bits in (8, 16, 32, 64) for each in (-1, 2**bits)),
        ("FP16", 65520.0),
        ("FP32", 1e39),
    ],
)
def test_a_number_that_does_not_fit_is_never_another_one(datatype: str, value: float) -> None:
    """In the plainest of requests, too."""
    for data in ([value, 1], [1, value]):
        entry = {"name": "x", "shape": [1, 2], "datatype": datatype, "data": data}
        with pytest.raises(InvalidInputError, match=f"does not fit {datatype}|is no {datatype}"):
            decode_infer(json.dumps({"inputs": [entry]}).encode(), None, one(datatype, "n", 2))
