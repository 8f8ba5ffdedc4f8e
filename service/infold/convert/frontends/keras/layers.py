"""The layers of a Keras model under the names they have in it, and its norms among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from infold.convert.frontends.exported import Convention, Norm
from infold.fold.affine import F64

__all__ = ["is_norm", "layers_of", "norms_of"]


def layers_of(model: Any) -> dict[str, Any]:
    """Every layer below a model by its path (`backbone/bn1`), each once.

    A shared layer has the path where it is met first. Two layers of one name, which
    a model written as a class may have, are told apart by a number.
    """
    found: dict[str, Any] = {}
    seen = {id(model)}
    for path, layer in _walk(model, "", seen):
        unique, number = path, 2
        while unique in found:
            unique, number = f"{path}#{number}", number + 1
        found[unique] = layer
    return found


def _walk(parent: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    for layer in parent._flatten_layers(include_self=False, recursive=False):
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            continue
        seen.add(id(layer))
        yield f"{prefix}{layer.name}", layer
        yield from _walk(layer, f"{prefix}{layer.name}/", seen)


def is_norm(layer: Any) -> bool:
    """A batch normalization that has been built: other normalizations keep no moving statistics."""
    return isinstance(layer, keras.layers.BatchNormalization) and layer.moving_variance is not None


def norms_of(model: Any) -> tuple[Norm, ...]:
    """The batch normalizations, in the order of `layers_of`."""
    return tuple(_norm(path, layer) for path, layer in layers_of(model).items() if is_norm(layer))


def _norm(path: str, layer: Any) -> Norm:
    mean, variance = _numbers(layer.moving_mean), _numbers(layer.moving_variance)
    return Norm(
        layer=path,
        kind=type(layer).__name__,
        axis=layer.axis,
        epsilon=layer.epsilon,
        momentum=layer.momentum,
        convention=Convention.OF_THE_OLD,
        trainable=bool(layer.trainable),
        gamma=np.ones_like(mean) if layer.gamma is None else _numbers(layer.gamma),
        beta=np.zeros_like(mean) if layer.beta is None else _numbers(layer.beta),
        mean=mean,
        variance=variance,
    )


def _numbers(variable: Any) -> F64:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
