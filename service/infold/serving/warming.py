"""Samples that a model's owner wants run before it is ready, as `config.pbtxt` lists them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from infold.errors import ConfigError, InfoldError
from infold.runtime import DATA_TYPES, TritonConfig, Warmup, WarmupInput
from infold.serving.reshaping import Run
from infold.tensors import Array, Signature, Tensors, kind_of

__all__ = ["warm_up"]

FOLDER = "warmup"
LIMIT_BYTES = 2**30  # of one input


def warm_up(triton: TritonConfig, model: Path, signature: Signature, runs: Sequence[Run]) -> None:
    """Run every sample as often as it says, in every way that requests will be run.

    Args:
        triton: The samples.
        model: The model's folder.
        signature: Inputs as callers see them.
        runs: Take tensors as callers give them.

    Raises:
        ConfigError: A sample does not fit, cannot be read or does not run; names it.
    """
    for warmup in triton.warmups:
        try:
            tensors = _tensors(warmup, model / FOLDER, has_rows=signature.is_batched)
            signature.check(tensors)
            for run in runs:
                for _ in range(warmup.count):
                    run(tensors, None, None)
        except (InfoldError, OSError, ValueError, RuntimeError, MemoryError) as failure:
            place = f"{triton.place}: model_warmup '{warmup.name}'"
            raise ConfigError(place, str(failure) or type(failure).__name__) from failure


def _tensors(warmup: Warmup, folder: Path, *, has_rows: bool) -> Tensors:
    if warmup.rows > 1 and not has_rows:
        raise ValueError(f"batch_size {warmup.rows}, but requests have no batch axis")
    tensors = {}
    for given in warmup.inputs:
        row = _row(given, folder, warmup.rows)
        if has_rows:
            row = np.repeat(row[np.newaxis], warmup.rows, axis=0)
        tensors[given.name] = row
    return tensors


def _row(given: WarmupInput, folder: Path, rows: int) -> Array:
    """One row of an input; random numbers are the same at every load, whole ones 0 or 1."""
    dtype, count = DATA_TYPES[given.data_type], math.prod(given.dims)
    if count * rows * dtype.itemsize > LIMIT_BYTES:
        raise ValueError(f"input '{given.name}' is larger than {LIMIT_BYTES} bytes")
    if given.data == "input_data_file":
        array: Array = _read(folder, given, dtype, count).reshape(given.dims)
        return array
    if dtype == np.object_:
        return np.full(given.dims, "", dtype)
    if given.data == "zero_data":
        return np.zeros(given.dims, dtype)
    generator = np.random.default_rng(0)
    # An index is likely good for one of these, and hardly for any number of its type.
    random = generator.random(given.dims) if kind_of(dtype) == "f" else generator.integers(0, 2, given.dims)
    return np.asarray(random).astype(dtype)


def _read(folder: Path, given: WarmupInput, dtype: np.dtype[np.generic], count: int) -> Array:
    """The elements that a file begins with, or for strings all that it holds."""
    path = (folder / given.file).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"input '{given.name}': there is no file '{given.file}' in the folder '{FOLDER}'")
    with path.open("rb") as file:
        if dtype == np.object_:
            content = file.read(LIMIT_BYTES + 1)
            strings = list(_strings(content)) if len(content) <= LIMIT_BYTES else []
            if len(strings) != count:
                raise ValueError(f"input '{given.name}': '{given.file}' does not hold {count} strings")
            return np.array(strings, dtype)
        content = file.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        wanted = count * dtype.itemsize
        raise ValueError(f"input '{given.name}': '{given.file}' has {len(content)} of {wanted} bytes")
    stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("<")
    return np.frombuffer(content, stored).astype(dtype)


def _strings(content: bytes) -> Iterator[str]:
    """Elements, each behind its length in four bytes."""
    start = 0
    while start < len(content):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if end > len(content):
            raise ValueError("a string ends behind the end of its file")
        yield content[start + 4 : end].decode("utf-8")
        start = end
