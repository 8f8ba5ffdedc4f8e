"""Keras models on TensorFlow, exported as SavedModels by `model.export`; run as a script with a folder.

Keras takes its backend when it is first imported, so the tests run this in a process of its own.
Every output of a model is named, and so is every norm: `bn_<output>`, where there is one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

Tensor = keras.KerasTensor
Branch = Callable[[Tensor], Tensor]


def norm(name: str, **options: object) -> layers.BatchNormalization:
    return layers.BatchNormalization(name=f"bn_{name}", **options)


def images() -> keras.Model:
    """Convolutions of rank 4, and what can stand before a norm."""
    x = keras.Input((8, 8, 6), name="image")
    shared, twice = norm("shared"), layers.Conv2D(4, 3, name="twice")
    one = layers.Conv2D(4, 3, name="one")(x)
    inner = keras.Sequential([keras.Input((8, 8, 6)), layers.Conv2D(4, 3), norm("nested")], name="block")
    chains: dict[str, list[keras.Layer]] = {
        "conv": [layers.Conv2D(4, 3), norm("conv")],
        "no_bias": [layers.Conv2D(4, 3, use_bias=False), norm("no_bias")],
        "padded": [layers.Conv2D(4, 3, padding="same", strides=2), norm("padded")],
        "dilated": [layers.Conv2D(4, 3, dilation_rate=2), norm("dilated")],
        "grouped": [layers.Conv2D(6, 3, groups=3), norm("grouped")],
        "depthwise": [layers.DepthwiseConv2D(3), norm("depthwise")],
        "separable": [layers.SeparableConv2D(4, 3), norm("separable")],
        "transposed": [layers.Conv2DTranspose(4, 3, strides=2), norm("transposed")],
        "activated": [layers.Conv2D(4, 3, activation="relu"), norm("activated")],
        "first": [norm("first"), layers.Conv2D(4, 3)],
        "only": [norm("only")],
        "height": [layers.Conv2D(4, 3), norm("height", axis=1)],
        "pooled": [layers.Conv2D(4, 3), layers.MaxPooling2D(), norm("pooled")],
        "flattened": [layers.Conv2D(4, 3), layers.Flatten(), norm("flattened")],
        "averaged": [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), norm("averaged")],
        "upsampled": [layers.Conv2D(4, 3), layers.UpSampling2D(), norm("upsampled")],
        "zero_padded": [layers.Conv2D(4, 3), layers.ZeroPadding2D(), norm("zero_padded")],
        "dropped": [layers.Conv2D(4, 3), layers.Dropout(0.5), norm("dropped")],
        "again": [layers.Conv2D(4, 3), norm("again_1"), norm("again")],
        "no_scale": [layers.Conv2D(4, 3), norm("no_scale", scale=False)],
        "no_center": [layers.Conv2D(4, 3), norm("no_center", center=False)],
        "bare": [layers.Conv2D(4, 3), norm("bare", scale=False, center=False)],
        "epsilon": [layers.Conv2D(4, 3), norm("epsilon", epsilon=0.25)],
        "frozen": [layers.Conv2D(4, 3), norm("frozen", trainable=False)],
        "channels_first": [
            layers.Permute((3, 1, 2)),
            layers.Conv2D(4, 3, data_format="channels_first"),
            norm("channels_first", axis=1),
        ],
        "before_dense": [norm("before_dense"), layers.Flatten(), layers.Dense(3)],
    }
    outputs = {name: _chain(x, chain) for name, chain in chains.items()}
    outputs["two_of_one"] = layers.Add()([norm("two_of_one_a")(one), norm("two_of_one_b")(one)])
    outputs["added"] = norm("added")(layers.Add()([layers.Conv2D(4, 3)(x), layers.Conv2D(4, 3)(x)]))
    outputs["joined"] = norm("joined")(layers.Concatenate()([layers.Conv2D(4, 3)(x), layers.Conv2D(2, 3)(x)]))
    outputs["shared"] = layers.Add()([shared(layers.Conv2D(4, 3)(x)), shared(layers.Conv2D(4, 3)(x))])
    outputs["shared_conv"] = norm("shared_conv")(
        layers.Add()([twice(x), layers.ReLU()(twice(layers.ReLU()(x)))])
    )
    outputs["nested"] = inner(x)
    return keras.Model(x, outputs, name="images")


def sequences() -> keras.Model:
    """Rank 3: convolutions along time, recurrent layers, dense layers along steps."""
    x = keras.Input((12, 3), name="steps")
    chains: dict[str, list[keras.Layer]] = {
        "conv1d": [layers.Conv1D(4, 3), norm("conv1d")],
        "causal": [layers.Conv1D(4, 3, padding="causal"), norm("causal")],
        "depthwise1d": [layers.DepthwiseConv1D(3), norm("depthwise1d")],
        "separable1d": [layers.SeparableConv1D(4, 3), norm("separable1d")],
        "dense3d": [layers.Dense(4), norm("dense3d")],
        "lstm": [layers.LSTM(4, return_sequences=True), norm("lstm")],
    }
    return keras.Model(x, {name: _chain(x, chain) for name, chain in chains.items()}, name="sequences")


def volumes() -> keras.Model:
    """Rank 5."""
    x = keras.Input((5, 6, 7, 2), name="volume")
    chains: dict[str, list[keras.Layer]] = {
        "conv3d": [layers.Conv3D(4, 3), norm("conv3d")],
        "conv3d_no_bias": [layers.Conv3D(4, 3, use_bias=False), norm("conv3d_no_bias")],
        "transposed3d": [layers.Conv3DTranspose(4, 3, strides=2), norm("transposed3d")],
    }
    return keras.Model(x, {name: _chain(x, chain) for name, chain in chains.items()}, name="volumes")


def vectors() -> keras.Model:
    """Dense layers of two inputs."""
    x = keras.Input((5,), name="left")
    y = keras.Input((5,), name="right")
    outputs = {
        "dense": norm("dense")(layers.Dense(4)(x)),
        "dense_no_bias": norm("dense_no_bias")(layers.Dense(4, use_bias=False)(y)),
        "summed": norm("summed")(layers.Add()([x, y])),
    }
    return keras.Model([x, y], outputs, name="vectors")


def hard() -> keras.Model:
    """A norm that is in training mode for good."""
    x = keras.Input((5,), name="x")
    return keras.Model(x, {"y": norm("live")(layers.Dense(4)(x), training=True)}, name="hard")


def half() -> keras.Model:
    """Computes in float16, keeps its norms in float32."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    x = keras.Input((8, 8, 3), name="image")
    y = norm("half")(layers.Conv2D(4, 3)(x))
    y = layers.Activation("linear", dtype="float32", name="as_float")(y)
    keras.mixed_precision.set_global_policy("float32")
    return keras.Model(x, {"y": y}, name="half")


