"""Pictures as tensors: every key of `[image]`, every layout, and what does not fit a model."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from infold.errors import InvalidInputError
from infold.runtime import ImageInput
from infold.serving import images
from infold.serving.images import check, picture_input, tensor_of
from infold.tensors import Array, Dim, Signature, TensorSpec
from pictures import Levels, encoded, noise, orientation

COLOUR, GREY = noise(6, 9, 3), noise(6, 9)


def spec(dtype: str = "float32", shape: tuple[Dim, ...] | None = None, name: str = "x") -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


def place(index: int) -> str:
    return f"inputs[0].data[{index}]"


def made(*pictures: Levels, dtype: str = "float32", **config: Any) -> Array:
    files = [encoded(each) for each in pictures]
    return tensor_of(files, ImageInput(**config), spec(dtype), place)


# -- numbers ---------------------------------------------------------------------------------------


def test_without_a_word_the_levels_are_the_numbers() -> None:
    """0 to 255, in the order that most networks take."""
    np.testing.assert_array_equal(made(COLOUR), COLOUR.transpose(2, 0, 1)[np.newaxis])


def test_levels_are_scaled_then_the_mean_is_taken_off_then_std_divides() -> None:
    """Each channel by its own numbers, in the order of the colours; blue is first where it is."""
    numbers: dict[str, Any] = {"scale": 0.5, "mean": (1.0, 2.0, 3.0), "std": (4.0, 8.0, 16.0)}
    for colour, levels in (("RGB", COLOUR), ("BGR", COLOUR[..., ::-1])):
        expected = (levels * 0.5 - (1, 2, 3)) / (4, 8, 16)
        result = made(COLOUR, colour=colour, layout="NHWC", **numbers)
        np.testing.assert_array_equal(result[0], expected)


def test_one_number_speaks_for_all_channels() -> None:
    """As in most configurations."""
    result = made(COLOUR, mean=(10.0,), std=(-2.0,), layout="HWC")
    np.testing.assert_array_equal(result, (COLOUR - 10.0) / -2)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW", "CHW", "HWC", "HW"])
@pytest.mark.parametrize("colour", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("picture", [COLOUR, GREY], ids=["colour", "grey"])
def test_every_layout_holds_the_same_numbers(layout: str, colour: str, picture: Levels) -> None:
    """Of pictures in colour and in grey, wherever the channels stand."""
    if colour != "L" and "C" not in layout:
        return
    levels = np.asarray(Image.fromarray(picture).convert("L" if colour == "L" else "RGB"))
    levels = levels.reshape(6, 9, -1)[..., :: -1 if colour == "BGR" else 1]
    result = made(picture, colour=colour, layout=layout, mean=(7.0,))
    axes = {"NCHW": (2, 0, 1), "CHW": (2, 0, 1)}.get(layout, (0, 1, 2))
    np.testing.assert_array_equal(result.reshape(levels.transpose(axes).shape), levels.transpose(axes) - 7.0)
    assert result.ndim == len(layout)


def test_rows_are_pictures_in_their_order() -> None:
    """Formats mixed; bytes and views of bytes alike."""
    second = noise(6, 9, 3, seed=1)
    files = [encoded(COLOUR), memoryview(encoded(second, "WEBP", lossless=True)), encoded(GREY)]
    result = tensor_of(files, ImageInput(layout="NHWC"), spec(), place)
    np.testing.assert_array_equal(result, np.stack([COLOUR, second, np.dstack([GREY] * 3)]))
    assert result.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32", "float64"])
def test_numbers_come_in_the_models_type(dtype: str) -> None:
    """Whole numbers are rounded, half to even; fractions are rounded once."""
    result = made(COLOUR, dtype=dtype, scale=0.5, layout="HWC")
    exact = COLOUR * 0.5
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.rint(exact) if dtype[0] in "ui" else exact.astype(dtype))


def test_a_large_picture_is_written_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the strips, the numbers are the same."""
    whole = made(COLOUR, scale=0.1, layout="NHWC")
    for pixels in (1, 9, 20, 53, 54):
        monkeypatch.setattr(images, "STRIP", pixels)
        np.testing.assert_array_equal(made(COLOUR, scale=0.1, layout="NHWC"), whole)


# -- places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["RGB", "L"])
def test_a_padded_picture_lies_in_the_middle_of_its_frame(colour: str) -> None:
    """The frame's level around it, one row more below where it is odd."""
    result = made(COLOUR, resize="pad", size=(11, 9), pad_value=114, layout="NHWC", colour=colour)[0]
    np.testing.assert_array_equal(result[2:8], made(COLOUR, layout="NHWC", colour=colour)[0])
    assert (result[:2] == 114).all() and (result[8:] == 114).all()


