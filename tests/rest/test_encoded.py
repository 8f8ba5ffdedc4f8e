"""Bytes inside JSON: what is in base64 comes back, and what is not is told by its place."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infold.errors import InvalidInputError
from infold.rest.codec import decode_array
from infold.rest.encoded import decoded, pictures_of, strings_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def packed(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def pictures(value: Any) -> dict[str, bytes]:
    return pictures_of(json.dumps(value).encode(), "instances")


def strings(value: Any) -> Any:
    return strings_of(json.dumps(value).encode(), "x")


# -- base64 ----------------------------------------------------------------------------------------


@given(st.binary(max_size=40))
def test_whatever_was_encoded_comes_back(content: bytes) -> None:
    """Every length, with as much padding as it takes."""
    assert decoded(base64.b64encode(content).decode(), "x") == content


@settings(max_examples=200)
@given(st.text("AQgw+/=-_ \n!\u00e9", max_size=9))
def test_only_the_plain_alphabet_in_whole_groups_is_base64(text: str) -> None:
    """No spaces, no other alphabet, no padding where there is nothing to pad."""
    is_whole = re.fullmatch(r"(?:[AQgw+/]{4})*(?:[AQgw+/]{2}==|[AQgw+/]{3}=)?", text)
    if is_whole:
        # Bits that stand in the last letter beyond the last byte are passed over.
        assert len(decoded(text, "x")) == len(text) * 3 // 4 - text.count("=")
    else:
        with pytest.raises(InvalidInputError, match="^x: is no base64$"):
            decoded(text, "x")


# -- strings ---------------------------------------------------------------------------------------


@given(st.data())
def test_a_string_says_the_same_plain_or_in_base64(data: st.DataObject) -> None:
    """In arrays of any regular shape, mixed as they come."""
    shape = data.draw(st.lists(st.integers(1, 3), max_size=3))
    count = int(np.prod(shape, dtype=int))
    plain = np.array([*data.draw(st.lists(texts, min_size=count, max_size=count)), None], object)[:-1]
    mixed = np.empty(count, object)
    mixed[:] = [packed(each.encode()) if data.draw(st.booleans()) else each for each in plain]
    result = strings(mixed.reshape(shape).tolist())
    assert result.dtype == object
    assert result.shape == tuple(shape)
    assert result.reshape(-1).tolist() == plain.tolist()


@given(
    st.recursive(texts | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=6)
)
def test_without_base64_the_answer_is_that_of_the_usual_reader(value: Any) -> None:
    """The same array, or both refuse."""
    raw = json.dumps(value).encode()
    try:
        expected = decode_array(raw, np.dtype(object), "x")
    except InvalidInputError:
        with pytest.raises(InvalidInputError):
            strings_of(raw, "x")
        return
    result = strings_of(raw, "x")
    assert (result.shape, result.tolist()) == (expected.shape, expected.tolist())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([["a", {"b64": "no"}]], "x[0][1]: is no base64"),
        ([packed(b"\xff")], "x[0]: is no UTF-8, which is what models take"),
        ([["a"], [{"b64": 7}]], "x[1][0]: is no BYTES, nor in base64"),
        ([{"b64": "", "more": ""}], "x[0]: is no BYTES, nor in base64"),
        ([{}], "x[0]: is no BYTES, nor in base64"),
        (None, "x: is no BYTES, nor in base64"),
        ([["a"], "b"], "x[1]: rows differ in length"),
        ([["a"], packed(b"b")], "x[1]: rows differ in length"),
        ([["a"], ["b", "c"]], "x[1]: rows differ in length"),
        (["a", ["b"]], "x[1]: is no BYTES, nor in base64"),
    ],
)
def test_what_is_no_string_is_told_by_its_place(value: Any, text: str) -> None:
    """The first of them."""
    with pytest.raises(InvalidInputError, match=f"^{re.escape(text)}$"):
        strings(value)


@pytest.mark.parametrize("depth", [40, 1000, 100_000])
def test_nesting_has_an_end(depth: int) -> None:
    """Neither reader goes deeper than an array can."""
    raw = b"[" * depth + b'{"b64":""}' + b"]" * depth
    for read in (strings_of, pictures_of):
        with pytest.raises(InvalidInputError, match="^x") as caught:
            read(raw, "x")
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("raw", [b"", b"[", b'["\xff"]', b'["\\ud800"]', b"NaN", b'{"b64":"",}'])
def test_what_is_no_json_is_told(raw: bytes) -> None:
    """By both readers."""
    for read in (strings_of, pictures_of):
        with pytest.raises(InvalidInputError, match="^x: not valid JSON$"):
            read(raw, "x")


# -- pictures --------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_every_picture_comes_by_its_own_place(files: list[bytes]) -> None:
    """In a list, each in a row of its own, or mixed."""
    assert pictures([packed(each) for each in files]) == {
        f"instances[{index}]": each for index, each in enumerate(files)
    }
    assert pictures([[[packed(each)]] for each in files]) == {
        f"instances[{index}][0][0]": each for index, each in enumerate(files)
    }


def test_one_picture_alone_has_the_place_of_the_value() -> None:
    """It stands in no list, so there is no number to tell."""
    assert pictures(packed(b"1")) == {"instances": b"1"}
    assert pictures([]) == {}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("text", "instances"),
        ([packed(b"1"), "text"], "instances[1]"),
        ([packed(b"1"), [[0.5]]], "instances[1][0][0]"),
        ([packed(b"1"), [packed(b"2"), packed(b"3")]], "instances[1]"),
        ([packed(b"1"), []], "instances[1]"),
        ([{"b64": 1}], "instances[0]"),
        ([{"b64": "", "more": 1}], "instances[0]"),
        ([None], "instances[0]"),
    ],
)
def test_what_is_no_picture_is_told_by_its_place(value: Any, place: str) -> None:
    """With how one comes."""
    with pytest.raises(InvalidInputError) as caught:
        pictures(value)
    assert str(caught.value) == f'{place}: a picture comes as {{"b64": "..."}}'


def test_a_picture_that_is_no_base64_is_told_by_its_place() -> None:
    """Whatever else is in the list."""
    with pytest.raises(InvalidInputError, match=r"^instances\[1\]: is no base64$"):
        pictures([packed(b"1"), {"b64": "AA"}])
