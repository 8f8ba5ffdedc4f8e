"""Inputs to prove a model on: the user's own, or drawn from a fixed seed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.random import Generator

from infold.errors import InvalidInputError, SamplesError
from infold.runtime.bfloat16 import restored
from infold.tensors import Array, Dim, Signature, Tensors, TensorSpec

__all__ = [
    "draw_input",
    "draw_samples",
    "fit_samples",
    "load_samples",
    "read_samples",
    "signature_of",
    "spec_of",
]

SEED = 20150306
# Rows along an open batch axis: fewer where a row is large, since a proof runs the model several
# times. Four images of 224 by 224.
ROWS, LEAST_ROWS, ROW_ELEMENTS = 8, 2, 620_000
# Lengths for dimensions a model leaves open, by axis: batch, channels or sequence, space.
OPEN_LENGTHS = {1: 16}
OPEN_SPACE = 64


def signature_of(model: onnx.ModelProto) -> Signature:
    """Inputs and outputs as the model declares them; initializers among its inputs left out."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return Signature(
        tuple(spec_of(value) for value in model.graph.input if value.name not in constants),
        tuple(spec_of(value) for value in model.graph.output),
    )


def spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    """An input or output as it is declared.

    Raises:
        SamplesError: It is no tensor.
    """
    if not value.type.HasField("tensor_type"):
        raise SamplesError(f"'{value.name}' is no tensor; only tensors can be compared")
    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if not kind.HasField("shape"):
        return TensorSpec(value.name, dtype, None)
    dims: list[Dim] = []
    for dim in kind.shape.dim:
        dims.append(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None))
    return TensorSpec(value.name, dtype, tuple(dims))


def draw_samples(signature: Signature, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Draw inputs from a fixed seed, matched to each input's dtype and shape.

    Args:
        signature: The model's inputs.
        shapes: Full shapes that override what would be chosen, by input name; the empty
            name stands for the only input.

    Raises:
        SamplesError: A shape names no input or does not fit, or an input cannot be drawn.
    """
    if "" in shapes:
        if len(signature.inputs) != 1:
            known = ", ".join(each.name for each in signature.inputs)
            raise SamplesError(f"--shape needs a name, --shape NAME=...: the model's inputs are {known}")
        shapes = {(name or signature.inputs[0].name): shape for name, shape in shapes.items()}
    for name, shape in shapes.items():
        spec = signature.input(name)
        if spec is None:
            known = ", ".join(each.name for each in signature.inputs)
            raise SamplesError(f"--shape {name}: the model has no such input; it has {known}")
        if problem := spec.mismatch(np.empty(shape, spec.dtype)):
            raise SamplesError(f"--shape {name}: {problem}")
    rng = np.random.default_rng(SEED)
    symbols: dict[str, int] = {}
    for spec in signature.inputs:  # a symbol given by one --shape holds for every input
        for dim, length in zip(spec.shape or (), shapes.get(spec.name, ()), strict=False):
            if isinstance(dim, str):
                symbols[dim] = length
    drawn = {}
    for spec in signature.inputs:
        shape = shapes[spec.name] if spec.name in shapes else _shape(spec, symbols)
        drawn[spec.name] = draw_input(spec, shape, rng)
    return _fitting(drawn, signature)


def _shape(spec: TensorSpec, symbols: dict[str, int]) -> tuple[int, ...]:
    if spec.shape is None:
        raise SamplesError(f"the shape of '{spec.name}' is open; give it as --shape {spec.name}=...")
    lengths = []
    per_row = 1
    for axis, dim in enumerate(spec.shape[1:], 1):
        per_row *= dim if isinstance(dim, int) else OPEN_LENGTHS.get(axis, OPEN_SPACE)
    rows = max(LEAST_ROWS, min(ROWS, ROW_ELEMENTS // max(1, per_row)))
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            lengths.append(dim)
            continue
        chosen = rows if axis == 0 else OPEN_LENGTHS.get(axis, OPEN_SPACE)
        if isinstance(dim, str):
            chosen = symbols.setdefault(dim, chosen)
        lengths.append(chosen)
    return tuple(lengths)


def draw_input(spec: TensorSpec, shape: tuple[int, ...], rng: Generator) -> Array:
    """An array that an input of that type most likely takes.

    Raises:
        SamplesError: Nothing can be drawn for the type.
    """
    if spec.dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if spec.dtype == np.uint8:  # most likely an image
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if spec.dtype.kind in "iu":  # 0 and 1 are valid indices of nearly everything
        return rng.integers(0, 2, shape).astype(spec.dtype)
    if spec.dtype.kind == "O" or spec.dtype.kind in "cSU":
        raise SamplesError(f"'{spec.name}' takes {spec.dtype}; give samples with --samples")
    return rng.standard_normal(shape).astype(spec.dtype)


def read_samples(path: Path) -> dict[str, Array]:
    """Arrays of an `.npz` file by the inputs they are meant for, whatever the model.

    Raises:
        SamplesError: The file cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            arrays = {name: restored(saved[name]) for name in saved.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError
    except FileNotFoundError as missing:
        raise SamplesError(f"{path}: no such file") from missing
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as broken:
        raise SamplesError(f"{path}: not an .npz file of plain arrays") from broken
    if any(name.startswith("in.") for name in arrays):
        return {n.removeprefix("in."): a for n, a in arrays.items() if n.startswith("in.")}
    return arrays


def load_samples(path: Path, signature: Signature) -> Tensors:
    """Read samples from an `.npz` file.

    Arrays are named like the inputs, or `in.<input>` as in a golden file, in which
    case all others are passed over.

    Raises:
        SamplesError: The file cannot be read, or does not hold exactly the model's inputs.
    """
    return fit_samples(path, read_samples(path), signature)


def fit_samples(path: Path, arrays: Mapping[str, Array], signature: Signature) -> Tensors:
    """Arrays as the model's inputs; numbers are cast to the input's type where that loses nothing.

    Args:
        path: Where they come from, to be named in an error.
        arrays: By the names of the inputs.
        signature: The model's inputs.

    Raises:
        SamplesError: They are not exactly the model's inputs.
    """
    known = ", ".join(each.name for each in signature.inputs)
    for name in arrays:
        if signature.input(name) is None:
            raise SamplesError(f"{path}: the model has no input '{name}'; it has {known}")
    samples = {}
    for spec in signature.inputs:
        if spec.name not in arrays:
            raise SamplesError(f"{path}: holds no array for input '{spec.name}'")
        samples[spec.name] = _fitted(path, spec, arrays[spec.name])
    return _fitting(samples, signature)


def _fitting(samples: dict[str, Array], signature: Signature) -> Tensors:
    """The samples, if they fit together and are not empty: nothing is proven on nothing."""
    try:
        signature.check(samples)
    except InvalidInputError as unfit:
        raise SamplesError(f"samples: {unfit}") from unfit
    for name, array in samples.items():
        if not array.size:
            raise SamplesError(
                f"samples: '{name}' has shape {list(array.shape)}: nothing can be proven on it"
            )
    return samples


def _fitted(path: Path, spec: TensorSpec, array: Array) -> Array:
    if array.dtype != spec.dtype and np.can_cast(array.dtype, spec.dtype, "same_kind"):
        array = array.astype(spec.dtype)
    if problem := spec.mismatch(array):
        raise SamplesError(f"{path}: '{spec.name}': {problem}")
    return array
