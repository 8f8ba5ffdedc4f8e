"""Keras, from training to curl: train, save, look, convert, serve, ask.

    pip install 'infold[cpu,keras]' scikit-learn
    python examples/keras_digits.py

Keras runs on PyTorch here (`KERAS_BACKEND=torch`); a model trained on TensorFlow or JAX is saved to
the same `.keras` file and converts alike.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers
from story import digits, fresh, infold, serve_and_ask


def network() -> keras.Model:
    """Images [N, 8, 8, 1] to logits [N, 10]."""
    return keras.Sequential(
        [
            layers.Input((8, 8, 1), name="image"),
            layers.Conv2D(24, 3, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(name="stem_bn", momentum=0.9),
            layers.ReLU(),
            layers.SeparableConv2D(48, 3, padding="same", name="body"),
            layers.BatchNormalization(name="body_bn", momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(48, name="dense"),
            layers.BatchNormalization(name="dense_bn", momentum=0.9),
            layers.ReLU(),
            layers.Dense(10, name="logits"),
        ],
        name="digits",
    )


def main() -> None:
    """The whole story."""
    keras.utils.set_random_seed(0)
    train_x, train_y, test_x, test_y = digits()
    train_x, test_x = train_x[..., np.newaxis], test_x[..., np.newaxis]
    folder = fresh("keras")
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(4e-3), loss, metrics=["accuracy"])
    model.fit(train_x, train_y, batch_size=64, epochs=12, verbose=2)
    model.save(folder / "digits.keras")
    np.savez(folder / "samples.npz", image=test_x[:32])
    np.savez(folder / "training.npz", image=train_x)

    source = folder / "digits.keras"
    infold("inspect", source, "--calibration", folder / "training.npz")
    infold(
        "convert", source, "--samples", folder / "samples.npz",
        "--repository", folder / "models", "--name", "digits",
    )  # fmt: skip
    serve_and_ask(folder / "models", "digits", test_x, test_y)


if __name__ == "__main__":
    main()
