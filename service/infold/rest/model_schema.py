"""What a model takes and gives, as JSON schemas; pure functions of its signature.

OpenAPI 3.0.3 has neither `const` nor `prefixItems`: a name is an enum of one, a
shape that is all fixed is an enum of one list, and an axis that is open leaves the
shape with nothing but its number of axes.

Source: OpenAPI Specification 3.0.3, "Schema Object".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from infold.rest.codec import DATATYPES, MAX_RANK
from infold.tensors import Dim, Signature, TensorSpec, kind_of

__all__ = [
    "LARGE_ELEMENTS",
    "Schema",
    "classes_response",
    "infer_request",
    "infer_response",
    "predict_request",
    "predict_response",
    "shown",
]

Schema = dict[str, Any]

# More values than this freeze a page that shows them; and a page makes up as many as a schema demands.
LARGE_ELEMENTS = 4096


def infer_request(signature: Signature) -> Schema:
    """The schema of a protocol v2 request to a model."""
    asked: Schema = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "enum": [spec.name for spec in signature.outputs]},
            "parameters": _asked(),
        },
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 256},
            "inputs": _each(signature.inputs, [_tensor(spec, _data(spec)) for spec in signature.inputs]),
            "outputs": {
                "type": "array",
                "items": asked,
                "description": "The outputs wanted, in this order; all without it.",
            },
            "parameters": _flags("binary_data_output"),
        },
    }


def infer_response(model: str, signature: Signature) -> Schema:
    """The schema of a model's answer in protocol v2, where no output is wanted as bytes."""
    tensors = [_tensor(spec, _flat(spec)) for spec in signature.outputs]
    tensors += [_classes(spec) for spec in signature.outputs if kind_of(spec.dtype) not in "bO"]
    outputs = _each(signature.outputs, tensors) | {"minItems": min(1, len(signature.outputs))}
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string", "enum": [model]},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": outputs,
        },
    }


def predict_request(signature: Signature) -> Schema:
    """The schema of a predict request: rows as `instances`, or columns as `inputs`."""
    columns = _named({spec.name: _nested(spec, spec.shape) for spec in signature.inputs})
    if len(signature.inputs) == 1:
        (only,) = signature.inputs
        columns = {"anyOf": [_nested(only, only.shape), columns]}
    forms = [_form("inputs", columns)]
    if signature.inputs and all(spec.shape != () for spec in signature.inputs):
        rows = _named({spec.name: _nested(spec, _row(spec)) for spec in signature.inputs})
        if len(signature.inputs) == 1:
            rows = {"anyOf": [_nested(signature.inputs[0], _row(signature.inputs[0])), rows]}
        forms.insert(0, _form("instances", {"type": "array", "items": rows}))
    return {"oneOf": forms} if len(forms) > 1 else forms[0]


def classes_response() -> Schema:
    """The schema of the answer to a predict request of pictures, where the model has classes."""
    found: Schema = {
        "type": "object",
        "required": ["index", "score"],
        "properties": {
            "index": {"type": "integer", "minimum": 0},
            "score": {"type": "number", "nullable": True},
            "label": {"type": "string"},
        },
    }
    row = _form("classes", {"type": "array", "items": found})
    return _form("predictions", {"type": "array", "items": row})


def predict_response(signature: Signature) -> Schema:
    """The schema of the answer to a predict request, in the form of the request."""
    if len(signature.outputs) == 1:
        only = _nested(signature.outputs[0], signature.outputs[0].shape)
        return {"oneOf": [_form("predictions", only), _form("outputs", only)]}
    rows = _named({spec.name: _nested(spec, _row(spec)) for spec in signature.outputs})
    columns = _named({spec.name: _nested(spec, spec.shape) for spec in signature.outputs})
    return {"oneOf": [_form("predictions", {"type": "array", "items": rows}), _form("outputs", columns)]}


def shown(spec: TensorSpec) -> str:
    """A tensor in one line of Markdown."""
    if spec.shape is None:
        return f"`{spec.name}`: {DATATYPES[spec.dtype]}, of any shape"
    lengths = ", ".join("?" if dim is None else str(dim) for dim in spec.shape)
    return f"`{spec.name}`: {DATATYPES[spec.dtype]} `[{lengths}]`"


