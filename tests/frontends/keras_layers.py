"""The layer table: every way a norm stands beside other Keras layers, all branches of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from numpy.random import Generator

__all__ = ["ROWS", "Row", "build", "norm", "unsettle"]

# Inputs that the rows share, without their batch axis.
INPUTS = {
    "image": (9, 10, 3),
    "planes": (4, 8, 9),
    "sequence": (11, 4),
    "volume": (5, 6, 5, 2),
    "vector": (6,),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One branch.

    Attributes:
        input: Which input it reads.
        make: From a tensor and the row's name to a tensor; every layer has the name in its own.
        norms: How many norms it uses, each use counted.
        folded: How many of these have a lawful place to go.
    """

    input: str
    make: Callable[[Any, str], Any]
    norms: int = 1
    folded: int = 1


def norm(name: str, **options: Any) -> Any:
    """A norm that tests can tell by its name."""
    return kl.BatchNormalization(name=name, **options)


def after(layer: Callable[..., Any], **options: Any) -> Callable[[Any, str], Any]:
    """A layer, then a norm."""
    return lambda x, name: norm(name)(layer(name=f"{name}_layer", **options)(x))


def before(layer: Callable[..., Any], **options: Any) -> Callable[[Any, str], Any]:
    """A norm, then a layer."""
    return lambda x, name: layer(name=name, **options)(norm(f"{name}_norm")(x))


def with_norm(**options: Any) -> Callable[[Any, str], Any]:
    """A dense layer, then a norm with these options."""
    return lambda x, name: norm(name, **options)(kl.Dense(5, name=f"{name}_layer")(x))


def two_norms(x: Any, name: str) -> Any:
    """A norm on a norm."""
    return norm(name)(norm(f"{name}_first")(kl.Conv2D(5, 3, name=f"{name}_layer")(x)))


def fork(x: Any, name: str) -> Any:
    """One convolution that two norms read."""
    y = kl.Conv2D(4, 3, name=f"{name}_layer")(x)
    return kl.Concatenate(name=name)([norm(f"{name}_left")(y), norm(f"{name}_right")(y)])


def shared_norm(x: Any, name: str) -> Any:
    """One norm behind two convolutions."""
    shared = norm(f"{name}_norm")
    parts = [shared(kl.Conv2D(4, 3, name=f"{name}_{side}")(x)) for side in ("left", "right")]
    return kl.Add(name=name)(parts)


def shared_layer(x: Any, name: str) -> Any:
    """One convolution used twice, each time with a norm of its own."""
    shared = kl.Conv2D(4, 3, padding="same", name=f"{name}_layer")
    turned = kl.Permute((2, 1, 3), name=f"{name}_turned")(x)
    right = kl.Permute((2, 1, 3), name=f"{name}_back")(norm(f"{name}_right")(shared(turned)))
    return kl.Add(name=name)([norm(f"{name}_left")(shared(x)), right])


def joined(layer: type[Any]) -> Callable[[Any, str], Any]:
    """Two convolutions, joined, then a norm."""

    def make(x: Any, name: str) -> Any:
        parts = [kl.Conv2D(4, 3, name=f"{name}_{side}")(x) for side in ("left", "right")]
        return norm(name)(layer(name=f"{name}_layer")(parts))

    return make


def through(layer: Callable[..., Any], **options: Any) -> Callable[[Any, str], Any]:
    """A convolution, a layer, then a norm."""

    def make(x: Any, name: str) -> Any:
        y = kl.Conv2D(4, 3, name=f"{name}_conv")(x)
        return norm(name)(layer(name=f"{name}_layer", **options)(y))

    return make


def nested(x: Any, name: str) -> Any:
    """A convolution and a norm in a model of their own."""
    return keras.Sequential([kl.Conv2D(4, 3, name="conv"), norm("bn")], name=name)(x)


def deeply_nested(x: Any, name: str) -> Any:
    """A model in a model, used twice."""
    inner = keras.Sequential([kl.Dense(6, name="dense"), norm("bn")], name="block")
    entry = keras.Input((6,))
    outer = keras.Model(entry, kl.ReLU()(inner(inner(entry))), name=name)
    return outer(x)


