"""What is sent: tensors from samples or drawn, written as bodies of protocol v2, framed as HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infold.bench.target import Address
from infold.convert.samples import draw_input, fit_samples, read_samples
from infold.errors import SamplesError
from infold.rest.codec import DATATYPES, encode_json, json_ready
from infold.tensors import Array, Signature, Tensors, TensorSpec

__all__ = ["Body", "binary_body", "framed", "json_body", "request_tensors"]

SEED = 20150306
# Distinct requests, so that answers that are mixed up between callers show as wrong ones.
DRAWN, MOST_SAMPLES = 16, 64
DRAWN_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body.

    Attributes:
        headers: Those that describe the body.
    """

    content: bytes
    headers: Mapping[str, str]


def request_tensors(
    signature: Signature, samples: Path | None, shapes: Mapping[str, tuple[int, ...]], rows: int | None
) -> list[Tensors]:
    """The inputs of every distinct request.

    Args:
        signature: The model's inputs.
        samples: An `.npz` file of arrays named like them; None draws.
        shapes: Shapes of drawn inputs by name; the empty name stands for the only input.
        rows: Rows of one request, where the model's first axes are open; None is 1.

    Raises:
        SamplesError: They do not fit the model, or cannot be drawn.
    """
    if rows is not None and not all(spec.has_batch_axis for spec in signature.inputs):
        raise SamplesError("--rows: the model's inputs have no open first axis")
    if samples is not None:
        if shapes:
            raise SamplesError("--shape is for drawn inputs; it does not go with --samples")
        return _cut(samples, signature, rows or 1)
    chosen = _shapes(signature, shapes, rows or 1)
    rng = np.random.default_rng(SEED)
    size = sum(spec.dtype.itemsize * int(np.prod(chosen[spec.name])) for spec in signature.inputs)
    count = max(1, min(DRAWN, DRAWN_BYTES // max(1, size)))
    return [
        {spec.name: draw_input(spec, chosen[spec.name], rng) for spec in signature.inputs}
        for _ in range(count)
    ]


def _cut(path: Path, signature: Signature, rows: int) -> list[Tensors]:
    """Samples as requests of so many rows each; what is left over is not sent."""
    arrays = fit_samples(path, read_samples(path), signature)
    if not all(spec.has_batch_axis for spec in signature.inputs):
        return [arrays]
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1:
        raise SamplesError(f"{path}: the arrays have different numbers of rows: {sorted(lengths)}")
    count = min(lengths.pop() // rows, MOST_SAMPLES)
    if not count:
        raise SamplesError(f"{path}: holds less than {rows} rows")
    return [{name: array[n * rows : (n + 1) * rows] for name, array in arrays.items()} for n in range(count)]


def _shapes(
    signature: Signature, given: Mapping[str, tuple[int, ...]], rows: int
) -> dict[str, tuple[int, ...]]:
    known = ", ".join(spec.name for spec in signature.inputs)
    if "" in given and len(signature.inputs) != 1:
        raise SamplesError(f"--shape needs a name, --shape NAME=...: the model's inputs are {known}")
    shapes = {(name or signature.inputs[0].name): shape for name, shape in given.items()}
    for name, shape in shapes.items():
        spec = signature.input(name)
        if spec is None:
            raise SamplesError(f"--shape {name}: the model has no such input; it has {known}")
        if problem := spec.mismatch(np.empty(shape, spec.dtype)):
            raise SamplesError(f"--shape {name}: {problem}")
    for spec in signature.inputs:
        if spec.name not in shapes:
            shapes[spec.name] = _shape(spec, rows)
    return shapes


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    """The shape as it is declared, with so many rows; no other axis may be open."""
    lengths = []
    for axis, dim in enumerate(spec.shape or ()):
        if not isinstance(dim, int) and axis > 0:
            shown = ",".join("?" if length < 0 else str(length) for length in spec.wire_shape())
            raise SamplesError(
                f"input '{spec.name}' has the shape [{shown}]: give the open lengths, "
                f"as --shape {spec.name}=1,..., or samples"
            )
        lengths.append(dim if isinstance(dim, int) else rows)
    return tuple(lengths)


def json_body(tensors: Tensors) -> Body:
    """Protocol v2 in JSON."""
    inputs = [{**_described(name, a), "data": json_ready(a.reshape(-1))} for name, a in tensors.items()]
    return Body(encode_json({"inputs": inputs}), {"Content-Type": "application/json"})


def binary_body(tensors: Tensors) -> Body:
    """Protocol v2 with its binary extension: JSON that describes, then the tensors' raw bytes.

    Source: Triton's binary tensor data extension to protocol v2.
    """
    raws = [_raw(array) for array in tensors.values()]
    inputs = [
        {**_described(name, array), "parameters": {"binary_data_size": len(raw)}}
        for (name, array), raw in zip(tensors.items(), raws, strict=True)
    ]
    text = encode_json({"inputs": inputs, "parameters": {"binary_data_output": True}})
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(text)),
    }
    return Body(b"".join([text, *raws]), headers)


def _described(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[array.dtype], "shape": list(array.shape)}


def _raw(array: Array) -> bytes:
    """Row-major, little-endian; each string behind its length in four bytes."""
    if array.dtype.kind != "O":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [t if isinstance(t, bytes) else str(t).encode() for t in array.reshape(-1)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def framed(address: Address, path: str, body: Body, headers: Sequence[tuple[str, str]]) -> bytes:
    """A whole HTTP request, ready to be written to a connection."""
    lines = [
        f"POST {address.prefix}{path} HTTP/1.1",
        f"Host: {address.shown}",
        f"Content-Length: {len(body.content)}",
        *(f"{name}: {value}" for name, value in (*body.headers.items(), *headers)),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body.content