def _tensor(spec: TensorSpec, data: Schema) -> Schema:
    return {
        "type": "object",
        "title": spec.name,
        "description": shown(spec),
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string", "enum": [spec.name]},
            "shape": _shape(spec),
            "datatype": {"type": "string", "enum": [DATATYPES[spec.dtype]]},
            "parameters": {"type": "object"},
            "data": data,
        },
    }


def _classes(spec: TensorSpec) -> Schema:
    """An output of which the largest values were asked for, or which tells what is in a picture."""
    text = {"type": "string", "description": "value:index or value:index:label"}
    schema = _tensor(spec, {"type": "array", "items": text})
    shape: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 2}
    schema["properties"] |= {"shape": shape, "datatype": {"type": "string", "enum": ["BYTES"]}}
    return schema | {"title": f"{spec.name} as classes"}


def _asked() -> Schema:
    """Parameters of an output that is asked for."""
    schema = _flags("binary_data")
    count = {"type": "integer", "minimum": 0, "description": "So many of its largest values instead of all."}
    schema["properties"]["classification"] = count
    return schema


def _shape(spec: TensorSpec) -> Schema:
    schema: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    if spec.shape is None:
        return schema | {"maxItems": MAX_RANK}
    schema |= {"minItems": len(spec.shape), "maxItems": len(spec.shape)}
    if _size(spec) is not None:
        schema["enum"] = [list(spec.shape)]
    return schema


def _data(spec: TensorSpec) -> Schema:
    """Row-major, flat or nested, as a request may have it."""
    flat = _flat(spec)
    if spec.shape is None:
        return {"type": "array", "items": {}, "description": "Row-major, flat or nested."}
    if len(spec.shape) < 2:
        return flat
    return {"anyOf": [flat, _nested(spec, spec.shape)], "description": "Row-major, flat or nested."}


def _flat(spec: TensorSpec) -> Schema:
    size = _size(spec)
    schema: Schema = {"type": "array", "items": _element(spec)}
    return schema | _length(size if size is None or size <= LARGE_ELEMENTS else None)


def _nested(spec: TensorSpec, shape: Sequence[Dim] | None) -> Schema:
    if shape is None:
        return {"description": "Nested as its shape is."}
    fixed = math.prod(dim for dim in shape if isinstance(dim, int))
    schema = _element(spec)
    for dim in reversed(shape):
        schema = {"type": "array", "items": schema, **(_length(dim) if fixed <= LARGE_ELEMENTS else {})}
    return schema


def _row(spec: TensorSpec) -> Sequence[Dim] | None:
    return None if spec.shape is None else spec.shape[1:]


def _size(spec: TensorSpec) -> int | None:
    """Number of elements; None where a length is open."""
    if spec.shape is None or not all(isinstance(dim, int) for dim in spec.shape):
        return None
    return math.prod(dim for dim in spec.shape if isinstance(dim, int))


def _length(dim: Dim) -> Schema:
    return {"minItems": dim, "maxItems": dim} if isinstance(dim, int) else {}


def _element(spec: TensorSpec) -> Schema:
    kind = kind_of(spec.dtype)
    if kind == "b":
        return {"type": "boolean"}
    if kind == "O":
        return {"type": "string"}
    if kind == "f":  # null is NaN
        bounds: dict[str, Schema] = {
            "float16": {"minimum": -65504, "maximum": 65504},
            "float32": {"format": "float"},
            "float64": {"format": "double"},
        }
        return {"type": "number", "nullable": True, **bounds.get(spec.dtype.name, {})}
    limits = np.iinfo(spec.dtype.name)
    schema: Schema = {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    schema["example"] = 0  # a page would show the maximum, and round it to one that does not fit
    if kind == "i" and spec.dtype.itemsize >= 4:
        schema["format"] = spec.dtype.name
    return schema


def _each(specs: Sequence[TensorSpec], schemas: list[Schema]) -> Schema:
    """A list that has each of them once, in any order; that none comes twice cannot be said."""
    items: Schema = {} if not schemas else schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"type": "array", "minItems": len(specs), "maxItems": len(specs), "items": items}


def _named(properties: dict[str, Schema]) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": list(properties)} if properties else {})


def _form(key: str, content: Schema) -> Schema:
    return {"type": "object", "required": [key], "properties": {key: content}}


def _flags(name: str) -> Schema:
    described = {"type": "boolean", "description": "Answer with bytes instead of JSON."}
    return {"type": "object", "properties": {name: described}}