def residual(x: Any, name: str) -> Any:
    """Convolution, norm, ReLU, twice, and a way around."""
    y = kl.ReLU(name=f"{name}_relu")(norm(f"{name}_1")(kl.Conv2D(3, 3, padding="same", name=f"{name}_a")(x)))
    y = norm(f"{name}_2")(kl.Conv2D(3, 3, padding="same", use_bias=False, name=f"{name}_b")(y))
    return kl.Add(name=name)([x, y])


def masked(x: Any, name: str) -> Any:
    """A norm that receives a mask: it counts in training only."""
    return norm(name)(kl.Dense(5, name=f"{name}_dense")(kl.Masking(name=f"{name}_mask")(x)))


def scaled_inputs(x: Any, name: str) -> Any:
    """As EfficientNet begins: fixed statistics of the data, which are no batch normalization."""
    y = kl.Rescaling(1 / 255, name=f"{name}_scale")(x)
    y = kl.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.2, 0.3, 0.1], name=f"{name}_fixed")(y)
    return norm(name)(kl.Conv2D(4, 3, strides=2, name=f"{name}_stem")(y))


def other_norms(x: Any, name: str) -> Any:
    """Normalizations that look at the data itself: nothing to fold in them."""
    y = kl.GroupNormalization(groups=1, name=f"{name}_group")(kl.Conv2D(4, 3, name=f"{name}_layer")(x))
    return norm(name)(kl.LayerNormalization(name=f"{name}_layer_norm")(y))


FIRST = {"data_format": "channels_first"}
ROWS: dict[str, Row] = {
    "dense": Row("vector", after(kl.Dense, units=5)),
    "dense_without_bias": Row("vector", after(kl.Dense, units=5, use_bias=False)),
    "dense_on_a_sequence": Row("sequence", after(kl.Dense, units=5)),
    "conv1d": Row("sequence", after(kl.Conv1D, filters=5, kernel_size=3)),
    "conv1d_causal": Row("sequence", after(kl.Conv1D, filters=5, kernel_size=3, padding="causal")),
    "conv1d_transposed": Row("sequence", after(kl.Conv1DTranspose, filters=5, kernel_size=3, strides=2)),
    "separable_conv1d": Row("sequence", after(kl.SeparableConv1D, filters=5, kernel_size=3)),
    "conv2d": Row("image", after(kl.Conv2D, filters=5, kernel_size=3, padding="same")),
    "conv2d_without_bias": Row("image", after(kl.Conv2D, filters=5, kernel_size=3, use_bias=False)),
    "conv2d_strided": Row("image", after(kl.Conv2D, filters=5, kernel_size=3, strides=2, padding="same")),
    "conv2d_dilated": Row("image", after(kl.Conv2D, filters=5, kernel_size=3, dilation_rate=2)),
    "conv2d_grouped": Row("image", after(kl.Conv2D, filters=6, kernel_size=3, groups=3)),
    "depthwise": Row("image", after(kl.DepthwiseConv2D, kernel_size=3, depth_multiplier=2)),
    "separable": Row("image", after(kl.SeparableConv2D, filters=5, kernel_size=3)),
    "transposed": Row("image", after(kl.Conv2DTranspose, filters=5, kernel_size=3, strides=2)),
    "transposed_same": Row(
        "image", after(kl.Conv2DTranspose, filters=5, kernel_size=3, strides=2, padding="same")
    ),
    "conv3d": Row("volume", after(kl.Conv3D, filters=4, kernel_size=2)),
    "conv3d_without_bias": Row("volume", after(kl.Conv3D, filters=4, kernel_size=2, use_bias=False)),
    "conv3d_transposed": Row("volume", after(kl.Conv3DTranspose, filters=4, kernel_size=2, strides=2)),
    "channels_first": Row(
        "planes", lambda x, name: norm(name, axis=1)(kl.Conv2D(5, 3, name=f"{name}_layer", **FIRST)(x))
    ),
    "channels_first_transposed": Row(
        "planes",
        lambda x, name: norm(name, axis=1)(
            kl.Conv2DTranspose(5, 3, strides=2, name=f"{name}_layer", **FIRST)(x)
        ),
    ),
    "norm_on_rows": Row(
        "image", lambda x, name: norm(name, axis=1)(kl.Conv2D(5, 3, name=f"{name}_layer")(x)), folded=0
    ),
    "norm_on_columns": Row(
        "image", lambda x, name: norm(name, axis=-2)(kl.Conv2D(5, 3, name=f"{name}_layer")(x)), folded=0
    ),
    "activation_inside": Row(
        "image", after(kl.Conv2D, filters=5, kernel_size=3, activation="relu"), folded=0
    ),
    "before_dense": Row("vector", before(kl.Dense, units=5)),
    "before_conv": Row("image", before(kl.Conv2D, filters=5, kernel_size=3)),
    "before_padded_conv": Row("image", before(kl.Conv2D, filters=5, kernel_size=3, padding="same"), folded=0),
    "alone": Row("vector", lambda x, name: norm(name)(x), folded=0),
    "add": Row("image", joined(kl.Add)),
    "concatenate": Row("image", joined(kl.Concatenate)),
    "average_pooling": Row("image", through(kl.AveragePooling2D, pool_size=2)),
    "max_pooling": Row("image", through(kl.MaxPooling2D, pool_size=2), folded=0),
    "global_pooling": Row("image", through(kl.GlobalAveragePooling2D)),
    "flatten": Row("image", through(kl.Flatten), folded=0),
    "upsampling": Row("image", through(kl.UpSampling2D), folded=0),
    "zero_padding": Row("image", through(kl.ZeroPadding2D), folded=0),
    "cropping": Row("image", through(kl.Cropping2D)),
    "reshape": Row("image", through(kl.Reshape, target_shape=(-1, 4))),
    "dropout": Row("image", through(kl.Dropout, rate=0.5)),
    "noise": Row("image", through(kl.GaussianNoise, stddev=0.5)),
    "relu": Row("image", through(kl.ReLU), folded=0),
    "pool_then_dense": Row(
        "image",
        lambda x, name: kl.Dense(3, name=name)(
            kl.GlobalAveragePooling2D(name=f"{name}_pool")(norm(f"{name}_norm")(x))
        ),
    ),
    "two_norms": Row("image", two_norms, norms=2),
    "fork": Row("image", fork, norms=2, folded=0),
    "shared_norm": Row("image", shared_norm, norms=2, folded=2),
    "shared_layer": Row("image", shared_layer, norms=2, folded=2),
    "nested": Row("image", nested),
    "deeply_nested": Row("vector", deeply_nested, norms=2, folded=2),
    "residual": Row("image", residual, norms=2, folded=2),
    "no_scale": Row("vector", with_norm(scale=False)),
    "no_center": Row("vector", with_norm(center=False)),
    "neither": Row("vector", with_norm(scale=False, center=False)),
    "epsilon": Row("vector", with_norm(epsilon=0.3)),
    "frozen": Row("vector", with_norm(trainable=False)),
    "renorm": Row("vector", with_norm(renorm=True)),
    "masked": Row("sequence", masked),
    "timed": Row(
        "sequence",
        lambda x, name: kl.TimeDistributed(norm("each"), name=name)(kl.Dense(5, name=f"{name}_layer")(x)),
        norms=11,
        folded=0,
    ),
    "recurrent": Row("sequence", lambda x, name: norm(name)(kl.LSTM(4, name=f"{name}_layer")(x)), folded=0),
    "scaled_inputs": Row("image", scaled_inputs),
    "other_norms": Row("image", other_norms, folded=0),
}


