"""The schema of the routes that carry tensors, added by hand: FastAPI does not see them.

Every loaded model contributes an example that works when sent as it is.
"""

from __future__ import annotations

import math
from typing import Any

from infold.rest.codec import DATATYPES
from infold.serving import Catalogue, State
from infold.tensors import Signature, TensorSpec

__all__ = ["add_tensor_routes"]

EXAMPLE_ELEMENTS = 4096  # a larger example would freeze the page


def add_tensor_routes(schema: dict[str, Any], models: Catalogue) -> dict[str, Any]:
    """The OpenAPI document with infer and predict in it."""
    loaded = {
        name: servable.signature
        for name in models.models()
        for servable in models.versions(name)
        if servable.state is State.READY
    }
    infer_examples = {
        name: {"value": _infer_example(each)} for name, each in loaded.items() if _is_small(each)
    }
    rows = {
        name: {"value": {"instances": _nested(each.inputs[0])}}
        for name, each in loaded.items()
        if _is_small(each) and len(each.inputs) == 1
    }
    paths = schema["paths"]
    for operations in paths.values():  # FastAPI announces 422, which this service never answers
        for operation in operations.values():
            operation["responses"].pop("422", None)
    schema.pop("components", None)
    for prefix in ("", "/versions/{version}"):
        paths[f"/v2/models/{{model}}{prefix}/infer"] = {
            "post": _operation("v2", "Run a model", INFER_REQUEST, INFER_RESPONSE, prefix, infer_examples)
        }
        paths[f"/v1/models/{{model}}{prefix}:predict"] = {
            "post": _operation("v1", "Run a model, TF-Serving style", PREDICT, PREDICT, prefix, rows)
        }
    return schema


def _operation(
    tag: str,
    summary: str,
    request: dict[str, Any],
    response: dict[str, Any],
    prefix: str,
    examples: dict[str, Any],
) -> dict[str, Any]:
    names = ["model", "version"] if prefix else ["model"]
    content: dict[str, Any] = {"schema": request}
    if examples:
        content["examples"] = examples
    bodies = {"application/json": content}
    if tag == "v2":
        bodies["application/octet-stream"] = {"schema": OCTETS}
    answers: dict[str, Any] = {
        "200": {"description": "The outputs.", "content": {"application/json": {"schema": response}}}
    }
    for status, meaning in ERRORS.items():
        answers[status] = {
            "description": meaning,
            "content": {"application/json": {"schema": ERROR}},
        }
    return {
        "tags": [tag],
        "summary": summary,
        "operationId": f"{tag}_run{'_version' if prefix else ''}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ],
        "requestBody": {"required": True, "content": bodies},
        "responses": answers,
    }


def _is_small(signature: Signature) -> bool:
    return all(
        spec.shape is not None and spec.dtype.kind != "O" and math.prod(_lengths(spec)) <= EXAMPLE_ELEMENTS
        for spec in signature.inputs
    )


def _lengths(spec: TensorSpec) -> list[int]:
    return [dim if isinstance(dim, int) else 1 for dim in spec.shape or ()]


def _zero(spec: TensorSpec) -> bool | int | float:
    return {"b": False, "f": 0.0}.get(spec.dtype.kind, 0)


def _infer_example(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": spec.name,
                "shape": _lengths(spec),
                "datatype": DATATYPES[spec.dtype],
                "data": [_zero(spec)] * math.prod(_lengths(spec)),
            }
            for spec in signature.inputs
        ]
    }


def _nested(spec: TensorSpec) -> Any:
    value: Any = _zero(spec)
    for length in reversed(_lengths(spec)):
        value = [value] * length
    return value


ERRORS = {
    "400": "The request is malformed or does not fit the model; the message names the place.",
    "404": "No such model or version.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "503": "The model is not ready, or its queue is full.",
    "504": "The answer did not come in time.",
}
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": sorted(DATATYPES.values())},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}, "description": "Row-major, flat or nested."},
    },
}
INFER_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": TENSOR},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
    },
}
INFER_RESPONSE = {
    "type": "object",
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": TENSOR},
    },
}
OCTETS = {
    "type": "string",
    "format": "binary",
    "description": "The bytes of the only input; or, with the header Inference-Header-Content-Length, "
    "so much JSON and then the bytes of every input that has parameters.binary_data_size.",
}
PREDICT = {"type": "object"}
