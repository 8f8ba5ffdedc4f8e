"""Whole Keras architectures without a download: random weights, moments as training would leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras import applications
from keras.src.applications.nasnet import NASNet

__all__ = ["APPLICATIONS", "Application", "settled"]

CLASSES = 10
ROWS = 4


@dataclass(frozen=True, slots=True)
class Application:
    """One architecture of `keras.applications`.

    Attributes:
        name: As Keras calls it.
        make: Builds it.
        pixels: Height and width of its input.
        norms: How many batch normalizations it has.
    """

    name: str
    make: Callable[..., Any]
    pixels: int
    norms: int

    def write(self, folder: Path) -> Path:
        """Build it, settle its norms on noise, and write `<name>.keras`; the outputs are logits."""
        keras.utils.set_random_seed(5)
        model = self.make(
            weights=None,
            input_shape=(self.pixels, self.pixels, 3),
            classes=CLASSES,
            classifier_activation=None,
        )
        rng = np.random.default_rng(5)
        settled(model, rng.normal(size=(ROWS, self.pixels, self.pixels, 3)).astype(np.float32), rng)
        path = folder / f"{self.name}.keras"
        model.save(path)
        return path


def settled(model: Any, images: Any, rng: np.random.Generator) -> None:
    """Give every norm the moments of what reaches it, and a gamma and beta of its own.

    Without that the activations of a deep network with random weights die out or grow
    beyond all bounds, and errors mean nothing.
    """
    with _settling(rng):
        model(images, training=False)


@contextmanager
def _settling(rng: np.random.Generator) -> Iterator[None]:
    call = keras.layers.BatchNormalization.call

    def settle(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        values = keras.ops.convert_to_numpy(inputs).astype(np.float64)
        axes = tuple(axis for axis in range(values.ndim) if axis != layer.axis % values.ndim)
        layer.moving_mean.assign(values.mean(axes))
        layer.moving_variance.assign(values.var(axes) + 1e-3)
        if layer.gamma is not None:
            layer.gamma.assign(rng.uniform(0.6, 1.4, layer.gamma.shape) * rng.choice([1, 1, 1, -1]))
        if layer.beta is not None:
            layer.beta.assign(rng.normal(0.0, 0.3, layer.beta.shape))
        return call(layer, inputs, training=training, mask=mask)

    with patch.object(keras.layers.BatchNormalization, "call", settle):
        yield


def _nasnet_mobile(**options: Any) -> Any:
    """As `NASNetMobile`, which refuses to be built on PyTorch though it runs there."""
    return NASNet(
        penultimate_filters=1056,
        num_blocks=4,
        stem_block_filters=32,
        skip_reduction=False,
        filter_multiplier=2,
        default_size=224,
        **options,
    )


APPLICATIONS = (
    Application("ResNet50", applications.ResNet50, 96, 53),
    Application("ResNet50V2", applications.ResNet50V2, 96, 49),
    Application("MobileNet", applications.MobileNet, 96, 27),
    Application("MobileNetV2", applications.MobileNetV2, 96, 52),
    Application("MobileNetV3Small", applications.MobileNetV3Small, 96, 34),
    Application("DenseNet121", applications.DenseNet121, 96, 121),
    Application("InceptionV3", applications.InceptionV3, 128, 94),
    Application("Xception", applications.Xception, 96, 40),
    Application("EfficientNetB0", applications.EfficientNetB0, 96, 49),
    Application("NASNetMobile", _nasnet_mobile, 96, 192),
)
