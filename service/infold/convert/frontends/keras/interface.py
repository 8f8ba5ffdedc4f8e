"""What goes into a Keras model and comes out of it, flat and by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import onnx

from infold.convert.frontends.exported import Request
from infold.convert.samples import draw_samples, load_samples, read_samples, signature_of
from infold.errors import SourceError
from infold.tensors import Array, Signature, TensorSpec

__all__ = ["Interface", "first_call"]

# Exporters take one row for a fixed number; more than a few only take time.
LEAST_ROWS, MOST_ROWS = 2, 8
# What a tensor of an unknown name is called.
OUTPUT = "output"

Pack = Callable[[Sequence[Any]], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Interface:
    """A model as a function from flat tensors to flat tensors.

    Attributes:
        model: The model.
        inputs: Each input; None for an open length.
        pack: Arguments of the model's call from flat tensors.
        outputs: Names, in order.
        example: Inputs that the model has been run on, in order.
    """

    model: Any
    inputs: tuple[TensorSpec, ...]
    pack: Pack
    outputs: tuple[str, ...] = ()
    example: tuple[Array, ...] = ()

    def flat_call(self, *tensors: Any) -> tuple[Any, ...]:
        """The backend's tensors to the backend's tensors, in inference mode."""
        return tuple(keras.tree.flatten(self.model(*self.pack(tensors), training=False)))

    def call(self, arrays: Sequence[Array]) -> list[Array]:
        """Arrays to arrays, in inference mode."""
        values = self.flat_call(*(keras.ops.convert_to_tensor(array) for array in arrays))
        return [keras.ops.convert_to_numpy(value) for value in values]

    def closed(self, proto: onnx.ModelProto) -> tuple[tuple[str, int, int], ...]:
        """Input, axis and length of what the export fixed although the model leaves it open."""
        return tuple(
            (spec.name, axis, length)
            for spec, exported in zip(self.inputs, signature_of(proto).inputs, strict=True)
            for axis, length in enumerate(exported.shape or ())
            if isinstance(length, int) and not (spec.shape is not None and spec.shape[axis])
        )

    def notes(self, proto: onnx.ModelProto) -> tuple[str, ...]:
        """What the export fixed although the model leaves it open, and batches that stay fixed."""
        closed = self.closed(proto)
        batches = [
            (spec.name, 0, spec.shape[0])
            for spec in self.inputs
            if spec.shape and isinstance(spec.shape[0], int)
        ]
        found = []
        for name, axis, length in (*batches, *closed):
            what = f"axis {axis} of input '{name}'" if axis else f"the batch of input '{name}'"
            remedy = f"; --shape {name}=... chooses another" if axis else ""
            found.append(f"{what} is fixed at {length}, since the model computes with that length{remedy}")
        return tuple(found)


def first_call(model: Any, request: Request) -> Interface:
    """Find out what a model takes and gives, by running it once.

    The model is left to its own ideas of training here, so that they show.

    Raises:
        SourceError: It takes what ONNX has no tensor for, or does not say what it takes.
        SamplesError: The user's samples or shapes do not fit.
    """
    found = _declared(model, request) or _undeclared(model, request)
    opened = tuple(
        replace(spec, shape=(None, *spec.shape[1:]) if spec.shape else spec.shape) for spec in found.inputs
    )
    failures = []
    for inputs in dict.fromkeys((opened, found.inputs)):
        example = _example(inputs, request)
        try:
            result = model(*found.pack([keras.ops.convert_to_tensor(array) for array in example]))
        except Exception as failure:  # a batch of fixed size is told by no other sign
            failures.append(failure)
            continue
        outputs = _output_names(model, result, [spec.name for spec in inputs])
        return replace(found, inputs=inputs, outputs=outputs, example=example)
    raise failures[-1]


def _declared(model: Any, request: Request) -> Interface | None:
    """From the inputs of a Functional or Sequential model."""
    try:
        tensors = list(model.inputs)
    except (AttributeError, TypeError):
        return None
    names = _unique([tensor.name for tensor in tensors], set())
    inputs = tuple(
        TensorSpec(name, _dtype(request, name, tensor.dtype), tuple(tensor.shape))
        for name, tensor in zip(names, tensors, strict=True)
    )
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        return Interface(model, inputs, lambda flat: (flat[0] if len(flat) == 1 else list(flat),))
    return Interface(model, inputs, lambda flat: (keras.tree.pack_sequence_as(structure, list(flat)),))


def _undeclared(model: Any, request: Request) -> Interface:
    """From the shapes with which a model written as a class was built, or the user's."""
    if not model.built:
        detail = (
            "was saved before it had seen data, so it holds no weights; call the model once, then save it"
        )
        raise SourceError(request.source, detail)
    parameters = [
        name
        for name, each in inspect.signature(model.call).parameters.items()
        if name not in ("training", "mask")
        and each.default is each.empty
        and each.kind is not each.VAR_KEYWORD
    ]
    given = _given(request)
    if "" in given:
        given[parameters[0]] = given.pop("")
    build = model.get_build_config() or {}
    shapes = {name.removesuffix("_shape"): shape for name, shape in (build.get("shapes_dict") or {}).items()}
    if "input_shape" in build:
        shapes = {parameters[0]: build["input_shape"]}
    for name in parameters:
        if name not in shapes and name not in given:
            detail = (
                f"the model does not say what shape its input '{name}' has; give it as --shape {name}=N,..."
            )
            raise SourceError(request.source, detail)
        shapes.setdefault(name, given.get(name, (None, ()))[1])
    leaves: list[tuple[str, tuple[int | None, ...]]] = []
    places = [_number(shapes[name], name if len(parameters) > 1 else "", leaves) for name in parameters]
    if len(leaves) == 1:
        leaves = [(parameters[0], leaves[0][1])]
    inputs = tuple(
        TensorSpec(name, given.get(name, (np.dtype(np.float32), ()))[0], shape) for name, shape in leaves
    )
    return Interface(model, inputs, lambda flat: tuple(_packed(place, flat) for place in places))


