"""Holds a Keras model in inference mode, and listens to its norms.

Layers are held one by one, by the `call` of each: a model may switch some of them
to training itself (`bn(x, training=True)`), in a graph or in code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import keras
import numpy as np

from infold.convert.frontends.exported import Call
from infold.convert.frontends.keras.layers import is_norm, layers_of
from infold.tensors import Array

__all__ = ["Inference", "alike"]

# Numbers looked at in each tensor to see whether it stays the same.
GLIMPSE = 64


class Inference:
    """A model in whose layers no training is possible from now on.

    Attributes:
        switched: Paths of layers that the model itself wanted to train.
        failed: Path of the innermost layer out of which an exception came; None where none did.
        annotate: Entered with a layer's path around each of its calls.
    """

    def __init__(self, model: Any) -> None:
        self.switched: dict[str, None] = {}
        self.failed: str | None = None
        self.annotate: Callable[[str], Any] | None = None
        self._calls: list[Call] | None = None
        self._trace: list[tuple[str, Array]] | None = None
        self._inside = 0
        self._wishes: list[Any] = [None]  # what each layer that is being called was told of training
        layers = layers_of(model)
        norms = [layer for layer in layers.values() if is_norm(layer)]
        index = {id(layer): number for number, layer in enumerate(norms)}
        for path, layer in {"": model, **layers}.items():
            layer.call = self._held(path, layer, index.get(id(layer)))

    def _held(self, path: str, layer: Any, norm: int | None) -> Callable[..., Any]:
        call = layer.call
        signature = inspect.signature(call)
        told = signature.parameters.get("training")
        # A frozen norm is in inference mode whatever it is told; Keras' layers that augment images
        # are saved with their own default, which says nothing of the model's wish.
        augments = told is not None and told.default is True and type(layer).__module__.startswith("keras.")
        can_train = told is not None and not augments and (norm is None or layer.trainable)

        @wraps(call)
        def held(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            trains = bool(bound.arguments.get("training"))
            if trains:
                if can_train and not self._inside:  # what is in it only inherits the wish
                    self.switched.setdefault(path)
                bound.arguments["training"] = False
            self._inside += trains
            context = layer._get_call_context()
            self._wishes.append(context.training)
            try:
                with self._annotated(path):
                    value = call(*bound.args, **bound.kwargs)
            except Exception:
                self.failed = self.failed or path
                raise
            finally:
                self._inside -= trains
                self._wishes.pop()
                context.training = self._wishes[-1]  # Keras leaves a layer's wish to those after it
            if norm is not None and self._calls is not None:
                self._calls.append(Call(norm, keras.ops.convert_to_numpy(value)))
            if self._trace is not None:
                self._trace.append((path, _glimpse(value)))
            return value

        return held

    @contextmanager
    def _annotated(self, path: str) -> Iterator[None]:
        if self.annotate is None or not path:
            yield
        else:
            with self.annotate(path):
                yield

    @contextmanager
    def recording(self) -> Iterator[list[Call]]:
        """Collects what norms give, in order, while the context lasts."""
        calls: list[Call] = []
        self._calls = calls
        try:
            yield calls
        finally:
            self._calls = None

    def unsteady(self, call: Callable[[], object]) -> str | None:
        """Path of the first layer that gives other numbers when the same call is made again."""
        traces: list[list[tuple[str, Array]]] = []
        for _ in range(2):
            trace: list[tuple[str, Array]] = []
            self._trace = trace
            call()
            traces.append(trace)
        self._trace = None
        for (path, once), (_, again) in zip(traces[0], traces[1], strict=True):
            if not alike(once, again):
                return path
        return None

    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.switched:
            return ()
        names = ", ".join(f"'{path}'" if path else "itself" for path in self.switched)
        what = f"the model runs {names} in training mode (training=True)"
        return (f"{what}; exported for inference all the same: moving statistics, no dropout",)


def alike(once: Array, again: Array) -> bool:
    """Equal but for rounding, which may depend on how threads share the work."""
    largest = np.max(np.abs(once), initial=0.0, where=np.isfinite(once))
    return bool(np.allclose(once, again, rtol=0.0, atol=1e-3 * largest, equal_nan=True))


def _glimpse(value: Any) -> Array:
    """A few numbers out of all tensors that a layer gives."""
    parts = [np.ravel(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(value)]
    return np.concatenate([part[:: max(1, part.size // GLIMPSE)].astype(np.float64) for part in parts])
