"""Keras files (`.keras`, `.h5`) to unfolded ONNX, through whichever backend Keras runs on.

PyTorch is the backend that is tried first: it needs no TensorFlow and leaves every
norm in the graph. What it cannot do (a layer of the user's own that calls
TensorFlow) goes through TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import keras

from infold.convert.frontends.child import OtherBackendError
from infold.convert.frontends.exported import Answer, Exported, Request
from infold.convert.frontends.keras.inference import Inference, alike
from infold.convert.frontends.keras.interface import Interface, first_call
from infold.convert.frontends.keras.layers import layers_of, norms_of
from infold.convert.frontends.keras.loading import load
from infold.convert.frontends.keras.names import with_names
from infold.convert.frontends.keras.wording import one_line
from infold.errors import InfoldError, SourceError
from infold.tensors import Array, Tensors

__all__ = ["open_model"]


def open_model(request: Request) -> Exported:
    """Export a Keras model with every norm in the graph.

    Raises:
        SourceError: It cannot be loaded or exported; says what to do.
        OtherBackendError: TensorFlow may be able to.
    """
    backend = keras.config.backend()
    try:
        return _open(request, backend)
    except (InfoldError, OtherBackendError):
        raise
    except Exception as failure:
        raise _elsewhere(request, backend, failure) from failure


def _open(request: Request, backend: str) -> Exported:
    model = load(request)
    route = import_module(f"infold.convert.frontends.keras.{backend}_route")
    norms = norms_of(model)
    inference = Inference(model)
    try:
        with route.no_gradients():
            loaded = _weights(model)
            interface = first_call(model, request)
            _require_loaded(request, loaded, _weights(model))
            inference.failed = None  # a batch that did not fit is no failure
            _require_steady(request, interface, inference)
            proto = route.export(interface, inference)
    except InfoldError:
        raise
    except Exception as failure:
        where = f"layer '{inference.failed}': " if inference.failed else ""
        raise RuntimeError(where + one_line(failure)) from failure
    proto = with_names(proto, interface)
    notes = (*inference.notes(), *interface.notes(proto))
    elsewhere = None
    if interface.closed(proto) and backend != "tensorflow":
        if _has_tensorflow():
            elsewhere = "tensorflow"
        else:
            notes += ("pip install 'infold[tensorflow]' to export with open axes by way of TensorFlow",)

    def run(samples: Tensors) -> Answer:
        with route.no_gradients(), inference.recording() as calls:
            values = interface.call([samples[spec.name] for spec in interface.inputs])
        return Answer(dict(zip(interface.outputs, values, strict=True)), tuple(calls))

    name = f"keras {keras.__version__} on {route.NAME}"
    return Exported(name, proto, norms, run, notes, elsewhere=elsewhere)


def _weights(model: Any) -> dict[str, int]:
    """How many weights each layer has, those inside it included."""
    return {path: len(layer.weights) for path, layer in layers_of(model).items()}


def _require_loaded(request: Request, loaded: Mapping[str, int], used: Mapping[str, int]) -> None:
    """Keras leaves a layer that it cannot build while loading for its first call to make up."""
    new = [path for path, count in used.items() if count > loaded.get(path, 0)]
    if new:
        raise SourceError(
            request.source,
            f"layer '{max(new, key=len)}' came without its weights: Keras could not build it while loading "
            "and made up random ones; give the model's class a build() that takes the shapes of its inputs",
        )


def _require_steady(request: Request, interface: Interface, inference: Inference) -> None:
    """What a model draws anew on each call, nothing can be compared with."""

    def call() -> list[Array]:
        return interface.call(interface.example)

    if all(alike(once, again) for once, again in zip(call(), call(), strict=True)):
        return
    layer = inference.unsteady(call)
    detail = "gives other numbers on each call in inference mode; let it draw them in training mode only"
    raise SourceError(request.source, f"{f'layer {layer!r}' if layer else 'the model'} {detail}")


def _has_tensorflow() -> bool:
    return find_spec("tensorflow") is not None and find_spec("tf2onnx") is not None


def _elsewhere(request: Request, backend: str, failure: Exception) -> Exception:
    """What to say, or where to go, from a backend that failed."""
    why = str(failure)
    if backend == "tensorflow":
        return SourceError(request.source, f"Keras on TensorFlow cannot export it: {why}")
    if not _has_tensorflow():
        remedy = "pip install 'infold[tensorflow]' to try TensorFlow"
        return SourceError(request.source, f"Keras on {backend} cannot export it: {why}; {remedy}")
    return OtherBackendError("tensorflow", why)