def test_a_padded_picture_is_resampled_to_fit() -> None:
    """9 wide and 6 high become 3 wide and 2 high."""
    small = np.asarray(Image.fromarray(COLOUR).resize((3, 2), Image.Resampling.BOX))
    result = made(COLOUR, resize="pad", size=(4, 3), resampler="box", layout="HWC")
    np.testing.assert_array_equal(result[1:3], small)
    assert (result[[0, 3]] == 0).all()


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.sampled_from([0, 200]))
def test_a_cut_is_the_picture_seen_through_a_window(crop: tuple[int, int], level: int) -> None:
    """Where the window is larger there is the padding's level, on each axis by itself."""
    result = made(COLOUR, crop=crop, pad_value=level, layout="HWC")
    large = np.full((40, 40, 3), level, np.uint8)
    large[16:22, 16:25] = COLOUR
    top, left = images.crop_offset((6, 9), crop)
    np.testing.assert_array_equal(result, large[16 + top :, 16 + left :][: crop[0], : crop[1]])


def test_a_picture_is_turned_first_if_it_is_wanted() -> None:
    """Before anything is measured on it."""
    data = encoded(COLOUR, exif=orientation(6))
    upright = tensor_of([data], ImageInput(exif=True, layout="HWC"), spec(), place)
    np.testing.assert_array_equal(upright, np.rot90(COLOUR, -1))
    stored = tensor_of([data], ImageInput(layout="HWC"), spec(), place)
    np.testing.assert_array_equal(stored, COLOUR)


# -- what a caller can get wrong -------------------------------------------------------------------


def test_an_error_names_the_picture() -> None:
    """The second of two."""
    with pytest.raises(InvalidInputError) as caught:
        tensor_of([encoded(COLOUR), b"GIF89a"], ImageInput(), spec(), place)
    assert str(caught.value) == "inputs[0].data[1]: is no JPEG, PNG or WebP picture"


def test_pictures_of_one_request_become_equal_in_size() -> None:
    """They are rows of one tensor."""
    with pytest.raises(InvalidInputError) as caught:
        made(COLOUR, noise(5, 9, 3))
    assert str(caught.value) == "inputs[0].data[1]: becomes 9 x 5 pixels, but the first picture 9 x 6"
    assert made(COLOUR, noise(5, 7, 3), crop=(4,)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (("N", 3, 7, None), "becomes 6 pixels high, the model takes 7"),
        (("N", 3, None, 8), "becomes 9 pixels wide, the model takes 8"),
    ],
)
def test_a_picture_whose_own_size_matters_has_to_fit(shape: tuple[Dim, ...], problem: str) -> None:
    """Told in pixels, before it is a tensor."""
    with pytest.raises(InvalidInputError) as caught:
        tensor_of([encoded(COLOUR)], ImageInput(), spec(shape=shape), place)
    assert str(caught.value) == f"inputs[0].data[0]: {problem}"
    assert tensor_of([encoded(COLOUR)], ImageInput(), spec(shape=("N", 3, 6, None)), place).shape[2] == 6


def test_there_is_a_picture_and_only_one_where_there_are_no_rows() -> None:
    """Both are told at the picture that is missing, or too many."""
    with pytest.raises(InvalidInputError, match=r"data\[0\]: no picture is given"):
        made()
    with pytest.raises(InvalidInputError, match=r"data\[1\]: the model takes one picture a request"):
        made(COLOUR, COLOUR, layout="CHW")


@pytest.mark.parametrize(
    ("height", "width", "config", "result"),
    [
        (1, 60_000, {"resize": "shorter", "size": (100,)}, "6000000 x 100"),
        (60_000, 1, {"resize": "shorter", "size": (100,)}, "100 x 6000000"),
        (60_000, 2, {"resize": "stretch", "size": (1, 1000)}, "1000 x 1"),
        (2, 60_000, {"resize": "stretch", "size": (1000, 1)}, "1 x 1000"),
    ],
)
def test_no_picture_grows_beyond_all_memory(height: int, width: int, config: Any, result: str) -> None:
    """In proportion, or on the way there, a line of pixels would become gigabytes."""
    with pytest.raises(InvalidInputError) as caught:
        made(np.zeros((height, width), np.uint8), **config)
    detail = f"has {width} x {height} pixels and becomes {result}, with more than 50 million on the way"
    assert str(caught.value) == f"inputs[0].data[0]: {detail}"


def test_a_request_holds_no_more_pixels_than_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files may hold large pictures; as many as fit are taken."""
    monkeypatch.setattr(images, "MAX_PIXELS", 3 * COLOUR[..., 0].size)
    assert len(made(COLOUR, COLOUR, COLOUR)) == 3
    with pytest.raises(InvalidInputError) as caught:
        made(COLOUR, COLOUR, COLOUR, COLOUR, COLOUR)
    assert str(caught.value) == "inputs[0].data[3]: one too many: of this size a request holds 3"


def test_pictures_that_become_small_count_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes may claim millions of pixels, and all of them are decoded before any is left out."""
    monkeypatch.setattr(images, "MAX_DECODED", 2 * COLOUR[..., 0].size)
    small: dict[str, Any] = {"resize": "stretch", "size": (1, 1)}
    assert len(made(COLOUR, COLOUR, **small)) == 2
    with pytest.raises(
        InvalidInputError, match=r"^inputs\[0\].data\[2\]: one too many: .* in all its pictures$"
    ):
        made(COLOUR, COLOUR, COLOUR, **small)


