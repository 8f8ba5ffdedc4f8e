"""TensorFlow without Keras, from training to curl: a `tf.Module` with a batch norm of its own.

    pip install 'infold[cpu,tensorflow]' scikit-learn
    python examples/tensorflow_digits.py

`tf.nn.batch_normalization` leaves the moving statistics to the user: here they are kept by hand, with
momentum 0.9, and only inference is saved.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from story import digits, fresh, infold, serve_and_ask

EPSILON, MOMENTUM = 1e-3, 0.9


class BatchNorm(tf.Module):
    """Batch normalization over the last axis."""

    def __init__(self, channels: int, name: str) -> None:
        super().__init__(name)
        with self.name_scope:
            self.gamma = tf.Variable(tf.ones(channels), name="gamma")
            self.beta = tf.Variable(tf.zeros(channels), name="beta")
            self.mean = tf.Variable(tf.zeros(channels), trainable=False, name="moving_mean")
            self.variance = tf.Variable(tf.ones(channels), trainable=False, name="moving_variance")

    def __call__(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """Normalized x; in training the moving statistics follow the batch."""
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
            self.mean.assign(MOMENTUM * self.mean + (1 - MOMENTUM) * mean)
            self.variance.assign(MOMENTUM * self.variance + (1 - MOMENTUM) * variance)
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, EPSILON, name=self.name)


class Digits(tf.Module):
    """Images [N, 8, 8, 1] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__("digits")
        random = np.random.default_rng(0)

        def draw(shape: tuple[int, ...]) -> np.ndarray:
            fan_in = np.prod(shape[:-1])
            return random.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)

        self.stem = tf.Variable(draw((3, 3, 1, 24)), name="stem")
        self.stem_bn = BatchNorm(24, "stem_bn")
        self.dense = tf.Variable(draw((384, 48)), name="dense")
        self.dense_bn = BatchNorm(48, "dense_bn")
        self.classifier = tf.Variable(draw((48, 10)), name="classifier")
        self.bias = tf.Variable(tf.zeros(10), name="bias")

    def logits(self, image: tf.Tensor, training: bool) -> tf.Tensor:
        """The network."""
        x = tf.nn.conv2d(image, self.stem, 1, "SAME")
        x = tf.nn.max_pool2d(tf.nn.relu(self.stem_bn(x, training)), 2, 2, "VALID")
        x = tf.matmul(tf.reshape(x, (-1, 384)), self.dense)
        return tf.matmul(tf.nn.relu(self.dense_bn(x, training)), self.classifier) + self.bias

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.float32, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Inference, as it is saved."""
        return {"logits": self.logits(image, training=False)}


def train(model: Digits, images: np.ndarray, labels: np.ndarray) -> None:
    """Fit the model in place."""
    rate = 0.3

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model.logits(x, training=True))
            loss = tf.reduce_mean(losses)
        for variable, slope in zip(
            model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
        ):
            variable.assign_sub(rate * slope)
        return loss

    order = np.random.default_rng(0)
    for epoch in range(15):
        for batch in np.array_split(order.permutation(len(images)), len(images) // 64):
            loss = step(tf.constant(images[batch]), tf.constant(labels[batch]))
        print(f"epoch {epoch + 1}: loss {float(loss):.4f}")


def main() -> None:
    """The whole story."""
    train_x, train_y, test_x, test_y = digits()
    train_x, test_x = train_x[..., np.newaxis], test_x[..., np.newaxis]
    folder = fresh("tensorflow")
    model = Digits()
    train(model, train_x, train_y)
    source = folder / "saved_model"
    tf.saved_model.save(model, str(source), signatures={"serving_default": model.serve})
    np.savez(folder / "samples.npz", image=test_x[:32])
    np.savez(folder / "training.npz", image=train_x)

    infold("inspect", source, "--calibration", folder / "training.npz")
    infold(
        "convert", source, "--samples", folder / "samples.npz",
        "--repository", folder / "models", "--name", "digits",
    )  # fmt: skip
    serve_and_ask(folder / "models", "digits", test_x, test_y)


if __name__ == "__main__":
    main()
