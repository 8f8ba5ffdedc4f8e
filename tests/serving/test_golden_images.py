"""Pictures prepared as in training: held against what torchvision and Keras made of the same files.

`images/make.py` ran the training pipelines; their answers are in `images/golden.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infold.runtime import ImageInput
from infold.serving.images import tensor_of
from infold.tensors import TensorSpec

IMAGES = Path(__file__).parent / "images"
GOLDEN = np.load(IMAGES / "golden.npz")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE = (103.939, 116.779, 123.68)


def imagenet(**more: object) -> ImageInput:
    return ImageInput(scale=1 / 255, mean=MEAN, std=STD, **more)


def mnist(**more: object) -> ImageInput:
    return ImageInput(colour="L", scale=1 / 255, mean=(0.1307,), std=(0.3081,), **more)


def keras(how: str = "bilinear", **more: object) -> ImageInput:
    return ImageInput(resize="stretch", size=(6, 5), resampler=how, layout="NHWC", **more)


CASES = {
    **{
        f"torchvision-{name}": (name, imagenet(resize="shorter", size=(12,), crop=(7,)))
        for name in ("colour", "tall", "palette", "alpha", "grey")
    },
    **{
        f"torchvision-{how}": (
            "colour",
            ImageInput(resize="stretch", size=(5, 8), resampler=how, scale=1 / 255),
        )
        for how in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
    },
    "torchvision-enlarged": (
        "tiny",
        ImageInput(resize="shorter", size=(13,), crop=(6, 19), scale=1 / 255),
    ),
    "torchvision-smaller-than-crop": ("tiny", imagenet(crop=(11, 10))),
    "torchvision-mnist": ("grey", mnist()),
    "torchvision-mnist-colour": ("colour", mnist(resize="stretch", size=(8, 8))),
    "keras-tf-nearest": ("colour", keras("nearest", scale=1 / 127.5, mean=(1.0,))),
    "keras-tf-bilinear": ("colour", keras(scale=1 / 127.5, mean=(1.0,))),
    "keras-caffe-bilinear": ("colour", keras(colour="BGR", mean=CAFFE)),
    "keras-torch-bilinear": ("colour", keras(scale=1 / 255, mean=MEAN, std=STD)),
    "keras-grey": ("colour", keras(colour="L")),
}


def test_every_golden_array_has_its_case() -> None:
    """And the other way round."""
    assert sorted(CASES) == sorted(GOLDEN)


@pytest.mark.parametrize("name", CASES)
def test_the_tensor_is_that_of_training(name: str) -> None:
    """But for the pipeline's own rounding; a level beside the right one would be a thousand times that.

    The pipelines round to float32 five times: mean and std themselves, and after each of the
    three steps. With u = 2^-24, x the scaled level and e the result, these are at most
    u|x|/s, u|m|/s, u|e|, u|e| and u|e|; ours is one more u|e|, and |x| <= |e|s + |m|.
    """
    picture, config = CASES[name]
    expected = GOLDEN[name].astype(np.float64)[np.newaxis]
    data = (IMAGES / f"{picture}.png").read_bytes()
    made = tensor_of([data], config, TensorSpec("x", np.dtype(np.float32), None), str)
    axis = (1, -1, 1, 1) if config.layout == "NCHW" else (1, 1, 1, -1)
    mean, std = (np.abs(np.array(each)).reshape(axis) for each in (config.mean, config.std))
    bound = 2.0**-24 * (5 * np.abs(expected) + 2 * mean / std) * 1.001
    assert made.shape == expected.shape and made.dtype == np.float32
    assert (np.abs(made - expected) <= bound).all()
    assert (1000 * bound < config.scale / std).all()
