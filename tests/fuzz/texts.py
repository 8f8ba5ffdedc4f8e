"""JSON data that is no tensor, in every place that takes data; for both dialects.

They are put together as text: much of what is sent here no writer of JSON would write.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import strategies as st

from fuzz.asking import Request, infer, predict
from fuzz.models import ECHOES

__all__ = ["TEXTS"]

# No JSON, whatever is asked for.
NO_JSON = [
    "NaN", "Infinity", "-Infinity", "nan", "01", "+1", ".5", "1.", "1e", "-", "0x1", "1_0", "--1", "1 1",
    "'a'", "tru", '"', r'"\x41"', r'"\ud800"', r'"\udc00\ud800"', '"\n"', "]", "}", ",", "1,,1", "\0",
]  # fmt: skip
# JSON that is no element of any tensor.
NO_ELEMENT = ["{}", '{"a":1}', "[{}]", "[null]", '["a",["b"]]', "[[],1]"]
# Elements of one kind of tensor and of no other.
WORDS = {"true": "b", "false": "b", '"3"': "O", '""': "O", r'"\u0000"': "O", '"true"': "O", "null": "f"}
# Numbers beyond every type.
HUGE = ["1e400", "-1e400", "1" + "0" * 400, "-1" + "0" * 400, "1" * 5000, "1e99999999"]
# Numbers that only a FLOAT may take.
FRACTIONS = ["1.7", "1e-400", "0." + "3" * 5000, "18446744073709551616", "-9223372036854775809", "1e39"]
# Numbers that some types take and others do not.
EITHER = ["-0", "-0.0", "1.0", "1e2", "300", "-129", "70000", "65520", "4294967296", "9223372036854775808"]

KINDS = {"BOOL": "b", "BYTES": "O", "FP16": "f", "BF16": "f", "FP32": "f", "FP64": "f"}
RIGHT = {"b": "true", "O": '"a"', "f": "1.5", "iu": "1"}
# Below, at and above the lengths from which other readers are asked.
COUNTS = st.sampled_from([1, 2, 3, 700, 4000])
# The interpreter's own limit is met somewhere below 1000.
DEPTHS = st.sampled_from([3, 4, 31, 32, 33, 99, 100, 101, 400, 700, 3_000, 250_000]) | st.integers(900, 1050)


def body_of(model: str, data: str, shape: list[int], *, dialect: str) -> Request:
    """A request whose data is that text."""
    datatype = ECHOES[model]
    if dialect == "rows":
        return predict(model, f'{{"instances":{data}}}'.encode("utf-8", "surrogatepass"))
    if dialect == "columns":
        return predict(model, f'{{"inputs":{{"x":{data}}}}}'.encode("utf-8", "surrogatepass"))
    entry = f'{{"name":"x","shape":{json.dumps(shape)},"datatype":"{datatype}","data":{data}}}'
    return infer(model, f'{{"inputs":[{entry}]}}'.encode("utf-8", "surrogatepass"))


DIALECTS = st.sampled_from(["infer", "infer", "rows", "columns"])


@st.composite
def elements(draw: st.DrawFn) -> tuple[Request, bool]:
    """One element among right ones that is odd, and whether it must be refused."""
    model = draw(st.sampled_from(sorted(ECHOES)))
    kind = KINDS.get(ECHOES[model], "iu")
    odd = draw(st.sampled_from([*NO_JSON, *NO_ELEMENT, *WORDS, *HUGE, *FRACTIONS, *EITHER]))
    count = draw(COUNTS)
    values = [RIGHT[kind]] * count
    values[draw(st.sampled_from([0, count // 2, count - 1]))] = odd
    must_be_refused = (
        odd in (*NO_JSON, *NO_ELEMENT, *HUGE)
        or WORDS.get(odd, kind) != kind
        or (odd in FRACTIONS and kind != "f")
        or (odd in EITHER and kind in "bO")
    )
    data = f"[[{','.join(values)}]]"
    return body_of(model, data, [1, count], dialect=draw(DIALECTS)), must_be_refused


@st.composite
def structures(draw: st.DrawFn) -> tuple[Request, bool]:
    """Data that is no array of the shape it should have: ragged, deep, cut, an object; all are refused."""
    model = draw(st.sampled_from(sorted(ECHOES)))
    right = RIGHT[KINDS.get(ECHOES[model], "iu")]
    row = "[" + ",".join([right] * draw(COUNTS)) + "]"
    odd = [
        f"[{row},[]]",
        f"[{row},{right}]",
        f"[{right},{row}]",
        f"[{row},[{row}]]",
        f"[{row},null]",
        f"[{row}",
    ]
    odd += [
        f"{row}]]",
        f'{{"x":{row}}}',
        f"[{{}},{row}]",
        f"[{row},{{}}]",
        "[[[[]]]]",
        "[[],[[]]]",
        f"{row} {row}",
    ]
    odd += [f"[{row},]", f"[,{row}]", f"[{row[:-1]},{row[:-1]}]", right, "null", "", " "]
    data = draw(st.sampled_from(odd))
    return body_of(model, data, [7, 11], dialect=draw(DIALECTS)), True


@st.composite
def nested(draw: st.DrawFn) -> tuple[Request, bool]:
    """Brackets and braces inside each other, closed or not, wherever there is a value; all are refused."""
    depth, model = draw(DEPTHS), draw(st.sampled_from(["echo_float", "echo_string", "echo_int8", "sums"]))
    opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}"), ("[1,", "]"), ('{"a":[', "]}")]))
    is_closed = draw(st.sampled_from([True, True, False]))
    deep = opening * depth + "1" + (closing * depth if is_closed else "")
    entry = '{"name":"x","shape":[1,2],"datatype":"FP32","data":%s,"parameters":%s}'
    infers = [deep, '{"inputs":%s}', '{"inputs":[%s]}', '{"inputs":[' + entry % ("%s", "{}") + "]}"]
    infers += [
        '{"inputs":[' + entry % ("[1,%s]", "{}") + "]}",
        '{"inputs":[' + entry % ("[]", '{"a":%s}') + "]}",
    ]
    infers += [
        '{"inputs":[],"parameters":%s}',
        '{"id":%s,"inputs":[]}',
        '{"inputs":[],"outputs":[%s],"more":1}',
    ]
    predicts = [
        deep,
        '{"instances":%s}',
        '{"instances":[%s]}',
        '{"instances":[1,%s]}',
        '{"instances":[{"x":%s}]}',
    ]
    predicts += [
        '{"instances":[{"x":[1,%s]}]}',
        '{"inputs":%s}',
        '{"inputs":{"x":[1,%s]}}',
        '{"inputs":{"y":%s}}',
    ]
    predicts += ['{"signature_name":%s,"instances":[1]}', '{"more":%s,"inputs":{}}']
    if draw(st.booleans()):
        return infer(model, draw(st.sampled_from(infers)).replace("%s", deep).encode()), True
    return predict(model, draw(st.sampled_from(predicts)).replace("%s", deep).encode()), True


# Each with whether it must be refused.
TEXTS: tuple[Callable[[], st.SearchStrategy[tuple[Request, bool]]], ...] = (elements, structures, nested)
