"""`[image]` and `[classification]`: every key read, every nonsense refused where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from infold.errors import ConfigError
from infold.runtime import Classification, ImageInput, ModelConfig
from infold.runtime.model_config import parse_config

PATH = Path("models/m/model.toml")


def config(text: str, base: ModelConfig | None = None) -> ModelConfig:
    return parse_config(text, PATH, base)


def test_neither_section_is_there_unless_it_is_written() -> None:
    """A model takes pictures, and tells classes, because its owner said so."""
    assert (ModelConfig().image, ModelConfig().classification) == (None, None)
    assert config("[image]").image == ImageInput()
    assert config("[classification]").classification == Classification()


def test_everything_can_be_said_of_a_picture() -> None:
    """All keys at once; whole numbers where fractions may stand."""
    text = """
        [image]
        input = "x"
        exif = true
        colour = "BGR"
        resize = "shorter"
        size = [256]
        resampler = "bicubic"
        crop = [224, 192]
        pad_value = 114
        scale = 2
        mean = [1, 2.5, 3]
        std = [4]
        layout = "NHWC"
    """
    assert config(text).image == ImageInput(
        input="x",
        exif=True,
        colour="BGR",
        resize="shorter",
        size=(256,),
        resampler="bicubic",
        crop=(224, 192),
        pad_value=114,
        scale=2.0,
        mean=(1.0, 2.5, 3.0),
        std=(4.0,),
        layout="NHWC",
    )


def test_everything_can_be_said_of_classes() -> None:
    """All keys at once."""
    text = "[classification]\noutput = 'y'\nlabels = 'names/en.txt'\nis_logits = true\ntop = 3"
    assert config(text).classification == Classification("y", "names/en.txt", is_logits=True, top=3)


def test_a_version_overrides_its_model_key_by_key() -> None:
    """In both sections; what it does not mention stays."""
    outer = config("[image]\nresize = 'stretch'\nsize = [8]\nmean = [1]\n[classification]\ntop = 3")
    inner = config("[image]\nsize = [4, 6]\n[classification]\nlabels = 'l.txt'", outer)
    assert inner.image == ImageInput(resize="stretch", size=(4, 6), mean=(1.0,))
    assert inner.classification == Classification(labels="l.txt", top=3)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[image]\nwidth = 3", "image.width"),
        ("[image]\ncolor = 'RGB'", "image.color"),
        ("[classification]\nlabel = 'l.txt'", "classification.label"),
        ("[images]", "images"),
    ],
)
def test_unknown_keys_are_errors(text: str, place: str) -> None:
    """A typo is named, with the keys that exist."""
    with pytest.raises(ConfigError, match="unknown; known are") as caught:
        config(text)
    assert caught.value.place == f"{PATH}: {place}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("size = 224", "size: must be a list of whole numbers"),
        ("size = [224.0]", "size: must be a list of whole numbers"),
        ("crop = [true]", "crop: must be a list of whole numbers"),
        ("mean = 0.5", "mean: must be a list of numbers"),
        ("mean = ['0.5']", "mean: must be a list of numbers"),
        ("std = [false]", "std: must be a list of numbers"),
        ("mean = [1" + 400 * "0" + "]", "mean: must be a number of common size"),
        ("scale = 1" + 400 * "0", "scale: must be a number of common size"),
        ("scale = '1'", "scale: must be a number"),
        ("pad_value = 1.5", "pad_value: must be a whole number"),
        ("exif = 1", "exif: must be true or false"),
    ],
)
def test_wrong_types_are_errors(text: str, problem: str) -> None:
    """Each value has the type of its default; numbers do in lists of fractions."""
    with pytest.raises(ConfigError) as caught:
        config(f"[image]\n{text}")
    assert str(caught.value).startswith(f"{PATH}: image.{problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("colour = 'rgb'", "colour: 'rgb' is none of RGB, BGR, L"),
        ("resize = 'fit'", "resize: 'fit' is none of none, shorter, stretch, pad"),
        ("resampler = 'area'", "resampler: 'area' is none of nearest, box,"),
        ("layout = 'NWHC'", "layout: 'NWHC' is none of NCHW, NHWC,"),
        ("layout = 'HW'", "layout: HW has no axis for the channels of colour = 'RGB'"),
        ("size = [224]", "size: says nothing while resize = 'none'"),
        ("resize = 'shorter'", "size: [] is not one number, the shorter side"),
        ("resize = 'shorter'\nsize = [224, 224]", "size: [224, 224] is not one number"),
        ("resize = 'stretch'", "size: missing: resize = 'stretch' needs height and width"),
        ("resize = 'pad'", "size: missing: resize = 'pad' needs height and width"),
        ("resize = 'pad'\nsize = [1, 2, 3]", "size: [1, 2, 3] is not one or two numbers above 0"),
        ("resize = 'stretch'\nsize = [0]", "size: [0] is not one or two numbers above 0"),
        ("resize = 'shorter'\nsize = [-1]", "size: [-1] is not one or two numbers above 0"),
        ("resize = 'shorter'\nsize = [7072]", "size: [7072] is more than 50 million pixels"),
        ("resize = 'stretch'\nsize = [2, 25000001]", "size: [2, 25000001] is more than 50 million"),
        ("crop = [0, 5]", "crop: [0, 5] is not one or two numbers above 0"),
        ("crop = [10000]", "crop: [10000] is more than 50 million pixels"),
        ("pad_value = -1", "pad_value: -1 is not between 0 and 255"),
        ("pad_value = 256", "pad_value: 256 is not between 0 and 255"),
        ("scale = 0", "scale: 0.0 is no factor"),
        ("scale = nan", "scale: nan is no factor"),
        ("scale = inf", "scale: inf is no factor"),
        ("mean = []", "mean: [] is not 1 or 3 numbers, as colour = 'RGB' asks"),
        ("mean = [1, 2]", "mean: [1.0, 2.0] is not 1 or 3 numbers"),
        ("colour = 'L'\nstd = [1, 2, 3]", "std: [1.0, 2.0, 3.0] is not 1 number, as colour = 'L' asks"),
        ("mean = [nan]", "mean: [nan] are not all finite"),
        ("std = [1, inf, 1]", "std: [1.0, inf, 1.0] are not all finite"),
        ("std = [1, 0, 1]", "std: [1.0, 0.0, 1.0] divides by 0"),
    ],
)
def test_what_makes_no_sense_of_a_picture_is_an_error(text: str, problem: str) -> None:
    """The message stands at its key and says what would be right."""
    with pytest.raises(ConfigError) as caught:
        config(f"[image]\n{text}")
    assert str(caught.value).startswith(f"{PATH}: image.{problem}")


@pytest.mark.parametrize("size", ["[7071]", "[1]"])
def test_the_largest_and_the_smallest_size(size: str) -> None:
    """Up to 50 million pixels of a square."""
    assert config(f"[image]\nresize = 'shorter'\nsize = {size}").image is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("labels = '/etc/passwd'", "labels: '/etc/passwd' is no path below the model's folder"),
        ("labels = '../labels.txt'", "labels: '../labels.txt' is no path below"),
        ("labels = 'a/../../b'", "labels: 'a/../../b' is no path below"),
        ("labels = 'a\\..\\b'", "labels: 'a\\..\\b' is no path below"),
        ('labels = "a\\u0000"', "labels: 'a\0' is no path below"),
        ("top = 0", "top: 0 is not between 1 and 1000"),
        ("top = 1001", "top: 1001 is not between 1 and 1000"),
    ],
)
def test_what_makes_no_sense_of_classes_is_an_error(text: str, problem: str) -> None:
    """Labels lie with the model, and a reply has an end."""
    with pytest.raises(ConfigError) as caught:
        config(f"[classification]\n{text}")
    assert str(caught.value).startswith(f"{PATH}: classification.{problem}")