def test_a_request_holds_so_many_pictures_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is looked at where there are more."""
    monkeypatch.setattr(images, "MAX_PICTURES", 2)
    assert len(made(COLOUR, COLOUR)) == 2
    with pytest.raises(
        InvalidInputError, match=r"^inputs\[0\].data\[2\]: one too many: a request holds 2 pictures$"
    ):
        tensor_of([b""] * 3, ImageInput(), spec(), place)


# -- what does not fit a model ---------------------------------------------------------------------


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, ())


@pytest.mark.parametrize(
    ("config", "inputs", "problem"),
    [
        ({"input": "y"}, [spec()], "image.input: the model has no input 'y'; it has 'x'"),
        ({}, [spec(), spec(name="z")], "image.input: missing, and the model has not one input but 'x', 'z'"),
        ({}, [spec("object")], "image.input: 'x' takes object, and a picture is numbers"),
        ({}, [spec("bool")], "image.input: 'x' takes bool, and a picture is numbers"),
        (
            {},
            [spec(shape=(None, 3, 8))],
            "image.layout: NCHW has 4 axes, which does not fit input 'x' of shape [-1, 3, 8]",
        ),
        (
            {},
            [spec(shape=(None, 1, None, None))],
            "image.colour: C of NCHW becomes 3, which does not fit input 'x' of shape [-1, 1, -1, -1]",
        ),
        (
            {"colour": "L", "layout": "NHWC"},
            [spec(shape=(None, 8, 8, 3))],
            "image.colour: C of NHWC becomes 1, which does not fit input 'x' of shape [-1, 8, 8, 3]",
        ),
        (
            {"resize": "stretch", "size": (8, 9)},
            [spec(shape=(None, 3, 8, 8))],
            "image.size: W of NCHW becomes 9, which does not fit input 'x' of shape [-1, 3, 8, 8]",
        ),
        (
            {"resize": "stretch", "size": (8, 8), "crop": (7, 8)},
            [spec(shape=(None, 3, 8, 8))],
            "image.crop: H of NCHW becomes 7, which does not fit input 'x' of shape [-1, 3, 8, 8]",
        ),
        (
            {"scale": 1 / 255, "mean": (0.5,), "std": (0.25,)},
            [spec("uint8")],
            "image.scale: levels become -2 to 2, which does not fit uint8",
        ),
        ({}, [spec("int8")], "image.scale: levels become 0 to 255, which does not fit int8"),
        (
            {"scale": 300.0},
            [spec("float16")],
            "image.scale: levels become 0 to 76500, which does not fit float16",
        ),
        (
            {"scale": -300.0},
            [spec("float16")],
            "image.scale: levels become -76500 to 0, which does not fit float16",
        ),
        (
            {"scale": 1e308},
            [spec("float64")],
            "image.scale: levels become 0 to inf, which does not fit float64",
        ),
    ],
)
def test_a_section_that_does_not_fit_says_why(config: Any, inputs: list[TensorSpec], problem: str) -> None:
    """The key that is to be changed stands in front."""
    assert check(ImageInput(**config), signature(*inputs)) == problem


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ({}, spec()),
        ({}, spec(shape=("N", 3, "H", "W"))),
        ({}, spec("uint8", (1, 3, 224, 224))),
        ({"resize": "shorter", "size": (256,), "crop": (224,)}, spec(shape=(None, 3, 224, 224))),
        ({"resize": "shorter", "size": (256,)}, spec(shape=(None, 3, 224, 224))),
        ({"colour": "L", "layout": "NHW"}, spec(shape=(None, 28, 28))),
        ({"scale": -1.0, "mean": (-255.0,)}, spec("uint8")),
    ],
)
def test_a_section_that_fits(config: Any, given: TensorSpec) -> None:
    """Open lengths take any; what the picture decides is looked at with the picture."""
    assert check(ImageInput(**config), signature(given)) is None


def test_an_input_is_found_by_name_or_because_it_is_alone() -> None:
    """And is the one whose specification a tensor is made for."""
    first, second = spec(), spec(name="z")
    assert picture_input(ImageInput(input="z"), signature(first, second)) is second
    assert picture_input(ImageInput(), signature(second)) is second
    assert picture_input(ImageInput(), signature(first, second)) is None


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32"])
def test_what_check_lets_pass_never_overflows(dtype: str) -> None:
    """All levels at once, which is why no picture has to be looked at for it."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for scale, mean in itertools.product((1.0, -1.0, 128.0, 1e6), (0.0, -255.0, 3e4)):
        config = ImageInput(colour="L", scale=scale, mean=(mean,))
        if check(config, signature(spec(dtype))) is None:
            result = tensor_of([encoded(levels)], config, spec(dtype), place)
            np.testing.assert_allclose(result.reshape(16, 16), levels * scale - mean, rtol=2**-10)
