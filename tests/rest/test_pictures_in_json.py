"""Pictures inside messages: `{"b64"}` in rows, columns and named rows of v1, BYTES of protocol v2."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from infold.errors import InvalidInputError, MalformedBodyError, RequestError, ShapeError
from infold.rest.v1 import decode_predict
from infold.rest.v2 import decode_infer
from infold.runtime import ImageInput
from infold.serving import Reading
from infold.serving.images import MAX_PICTURES
from infold.tensors import Array, Dim, Signature, TensorSpec
from pictures import encoded, noise

LEVELS = [noise(2, 3, seed=seed) for seed in range(3)]
FILES = [encoded(each) for each in LEVELS]
ROWS = np.stack(LEVELS).astype(np.float32)
AS_JSON = [{"b64": base64.b64encode(each).decode()} for each in FILES]
TEXTS = [each["b64"] for each in AS_JSON]
PICTURE, WORDS = AS_JSON[0], {"b64": base64.b64encode(b"hello").decode()}
HIGH = {"b64": base64.b64encode(encoded(noise(9, 3))).decode()}
NUMBERS = [[0.0] * 3, [0.0] * 3]
NONE, SO = "is no JPEG, PNG or WebP picture", 'a picture comes as {"b64": "..."}'
PICTURE_SPEC = TensorSpec("x", np.dtype(np.float32), ("n", 2, 3))
NUMBER = TensorSpec("number", np.dtype(np.int64), ("n", 1))
WORD = TensorSpec("word", np.dtype(np.object_), ("n", 1))
READING = Reading(picture=PICTURE_SPEC, image=ImageInput(colour="L", layout="NHW"))
ALONE = Signature((PICTURE_SPEC,), ())
BESIDE = Signature((NUMBER, PICTURE_SPEC, WORD), ())


def predict(request: object, signature: Signature = ALONE, reading: Reading = READING) -> dict[str, Array]:
    tensors, in_rows = decode_predict(json.dumps(request).encode(), signature, reading)
    assert in_rows == ("instances" in request)  # type: ignore[operator]
    return tensors


def refusal(request: object, signature: Signature = ALONE, reading: Reading = READING) -> str:
    with pytest.raises(RequestError) as caught:
        predict(request, signature, reading)
    return str(caught.value)


# -- TF-Serving's dialect --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        {"instances": AS_JSON},
        {"instances": [[each] for each in AS_JSON]},
        {"instances": [{"x": each} for each in AS_JSON]},
        {"instances": [{"x": [each]} for each in AS_JSON]},
        {"inputs": AS_JSON},
        {"inputs": {"x": AS_JSON}},
        {"inputs": {"x": [[each] for each in AS_JSON]}},
    ],
    ids=[
        "rows",
        "rows of one",
        "named rows",
        "named rows of one",
        "column",
        "named column",
        "column of rows",
    ],
)
def test_pictures_come_wherever_numbers_may(request_: object) -> None:
    """Each is a row, in their order."""
    np.testing.assert_array_equal(predict(request_)["x"], ROWS)


@pytest.mark.parametrize("request_", [{"inputs": AS_JSON[0]}, {"inputs": {"x": AS_JSON[0]}}])
def test_one_picture_needs_no_list(request_: object) -> None:
    """It is a column of one."""
    np.testing.assert_array_equal(predict(request_)["x"], ROWS[:1])


def test_numbers_are_taken_as_before() -> None:
    """A model that takes pictures takes its tensor too."""
    for request in (
        {"instances": ROWS.tolist()},
        {"instances": [{"x": row} for row in ROWS.tolist()]},
        {"inputs": ROWS.tolist()},
        {"inputs": {"x": ROWS.tolist()}},
    ):
        np.testing.assert_array_equal(predict(request)["x"], ROWS)


def test_a_picture_stands_beside_other_inputs() -> None:
    """In named rows and in named columns, where strings may be in base64 too."""
    word = {"b64": base64.b64encode(b"zwei").decode()}
    rows = [
        {"number": [1], "x": AS_JSON[0], "word": ["eins"]},
        {"number": [2], "x": AS_JSON[1], "word": [word]},
    ]
    columns = {"number": [[1], [2]], "x": AS_JSON[:2], "word": [["eins"], [word]]}
    for request in ({"instances": rows}, {"inputs": columns}):
        tensors = predict(request, BESIDE)
        np.testing.assert_array_equal(tensors["x"], ROWS[:2])
        assert tensors["number"].tolist() == [[1], [2]]
        assert tensors["word"].tolist() == [["eins"], ["zwei"]]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"instances": [PICTURE, WORDS]}, f"instances[1]: {NONE}"),
        ({"instances": [[PICTURE], [{"b64": ""}]]}, "instances[1][0]: is empty"),
        ({"instances": [PICTURE, {"b64": "no"}]}, "instances[1]: is no base64"),
        ({"instances": [PICTURE, NUMBERS]}, f"instances[1]: {SO}"),
        ({"instances": [PICTURE, AS_JSON]}, f"instances[1]: {SO}"),
        ({"instances": [{"x": PICTURE}, {"x": WORDS}]}, f"instances[1].x: {NONE}"),
        ({"instances": [{"x": PICTURE}, {"x": [WORDS]}]}, f"instances[1].x[0]: {NONE}"),
        (
            {"instances": [{"x": PICTURE}, {"x": AS_JSON}]},
            "instances[1].x: 3 pictures given, a row takes one",
        ),
        ({"instances": [{"x": PICTURE}, {"x": []}]}, "instances[1].x: 0 pictures given, a row takes one"),
        ({"instances": [{"x": PICTURE}, {"x": NUMBERS}]}, f"instances[1].x[0]: {SO}"),
        ({"instances": [{"x": NUMBERS}, {"x": PICTURE}]}, f"instances[0].x[0]: {SO}"),
        ({"instances": [{"x": PICTURE}, PICTURE]}, "instances: rows with and without names are mixed"),
        ({"inputs": {"x": WORDS}}, f"inputs.x: {NONE}"),
        ({"inputs": {"x": [PICTURE, {"b64": 5}]}}, f"inputs.x[1]: {SO}"),
        ({"inputs": [PICTURE, HIGH]}, "inputs[1]: becomes 3 x 9 pixels, but the first picture 3 x 2"),
        ({"inputs": HIGH}, "inputs: becomes 9 pixels high, the model takes 2"),
    ],
)
def test_what_is_no_picture_is_told_by_its_place(request_: object, text: str) -> None:
    """As the request has it: no row is taken for another, none is dropped."""
    assert refusal(request_) == text


def test_numbers_of_more_rows_than_one_are_no_row() -> None:
    """Of a model that takes pictures as of any other: none of them is left out."""
    for rows in (ROWS[:1].tolist(), ROWS[:2].tolist()):
        assert "shape" in refusal({"instances": [{"x": rows}]})


@pytest.mark.parametrize("shape", [None, ("n", "h", "w")])
def test_open_lengths_change_nothing(shape: tuple[Dim, ...] | None) -> None:
    """Nor does an open rank: a row is what was given for one."""
    spec = TensorSpec("x", np.dtype(np.float32), shape)
    reading = Reading(picture=spec, image=READING.image)
    for rows in (AS_JSON, ROWS.tolist()):
        tensors = predict({"instances": [{"x": row} for row in rows]}, Signature((spec,), ()), reading)
        np.testing.assert_array_equal(tensors["x"], ROWS)


def test_a_model_without_rows_takes_one_picture() -> None:
    """As its whole input."""
    spec = TensorSpec("x", np.dtype(np.float32), (2, 3))
    reading = Reading(picture=spec, image=ImageInput(colour="L", layout="HW"))
    signature = Signature((spec,), ())
    for request in (
        {"instances": AS_JSON[:1]},
        {"instances": [{"x": AS_JSON[0]}]},
        {"inputs": {"x": AS_JSON[0]}},
    ):
        np.testing.assert_array_equal(predict(request, signature, reading)["x"], ROWS[0])
    text = refusal({"instances": [{"x": each} for each in AS_JSON]}, signature, reading)
    assert text == "instances[1].x: the model takes one picture a request"


def test_a_request_holds_so_many_pictures() -> None:
    """However small they are, and however they come."""
    many = [AS_JSON[0]] * (MAX_PICTURES + 1)
    for request, place in (
        ({"instances": many}, f"instances[{MAX_PICTURES}]"),
        ({"instances": [{"x": each} for each in many]}, f"instances[{MAX_PICTURES}].x"),
    ):
        assert refusal(request) == f"{place}: one too many: a request holds {MAX_PICTURES} pictures"


def test_base64_is_a_picture_only_where_the_model_takes_one() -> None:
    """Numbers never come so."""
    assert "is no FP32" in refusal({"instances": AS_JSON}, reading=Reading())
    row = {"number": AS_JSON[0], "x": AS_JSON[0], "word": ["w"]}
    assert refusal({"instances": [row]}, BESIDE).startswith("instances[0].number: ")


# -- protocol v2 -----------------------------------------------------------------------------------


def infer(entry: dict[str, Any], blob: bytes | None = None, reading: Reading = READING, **more: Any) -> Array:
    """The picture input that an infer request comes to."""
    whole = {"name": "x", "shape": [3], "datatype": "BYTES", **entry}
    text = json.dumps({"inputs": [whole]}).encode()
    json_bytes = None if blob is None else len(text)
    body = text + (blob or b"")
    return decode_infer(body, json_bytes, ALONE, reading, **more).tensors["x"]


def parted(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in files)


@pytest.mark.parametrize("shape", [[3], [3, 1], [1, 3], [1, 3, 1]])
@pytest.mark.parametrize("halves", [True, False])
def test_bytes_are_pictures_where_the_model_takes_some(shape: list[int], halves: bool) -> None:
    """In base64 in JSON, as they are behind it; the shape says only how many."""
    np.testing.assert_array_equal(infer({"shape": shape, "data": TEXTS}, halves=halves), ROWS)
    blob = parted(*FILES)
    entry: dict[str, Any] = {"shape": shape, "parameters": {"binary_data_size": len(blob)}}
    for more in ({}, {"data": None}):
        np.testing.assert_array_equal(infer(entry | more, blob, halves=halves), ROWS)


def test_data_may_be_nested() -> None:
    """As with any other input."""
    np.testing.assert_array_equal(infer({"shape": [3, 1], "data": [[each] for each in TEXTS]}), ROWS)


def test_the_tensor_itself_is_taken_as_before() -> None:
    """By its own datatype, as JSON, as bytes, and as nothing but bytes."""
    entry = {"shape": [3, 2, 3], "datatype": "FP32"}
    np.testing.assert_array_equal(infer(entry | {"data": ROWS.tolist()}), ROWS)
    blob = {"parameters": {"binary_data_size": ROWS.nbytes}}
    np.testing.assert_array_equal(infer(entry | blob, ROWS.tobytes()), ROWS)
    only = decode_infer(ROWS.tobytes(), 0, ALONE, READING)
    np.testing.assert_array_equal(only.tensors["x"], ROWS)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"data": [TEXTS[0], "bm8=", TEXTS[1]]}, "inputs[0].data[1]: is no JPEG, PNG or WebP picture"),
        ({"data": [TEXTS[0], TEXTS[1], "no"]}, "inputs[0].data[2]: is no base64"),
        ({"data": [TEXTS[0], TEXTS[1], ""]}, "inputs[0].data[2]: is empty"),
        ({"data": TEXTS[:2]}, "inputs[0].data: 2 values given, shape [3] takes 3"),
        ({"data": [*TEXTS, "bm8="]}, "inputs[0].data: 4 values given, shape [3] takes 3"),
        ({"data": [1, 2, 3]}, "inputs[0].data[0]: 1 is no BYTES"),
        ({"data": AS_JSON}, "inputs[0].data[0]: "),
        ({"data": "text"}, "inputs[0].data: 1 values given, shape [3] takes 3"),
        ({}, "inputs[0]: Object missing required field `data`"),
        ({"data": None}, "inputs[0]: Object missing required field `data`"),
        ({"shape": [0], "data": []}, "inputs[0].data[0]: no picture is given"),
        ({"shape": [-3], "data": TEXTS}, "inputs[0].shape[0]: -3 is negative"),
        ({"shape": [3.0], "data": TEXTS}, "inputs[0].shape[0]: 3.0 is no integer"),
        ({"shape": [2**31], "data": TEXTS}, "inputs[0].shape: 2147483648 elements are too many"),
        ({"datatype": "bytes", "data": TEXTS}, "inputs[0].datatype: 'bytes' is none of "),
        ({"datatype": "UINT8", "data": TEXTS}, "inputs[0].datatype: UINT8 given, the model takes FP32"),
    ],
)
def test_what_is_no_picture_in_json_is_told_by_its_place(entry: dict[str, Any], text: str) -> None:
    """In the words of the protocol."""
    with pytest.raises((InvalidInputError, MalformedBodyError)) as caught:
        infer(entry)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("blob", "size", "text"),
    [
        (parted(FILES[0], b"no", FILES[1]), None, "inputs[0].data[1]: is no JPEG, PNG or WebP picture"),
        (parted(*FILES[:2]), None, "inputs[0][2]: the bytes end before this string"),
        (parted(*FILES)[:-1], None, "inputs[0][2]: the bytes end before this string does"),
        (parted(*FILES, b""), None, "inputs[0]: 4 bytes are left after 3 strings"),
        (FILES[0], None, "inputs[0][0]: the bytes end before this string does"),
        (parted(*FILES), 10**9, "inputs[0].parameters.binary_data_size: 1000000000, but the body has "),
        (struct.pack("<I", 2**32 - 1), None, "inputs[0][0]: the bytes end before this string does"),
        (b"", None, "inputs[0][0]: the bytes end before this string"),
    ],
)
def test_what_is_no_picture_in_bytes_is_told_by_its_place(blob: bytes, size: int | None, text: str) -> None:
    """Or the bytes are not parted as they should be."""
    with pytest.raises(InvalidInputError) as caught:
        infer({"parameters": {"binary_data_size": len(blob) if size is None else size}}, blob)
    assert str(caught.value).startswith(text)


def test_pictures_twice_over_are_refused() -> None:
    """In the JSON and behind it."""
    blob = parted(*FILES)
    with pytest.raises(InvalidInputError, match="has both 'data' and 'binary_data_size'"):
        infer({"data": TEXTS, "parameters": {"binary_data_size": len(blob)}}, blob)


def test_bytes_are_no_pictures_where_the_model_takes_none() -> None:
    """The input has a datatype of its own."""
    with pytest.raises(InvalidInputError, match=r"^inputs\[0\].datatype: BYTES given, the model takes FP32$"):
        infer({"data": TEXTS}, reading=Reading())


def test_pictures_that_become_another_number_of_rows_than_the_model_has_do_not_fit() -> None:
    """A fixed length counts."""
    spec = TensorSpec("x", np.dtype(np.float32), (2, 2, 3))
    entry = {"name": "x", "shape": [3], "datatype": "BYTES", "data": TEXTS}
    body = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(ShapeError, match=r"shape \[3, 2, 3\] given, the model takes \[2, 2, 3\]"):
        decode_infer(body, None, Signature((spec,), ()), Reading(picture=spec, image=READING.image))
