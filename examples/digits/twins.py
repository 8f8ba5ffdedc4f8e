"""Write the trained digit classifier once more, as `digits.keras` and as `digits.pt2`.

    python examples/digits/twins.py

Nothing is trained: the weights of `digits.onnx` are put into a Keras model and into the PyTorch
network of `train.py`. All three files are one network and must give the same answers.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
import onnx
import torch
from keras import layers
from numpy.typing import NDArray
from torch import Tensor, nn
from train import build_model

HERE = Path(__file__).resolve().parent
Weights = dict[str, NDArray[np.float32]]


class Digits(nn.Sequential):
    """The network of `train.py`, its input and output named as in `digits.onnx`."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Logits of images [N, 1, 8, 8]."""
        return {"logits": super().forward(image)}


def trained() -> Weights:
    """Tensors of `digits.onnx`, named like the parameters of the PyTorch network."""
    graph = onnx.load(HERE / "digits.onnx").graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def save_pt2(weights: Weights) -> None:
    """As an archive of torch.export, batch axis open."""
    model = Digits(OrderedDict(build_model().named_children()))
    state = {name: torch.from_numpy(weights[name].copy()) for name in model.state_dict() if name in weights}
    lacking = model.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in lacking.missing_keys)
    model.eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, HERE / "digits.pt2")


def save_keras(weights: Weights) -> None:
    """As a Keras model; images come with channels first, as in the other two."""

    def norm(name: str) -> layers.BatchNormalization:
        return layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")

    image = layers.Input((1, 8, 8), name="image")
    x = layers.Permute((2, 3, 1))(image)
    x = layers.ReLU()(norm("stem")(layers.Conv2D(32, 3, padding="same", use_bias=False, name="stem_conv")(x)))
    x = layers.ReLU()(norm("body")(layers.Conv2D(48, 3, padding="same", use_bias=False, name="body_conv")(x)))
    x = layers.MaxPooling2D()(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise_conv")(x)
    x = layers.ReLU()(norm("depthwise")(x))
    x = layers.ReLU()(norm("pointwise")(layers.Conv2D(64, 1, name="pointwise_conv")(x)))
    x = layers.Flatten()(layers.Permute((3, 1, 2))(layers.MaxPooling2D()(x)))
    x = layers.ReLU()(norm("head")(layers.Dense(64, name="head_dense")(x)))
    model = keras.Model(image, layers.Dense(10, name="logits")(x), name="digits")

    for layer in model.layers:
        parts = [weights[name] for name in _sources(layer.name) if name in weights]
        if isinstance(layer, layers.DepthwiseConv2D):
            parts[0] = parts[0].transpose(2, 3, 0, 1)
        elif isinstance(layer, layers.Conv2D):
            parts[0] = parts[0].transpose(2, 3, 1, 0)
        elif isinstance(layer, layers.Dense):
            parts[0] = parts[0].T
        if layer.weights:
            layer.set_weights(parts)
    model.save(HERE / "digits.keras")


def _sources(layer: str) -> list[str]:
    """Names of a layer's tensors in the PyTorch network, in Keras' order."""
    path = "classifier" if layer == "logits" else layer.replace("_", ".", 1)
    parts = ("weight", "bias", "running_mean", "running_var")
    return [f"{path}.{part}" for part in parts]


if __name__ == "__main__":
    found = trained()
    save_pt2(found)
    save_keras(found)