def digits(folder: Path) -> None:
    """A network trained on the digits; its test set and its answers beside it."""
    data = load_digits()
    x = (data.images[..., None] / 16).astype(np.float32)
    y = data.target
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(name="bn1", momentum=0.9),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(name="bn2", momentum=0.9),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(16, use_bias=False),
            layers.BatchNormalization(name="bn3", momentum=0.9),
            layers.ReLU(),
            layers.Dense(10, name="logits"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1300], y[:1300], batch_size=64, epochs=6, verbose=0)
    logits = model.predict(x[1300:], verbose=0)
    model.export(str(folder / "digits"), verbose=False)
    np.savez(
        folder / "digits.npz",
        image=x[1300:],
        label=y[1300:],
        logits=logits,
        moving_variance=np.asarray(model.get_layer("bn1").moving_variance),
    )


def _chain(x: Tensor, chain: list[keras.Layer]) -> Tensor:
    for layer in chain:
        x = layer(x)
    return x


def spread(model: keras.Model) -> None:
    """Statistics of wide range: variances from 1e-6 to 1e4, negative gammas and one that is zero."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(10.0 ** rng.uniform(-6, 4, weight.shape))
        elif weight.name in ("moving_mean", "beta", "bias"):
            weight.assign(rng.normal(size=weight.shape))
        elif weight.name == "gamma":
            gamma = rng.normal(size=weight.shape)
            gamma[0] = 0.0
            weight.assign(gamma)


def main() -> None:
    folder = Path(sys.argv[1])
    keras.utils.set_random_seed(0)
    for build in (images, sequences, volumes, vectors, hard, half):
        model = build()
        spread(model)
        model.export(str(folder / model.name), verbose=False)
    digits(folder)


if __name__ == "__main__":
    main()
