"""Bodies without a message around them: what they are, and what they hold."""

from __future__ import annotations

import io

import numpy as np
import pytest

from infold.errors import InvalidInputError, MalformedBodyError, UnsupportedMediaError
from infold.rest.uploads import Form, Upload, form_of, refuse_if_unfit, tensors_of
from infold.runtime import ImageInput
from infold.serving import MAX_PICTURES, Reading
from infold.tensors import Array, Dim, Signature, TensorSpec
from pictures import Levels, encoded, noise

GREY = noise(4, 6)
MODEL = ImageInput(colour="L", layout="NHW")
FORM = "multipart/form-data; boundary=b"


def spec(name: str = "x", shape: tuple[Dim, ...] | None = ("n", 4, 6)) -> TensorSpec:
    return TensorSpec(name, np.dtype(np.float32), shape)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs or (spec(),), (spec("y"),))


READING = Reading(picture=spec(), image=MODEL)


def form(*parts: tuple[str, bytes]) -> bytes:
    """As browsers write it."""
    pieces = [
        b'--b\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in parts
    ]
    return b"".join(pieces) + b"--b--\r\n"


def saved(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read(kind: Form, body: bytes, content_type: str = FORM, reading: Reading = READING) -> Array:
    (array,) = tensors_of(Upload(kind, content_type), memoryview(body), signature(), reading).values()
    return array


def refusal(kind: Form, body: bytes, reading: Reading = READING) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(kind, body, reading=reading)
    return str(caught.value)


# -- what a body is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        (None, Form.JSON),
        ("", Form.JSON),
        (" ", Form.JSON),
        ("application/json", Form.JSON),
        ("application/json; charset=utf-8", Form.JSON),
        ("Application/JSON ; charset=utf-8", Form.JSON),
        ("application/vnd.kserve+json", Form.JSON),
        ("text/plain;charset=UTF-8", Form.JSON),
        ("application/x-www-form-urlencoded", Form.JSON),
        ("application/octet-stream", Form.JSON),
        ("image/png", Form.PICTURE),
        ("IMAGE/JPEG; q=1", Form.PICTURE),
        ("image/whatever", Form.PICTURE),
        ("multipart/form-data; boundary=b", Form.PICTURES),
        ("Multipart/Form-Data", Form.PICTURES),
        ("application/x-npy", Form.ARRAY),
        ("application/npy", Form.ARRAY),
    ],
)
def test_a_content_type_says_what_a_body_is(content_type: str | None, kind: Form) -> None:
    """In any case, with any parameters; what clients say of anything is JSON."""
    assert form_of(content_type) is kind


@pytest.mark.parametrize(
    "content_type",
    [
        "application/xml", "application/pdf", "application/zip", "application/jsonp", "video/mp4", "json",
        "audio/wav", "multipart/mixed; boundary=b", "multipart/form-data-like", "images/png", "*/*",
        "application/json, image/png",
    ],
)  # fmt: skip
def test_another_content_type_is_refused_with_those_that_are_served(content_type: str) -> None:
    """It is shown, but no more than its beginning."""
    with pytest.raises(UnsupportedMediaError) as caught:
        form_of(content_type)
    text = str(caught.value)
    assert text.startswith(f"content-type '{content_type.partition(';')[0]}' is not served")
    for served in ("image/png", "multipart/form-data", "application/x-npy"):
        assert served in text
    with pytest.raises(UnsupportedMediaError) as caught:
        form_of("x" * 10_000)
    assert len(str(caught.value)) < 300


# -- whether a model takes it ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Form.PICTURE, Form.PICTURES])
def test_a_model_without_an_image_section_takes_no_pictures(kind: Form) -> None:
    """The answer says what is missing; arrays it takes all the same."""
    with pytest.raises(
        UnsupportedMediaError, match=r"takes no pictures: its model.toml has no section \[image\]"
    ):
        refuse_if_unfit(kind, signature(), Reading())
    refuse_if_unfit(Form.ARRAY, signature(), Reading())
    refuse_if_unfit(kind, signature(), READING)