def _number(structure: Any, path: str, leaves: list[tuple[str, tuple[int | None, ...]]]) -> Any:
    """The structure of shapes with a number in place of each; appends the shapes with their names."""
    if isinstance(structure, Mapping):
        return {
            key: _number(part, f"{path}_{key}" if path else key, leaves) for key, part in structure.items()
        }
    if all(dim is None or isinstance(dim, int) for dim in structure):
        leaves.append((path, tuple(structure)))
        return len(leaves) - 1
    return [_number(part, f"{path}_{place}".lstrip("_"), leaves) for place, part in enumerate(structure)]


def _packed(place: Any, flat: Sequence[Any]) -> Any:
    if isinstance(place, dict):
        return {key: _packed(part, flat) for key, part in place.items()}
    if isinstance(place, list):
        return [_packed(part, flat) for part in place]
    return flat[place]


def _given(request: Request) -> dict[str, tuple[np.dtype[np.generic], tuple[int | None, ...]]]:
    """Dtype and shape of what the user gave, by name."""
    if request.samples is None:
        return {name: (np.dtype(np.float32), shape) for name, shape in request.shapes.items()}
    return {name: (array.dtype, array.shape) for name, array in read_samples(request.samples).items()}


def _dtype(request: Request, name: str, dtype: str) -> np.dtype[np.generic]:
    try:
        return np.dtype(dtype)
    except TypeError as unknown:
        detail = f"input '{name}' takes {dtype}; infold converts models of numbers and booleans"
        raise SourceError(request.source, detail) from unknown


def _example(inputs: tuple[TensorSpec, ...], request: Request) -> tuple[Array, ...]:
    signature = Signature(inputs, ())
    if request.samples is None:
        arrays = draw_samples(signature, request.shapes)
    else:
        arrays = load_samples(request.samples, signature)
    return tuple(_few_rows(spec, arrays[spec.name]) for spec in inputs)


def _few_rows(spec: TensorSpec, array: Array) -> Array:
    if not spec.has_batch_axis:
        return array
    return array[:MOST_ROWS] if len(array) >= LEAST_ROWS else np.repeat(array, LEAST_ROWS, axis=0)


def _output_names(model: Any, result: Any, taken: Iterable[str]) -> tuple[str, ...]:
    """Keys where the outputs are a dictionary, else the layers that make them."""
    paths = [path for path, _ in keras.tree.flatten_with_path(result)]
    layers = getattr(getattr(model, "_functional", None) or model, "output_names", None)
    if layers is None or any(isinstance(part, str) for path in paths for part in path):
        layers = ["_".join(map(str, path)) for path in paths]
    layers = [f"{OUTPUT}_{name}" if name.isdigit() else name or OUTPUT for name in layers]
    return tuple(_unique(layers, taken))


def _unique(names: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Numbers added to names met before."""
    found, seen = [], set(taken)
    for name in names:
        unique, number = name, 1
        while unique in seen:
            unique, number = f"{name}_{number}", number + 1
        seen.add(unique)
        found.append(unique)
    return found
