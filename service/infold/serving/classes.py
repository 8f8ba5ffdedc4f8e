"""An output read as classes: probabilities, the largest of them, and what they are called; pure arrays.

A row is everything a request's row became: axes behind the first are read as one, as networks that
end in `[N, classes, 1, 1]` need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infold.errors import ConfigError
from infold.runtime import Classification
from infold.tensors import BFLOAT16, Array, Signature, TensorSpec, kind_of

__all__ = ["MAX_LABELS", "check", "class_output", "labels_file", "read_labels", "softmax", "top_classes"]

MAX_LABELS = 2**20
MAX_LABEL_BYTES = 64 * 2**20  # of the whole file

Class = tuple[float, int, str | None]


def softmax(array: Array) -> NDArray[np.floating]:
    """Each row as probabilities that sum to 1, in the same shape; float32 at least.

    The largest number is taken off first, so nothing overflows; infinite ones share the whole.
    A row with NaN in it is NaN.
    """
    wide = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    rows = _rows(wide)
    if not rows.size:
        return wide
    largest = rows.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(np.where(rows == largest, 0, rows - largest))
    return np.asarray((powers / powers.sum(axis=1, keepdims=True)).reshape(array.shape))


def top_classes(array: Array, top: int, labels: Sequence[str] | None) -> list[list[Class]]:
    """The largest numbers of each row, each with its index and label.

    Equal numbers stand in the order of their index, NaN behind all numbers.

    Args:
        array: Numbers, [N, ...]; without a second axis it is one row.
        top: How many of each row, if it has as many.
        labels: By index; a class beyond their end has none.
    """
    rows = _rows(array.astype(np.float32) if array.dtype == BFLOAT16 else array)
    # Rising keys, since sorting is stable and puts NaN last only in that direction.
    keys: Array = np.negative(rows) if rows.dtype.kind == "f" else np.invert(rows)
    return [
        [_named(row, index, labels) for index in _first(key, top)]
        for row, key in zip(rows, keys, strict=True)
    ]


def labels_file(folder: Path, name: str) -> Path:
    """The file of labels that a model's `model.toml` names.

    Args:
        folder: The model's, with all its versions.
        name: As `[classification]` has it.

    Raises:
        ConfigError: It leads out of the folder, by links included.
    """
    path = folder / name
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve(strict=True))
    except (OSError, RuntimeError) as failure:
        raise ConfigError(str(path), _words(failure)) from failure
    if not inside:
        raise ConfigError(str(path), f"leads out of {folder}")
    return path


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels in a file, one a line; empty lines at its end are none.

    Raises:
        ConfigError: No such file, no UTF-8, too long, or a line with nothing in it; names the line.
    """
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise ConfigError(str(path), "there is no such file")
        with path.open("rb") as file:
            raw = file.read(MAX_LABEL_BYTES + 1)
    except OSError as failure:
        raise ConfigError(str(path), _words(failure)) from failure
    if len(raw) > MAX_LABEL_BYTES:
        raise ConfigError(str(path), f"is longer than {MAX_LABEL_BYTES} bytes")
    lines = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").rstrip(b"\r\n").split(b"\n")
    if len(lines) > MAX_LABELS:
        raise ConfigError(str(path), f"line {MAX_LABELS + 1}: more than {MAX_LABELS} labels")
    return tuple(_label(line, f"{path}: line {number}") for number, line in enumerate(lines, 1))


def class_output(config: Classification, signature: Signature) -> TensorSpec | None:
    """The output that is read as classes; None where the model has it not."""
    return signature.output(config.output) if config.output else signature.outputs[0]


def check(config: Classification, labels: Sequence[str] | None, signature: Signature) -> str | None:
    """Why this section does not fit the model, its key in front, or None."""
    spec = class_output(config, signature)
    if spec is None:
        names = ", ".join(f"'{each.name}'" for each in signature.outputs)
        return f"classification.output: the model has no output '{config.output}'; it has {names}"
    if kind_of(spec.dtype) not in "fiub":
        return f"classification.output: '{spec.name}' holds {spec.dtype}, and classes are told by numbers"
    classes = _classes(spec)
    if labels is None or classes in (None, len(labels)):
        return None
    return f"classification.labels: {len(labels)} labels for {classes} classes in output '{spec.name}'"


def _classes(spec: TensorSpec) -> int | None:
    """How many numbers a row has; None where that is open."""
    if spec.shape is None:
        return None
    dims = spec.shape if len(spec.shape) == 1 else spec.shape[1:]
    lengths = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(lengths) if len(lengths) == len(dims) else None


def _rows(array: Array) -> Array:
    shape = array.shape if array.ndim > 1 else (1, *array.shape)
    return array.reshape(shape[0], math.prod(shape[1:]))


def _first(key: Array, top: int) -> NDArray[np.intp]:
    """Positions of the smallest of one row, in order; only those that can be among them are sorted."""
    if top >= len(key):
        return np.argsort(key, kind="stable")
    bound = np.partition(key, top - 1)[top - 1]
    chosen = np.flatnonzero(~(key > bound))
    return chosen[np.argsort(key[chosen], kind="stable")][:top]


def _named(row: Array, index: np.intp, labels: Sequence[str] | None) -> Class:
    position = int(index)
    value = float(row[position]) if row.dtype.kind == "f" else int(row[position])
    return value, position, labels[position] if labels and position < len(labels) else None


def _label(line: bytes, place: str) -> str:
    try:
        label = line.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as broken:
        raise ConfigError(place, f"not valid UTF-8: {broken}") from broken
    if not label:
        raise ConfigError(place, "holds no label")
    return label


def _words(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or str(failure)