@pytest.mark.parametrize("kind", [Form.PICTURE, Form.PICTURES, Form.ARRAY])
def test_a_model_of_several_inputs_takes_a_message(kind: Form) -> None:
    """One that names them; so does the refusal."""
    with pytest.raises(InvalidInputError, match="^body: holds one input.*'x', 'mask'$"):
        refuse_if_unfit(kind, signature(spec(), spec("mask")), READING)


# -- pictures --------------------------------------------------------------------------------------


def test_a_picture_is_one_row() -> None:
    """What it holds is what the section makes of it."""
    np.testing.assert_array_equal(read(Form.PICTURE, encoded(GREY)), GREY[np.newaxis])


def test_the_parts_of_a_form_are_rows_in_their_order() -> None:
    """Whatever their names are."""
    levels: list[Levels] = [noise(4, 6, seed=seed) for seed in range(3)]
    names = ["b", "a", "a"]
    body = form(*[(name, encoded(each)) for name, each in zip(names, levels, strict=True)])
    np.testing.assert_array_equal(read(Form.PICTURES, body), np.stack(levels))


def test_a_picture_that_is_none_is_told_by_its_part() -> None:
    """By number, since names may come twice, and by the beginning of its name."""
    good = encoded(GREY)
    bad = form(("image", good), ("image", b"hello"), ("more", good))
    assert refusal(Form.PICTURES, bad) == "parts[1] 'image': is no JPEG, PNG or WebP picture"
    assert refusal(Form.PICTURES, form(("", b""))) == "parts[0]: is empty"
    long = refusal(Form.PICTURES, form(("n" * 3000, b"")))
    assert long == f"parts[0] '{'n' * 100}': is empty"
    other = form(("a", good), ("b", encoded(noise(4, 7))))
    assert refusal(Form.PICTURES, other).startswith("parts[1] 'b': becomes 7 x 4 pixels")
    assert refusal(Form.PICTURES, form(("a", encoded(noise(4, 7))))).startswith("parts[0] 'a': becomes 7 ")
    assert refusal(Form.PICTURE, b"hello") == "body: is no JPEG, PNG or WebP picture"
    assert refusal(Form.PICTURE, b"") == "body: is empty"


def test_a_form_without_parts_and_one_of_too_many_are_refused() -> None:
    """One picture is the least, and there is a most."""
    assert refusal(Form.PICTURES, form()) == "body: the form has no parts"
    many = form(*[("p", b"")] * (MAX_PICTURES + 1))
    with pytest.raises(MalformedBodyError, match=f"^body: more than {MAX_PICTURES} parts$"):
        read(Form.PICTURES, many)


def test_a_model_that_takes_one_picture_refuses_the_second() -> None:
    """By its part."""
    alone = Reading(picture=spec(shape=(4, 6)), image=ImageInput(colour="L", layout="HW"))
    body = form(("a", encoded(GREY)), ("b", encoded(GREY)))
    assert refusal(Form.PICTURES, body, alone) == "parts[1] 'b': the model takes one picture a request"


# -- arrays ----------------------------------------------------------------------------------------


def test_an_array_is_the_only_input() -> None:
    """In either order of its axes and of its bytes; no section [image] is needed."""
    array = np.random.default_rng(3).normal(size=(2, 4, 6)).astype(np.float32)
    for file in (array, np.asfortranarray(array), array.astype(">f4")):
        np.testing.assert_array_equal(read(Form.ARRAY, saved(file), reading=Reading()), array)


def test_an_array_that_does_not_fit_is_told() -> None:
    """Its shape, or what its reader finds wrong."""
    wrong = refusal(Form.ARRAY, saved(np.zeros((4, 6), np.float32)))
    assert wrong == "body: shape [4, 6] given, the model takes [-1, 4, 6]"
    assert refusal(Form.ARRAY, saved(GREY)).startswith("body: holds uint8, the model takes float32")
    assert refusal(Form.ARRAY, b"hello") == "body: is no .npy file"
