"""Requests to a model that can be sent as they stand: JSON where it is short, command lines where not."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from infold.errors import InvalidInputError
from infold.rest.binary import open_shape
from infold.rest.codec import DATATYPES, encode_json
from infold.rest.model_schema import LARGE_ELEMENTS
from infold.rest.v2 import HEADER_LENGTH
from infold.runtime.measuring import one_row
from infold.tensors import Array, Signature, Tensors, TensorSpec, kind_of

__all__ = [
    "SERVER",
    "example_row",
    "infer_example",
    "infer_line",
    "is_large",
    "predict_example",
    "predict_line",
    "raw_bytes",
]

# Stands in command lines for the address under which the page was asked for.
SERVER = "http://localhost:8080"
# Pages read numbers as JavaScript does: larger whole ones are rounded.
EXACT = 2**53 - 1


def example_row(model: Path, signature: Signature) -> dict[str, Array]:
    """One row of every input: of the golden inputs beside the model, or zeros; strings are "text"."""
    row = one_row(model, signature)
    if not _is_sound(row, signature):
        row = {spec.name: np.zeros(_lengths(spec), spec.dtype) for spec in signature.inputs}
    return {
        name: np.full(array.shape, "text", object) if array.dtype == np.object_ else array
        for name, array in row.items()
    }


def _lengths(spec: TensorSpec) -> list[int]:
    return [dim if isinstance(dim, int) else 1 for dim in spec.shape or ()]


def _is_sound(row: Tensors, signature: Signature) -> bool:
    """It fits the signature, and survives being read by a page."""
    try:
        signature.check(row)
    except InvalidInputError:  # a symbol that stands for the rows in one input and not in another
        return False
    return all(
        int(array.min()) >= -EXACT and int(array.max()) <= EXACT
        for array in row.values()
        if array.dtype.kind in "iu" and array.size
    )


def is_large(row: Tensors) -> bool:
    """As JSON it would freeze the page."""
    return sum(array.size for array in row.values()) > LARGE_ELEMENTS


def infer_example(row: Tensors) -> dict[str, Any]:
    """A protocol v2 request, data flat."""
    return {
        "inputs": [{**_head(name, array), "data": _plain(array.reshape(-1))} for name, array in row.items()]
    }


def predict_example(row: Tensors, signature: Signature) -> dict[str, Any]:
    """A predict request: in rows where inputs and outputs have rows in common, else in columns."""
    if len(signature.inputs) == 1:
        (only,) = row.values()
        if only.ndim and (len(signature.outputs) == 1 or _rows_are_common(signature)):
            return {"instances": _plain(only)}
        return {"inputs": _plain(only)}
    if signature.inputs and _rows_are_common(signature):
        (count,) = {len(array) for array in row.values()}
        rows = range(count)
        return {"instances": [{name: _plain(array[i, ...]) for name, array in row.items()} for i in rows]}
    return {"inputs": {name: _plain(array) for name, array in row.items()}}


def _rows_are_common(signature: Signature) -> bool:
    """One symbol is the first length of every input and output."""
    first = {spec.shape[0] if spec.shape else None for spec in (*signature.inputs, *signature.outputs)}
    return len(first) == 1 and isinstance(first.pop(), str)


def raw_bytes(row: Tensors, signature: Signature) -> int | None:
    """Length of the bytes of the row, where they alone are a request; None where they are not."""
    if len(signature.inputs) != 1 or signature.inputs[0].dtype == np.object_:
        return None
    (array,) = row.values()
    try:
        open_shape(signature.inputs[0], array.nbytes)
    except InvalidInputError:
        return None
    return array.nbytes


def infer_line(path: str, row: Tensors) -> str:
    """A shell command that sends zeros of these shapes as bytes behind a JSON header.

    Four zero bytes are also a string: the empty one.
    """
    sizes = {
        name: array.size * (array.itemsize if array.dtype.kind != "O" else 4) for name, array in row.items()
    }
    header = encode_json(
        {
            "inputs": [
                {**_head(name, array), "parameters": {"binary_data_size": sizes[name]}}
                for name, array in row.items()
            ]
        }
    )
    return (
        f"(printf %s {shlex.quote(header.decode())}; head -c {sum(sizes.values())} /dev/zero) |\n"
        f"  curl {SERVER}{path} --data-binary @- \\\n"
        f"    -H 'Content-Type: application/octet-stream' -H '{HEADER_LENGTH}: {len(header)}'"
    )


def predict_line(path: str, row: Tensors) -> str:
    """A shell command that sends zeros of these shapes as JSON, in columns."""
    columns = ", ".join(
        f"{encode_json(name).decode()}: zeros({_zero(array)}, {list(array.shape)})"
        for name, array in row.items()
    )
    program = (
        "import json\n"
        "def zeros(zero, shape):\n"
        "    return [zeros(zero, shape[1:])] * shape[0] if shape else zero\n"
        f'print(json.dumps({{"inputs": {{{columns}}}}}))'
    )
    return (
        f"python3 -c {shlex.quote(program)} |\n"
        f"  curl {SERVER}{path} --data-binary @- -H 'Content-Type: application/json'"
    )


def _zero(array: Array) -> str:
    return {"b": "False", "f": "0.0", "O": '""'}.get(kind_of(array.dtype), "0")


def _head(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype]}


def _plain(array: Array) -> Any:
    """Nested lists; floats in the fewest digits of their own type, null for NaN and Inf."""
    if kind_of(array.dtype) != "f":
        return array.tolist()
    values = np.empty(array.size, object)
    values[:] = [float(str(value)) if np.isfinite(value) else None for value in array.reshape(-1)]
    return values.reshape(array.shape).tolist()
