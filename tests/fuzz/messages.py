"""JSON messages of both dialects with anything at all in them, damaged, or replaced by noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from fuzz.asking import Request, infer, predict
from fuzz.models import ECHOES

__all__ = ["MESSAGES"]

MODELS = st.sampled_from([*ECHOES, "sums", "mixed", "fixed", "single", "lookup"])


def _values() -> st.SearchStrategy[Any]:
    """Anything that JSON can say, and now and then what the protocols say."""
    protocol = [
        "x",
        "a",
        "FP32",
        "INT64",
        "BYTES",
        "y",
        "inputs",
        "data",
        "binary_data_size",
        "b64",
        "",
        "k" * 5000,
    ]
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([0, 1, 2, -1, 2**31, 2**63, 2**64, 10**30, 1.5, -0.0, 1e308])
        | st.sampled_from(protocol)
        | st.text(max_size=5)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys(), inner, max_size=3),
        max_leaves=6,
    )


def _keys() -> st.SearchStrategy[str]:
    known = ["name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "instances", "id", "b64"]
    known += [
        "binary_data",
        "binary_data_size",
        "binary_data_output",
        "signature_name",
        "classification",
        "\0",
    ]
    return st.sampled_from(known) | st.text(max_size=3)


@st.composite
def anywhere(draw: st.DrawFn) -> Request:
    """A request of the right form with anything at all in some of its fields."""

    def field(usual: Any) -> Any:
        return draw(_values()) if draw(st.sampled_from([False, False, True])) else usual

    model = draw(MODELS)
    if draw(st.booleans()):
        row = {"x": field([1.5, 2]), "a": field([1, 2]), "b": field([1, 2])}
        named = {key: row[key] for key in draw(st.lists(st.sampled_from("xab"), max_size=3, unique=True))}
        body = draw(
            st.sampled_from([{"instances": [named, row]}, {"inputs": named}, {"instances": row["x"]}])
        )
        for key in draw(st.lists(_keys(), max_size=1)):
            body[key] = draw(_values())
        return predict(model, json.dumps(body).encode())
    entry = {"name": field("x"), "shape": field([1, 2]), "datatype": field("FP32"), "data": field([1, 2])}
    for key in draw(st.lists(_keys(), max_size=2)):
        entry[key] = draw(_values())
    request = {"inputs": field([entry]), "outputs": field([{"name": field("y")}]), "id": field("a")}
    for key in draw(st.lists(_keys(), max_size=2)):
        request[key] = draw(_values())
    return infer(model, json.dumps(request).encode())


SEVENS = b"[" + b",".join([b"7"] * 3000) + b"]"
RIGHT_BODIES = [
    infer("echo_float", b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"id":"a"}'),
    infer("echo_string", b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"BYTES","data":["\xc3\xbc"]}]}'),
    infer("echo_int64", b'{"inputs":[{"name":"x","shape":[1,3000],"datatype":"INT64","data":%s}]}' % SEVENS),
    predict("echo_float", b'{"instances":[[1,2],[3,4]]}'),
    predict("sums", b'{"inputs":{"a":[[1]],"b":[[2]]}}'),
    predict("mixed", b'{"instances":[{"a":[1,2],"b":"c"}],"signature_name":"serving_default"}'),
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> Request:
    """A right body after an accident: cut, doubled, re-encoded, keys twice or without end."""
    right = draw(st.sampled_from(RIGHT_BODIES))
    body = right.body or b""
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 8)))
    ways = [
        body[:start],
        body[:start] + body[end:],
        body[:end] + body[start:],
        body[:start] + draw(st.binary(max_size=4)) + body[end:],
        b"\xef\xbb\xbf" + body,
        body.decode().encode(draw(st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-8"]))),
        body + draw(st.sampled_from([b"\0", b"{}", b"\xff", b" " * 9000, b"\n", b"]"])),
        body.replace(b'"', b"'"),
        body[:1] + b'"%s":1,' % (b"k" * draw(st.sampled_from([1, 300, 100_000]))) + body[1:],
        body[:1] + b'"inputs":[],"instances":[],"id":"b",' + body[1:],
        body[:1] + b'"\\u0000cut 0":{"data":["\\u0000cut 0"]},' + body[1:],
    ]
    return Request(right.target, draw(st.sampled_from(ways)), headers=right.headers)


@st.composite
def noise(draw: st.DrawFn) -> Request:
    """Bytes, under content types and header lengths that come as they like."""
    types = [
        b"application/json",
        b"application/octet-stream",
        b"text/plain",
        b"",
        b"application/x-npy",
        b"a/b; c=\xff",
    ]
    headers = [(b"content-type", kind) for kind in draw(st.lists(st.sampled_from(types), max_size=2))]
    if draw(st.booleans()):
        headers.append((b"inference-header-content-length", b"%d" % draw(st.integers(0, 30))))
    body = draw(st.binary(max_size=40) | st.sampled_from([b"", b"\0" * 5000, b"[" * 70_000, b'"' * 9000]))
    ask = draw(st.sampled_from([infer, predict]))
    return ask(draw(MODELS), body, *headers)


MESSAGES: tuple[Callable[[], st.SearchStrategy[Request]], ...] = (anywhere, damaged, noise)
