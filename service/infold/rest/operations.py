"""What all operations of the OpenAPI document that carry tensors have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infold.rest.model_schema import Schema
from infold.rest.v2 import HEADER_LENGTH

__all__ = [
    "JSON",
    "OCTETS",
    "OCTETS_SCHEMA",
    "PICTURES",
    "RESPONSES",
    "TENSOR_ALONE",
    "errors",
    "operation",
    "ref",
]

JSON, OCTETS = "application/json", "application/octet-stream"


def operation(
    tag: str,
    identity: str,
    summary: str,
    bodies: Mapping[str, Any],
    answer: Schema,
    *,
    description: str = "",
    parameters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A POST of tensors.

    Args:
        tag: Under which a page lists it.
        identity: Unlike that of any other operation.
        summary: In a few words.
        bodies: What may be sent, by content type; what a page shows first comes first.
        answer: Schema of the answer in JSON.
        description: Markdown.
        parameters: Of the path.
    """
    ok: dict[str, Any] = {"description": "The outputs.", "content": {JSON: {"schema": answer}}}
    if OCTETS in bodies:
        ok["headers"] = {HEADER_LENGTH: LENGTH_HEADER}
        ok["content"][OCTETS] = {"schema": OCTETS_ANSWER}
    found: dict[str, Any] = {"tags": [tag], "operationId": identity, "summary": summary}
    if description:
        found["description"] = description
    if parameters:
        found["parameters"] = list(parameters)
    return found | {
        "requestBody": {"required": True, "content": dict(bodies)},
        "responses": {"200": ok} | errors(*MEANINGS),
    }


def errors(*statuses: str) -> dict[str, Any]:
    """The answers of these statuses, by reference."""
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def ref(component: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{component}"}


MEANINGS = {
    "400": "The request is malformed or does not fit the model; the message names the place.",
    "403": "Models are not loaded, unloaded and rolled back by name here.",
    "404": "No such model or version.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is of a type or compressed in a way that is not served.",
    "503": "The model is not ready, its queue is full, or the service holds as much as it may.",
    "504": "The answer did not come in time, or would not.",
}
# What `errors` refers to.
RESPONSES = {
    status: {"description": meaning, "content": {JSON: {"schema": ref("Error")}}}
    for status, meaning in MEANINGS.items()
}
OCTETS_SCHEMA: Schema = {
    "type": "string",
    "format": "binary",
    "description": f"As much JSON as the header {HEADER_LENGTH} says and then the bytes of every input "
    "that has parameters.binary_data_size; where it says 0, the bytes of the only input.",
}
# What makes a file of numbers a request.
TENSOR_ALONE = {
    "name": HEADER_LENGTH,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 0},
    "example": 0,
    "description": "How much of the body is JSON: 0 for a body that is the bytes of the only input.",
}
_FILE: Schema = {"type": "string", "format": "binary"}
# Pictures instead of numbers, each a row: by itself, or several in a form.
PICTURES: dict[str, Any] = {
    "multipart/form-data": {"schema": {"type": "object", "properties": {"picture": _FILE}}},
    **{f"image/{kind}": {"schema": _FILE} for kind in ("jpeg", "png", "webp")},
}
OCTETS_ANSWER: Schema = {
    "type": "string",
    "format": "binary",
    "description": "JSON, then the bytes of every output that has parameters.binary_data_size.",
}
LENGTH_HEADER = {
    "schema": {"type": "integer"},
    "description": "How much of the body is JSON, where bytes follow it.",
}