def build(rows: dict[str, Row] = ROWS) -> Any:
    """One model with an output a row, its weights and statistics of wide range."""
    inputs = {name: keras.Input(INPUTS[name], name=name) for name in {row.input: 0 for row in rows.values()}}
    model = keras.Model(inputs, {name: row.make(inputs[row.input], name) for name, row in rows.items()})
    unsettle(model, np.random.default_rng(1))
    return model


def unsettle(model: Any, rng: Generator) -> None:
    """Give every norm statistics of wide range: variances of ten decades, gamma of any sign and zero."""
    for layer in model._flatten_layers():
        if not isinstance(layer, kl.BatchNormalization):
            if getattr(layer, "bias", None) is not None and isinstance(layer.bias, keras.Variable):
                layer.bias.assign(rng.normal(size=layer.bias.shape))
            continue
        (length,) = layer.moving_mean.shape
        variance = 10.0 ** rng.uniform(-6, 4, length)
        layer.moving_variance.assign(variance)
        layer.moving_mean.assign(rng.normal(size=length) * np.sqrt(variance))
        if layer.gamma is not None:
            gamma = rng.normal(size=length)
            gamma[rng.integers(length)] = 0.0
            layer.gamma.assign(gamma)
        if layer.beta is not None:
            layer.beta.assign(rng.normal(size=length))
