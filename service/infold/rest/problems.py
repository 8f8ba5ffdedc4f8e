"""The one table from what went wrong to what a caller is told.

Source: Open Inference Protocol v2, `{"error": "..."}`; a caller's mistake is 4xx, never 500.
"""

from __future__ import annotations

import math

import orjson

from infold.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineExceededError,
    InvalidInputError,
    MalformedBodyError,
    ModelNotFoundError,
    ModelNotReadyError,
    QueueFullError,
    RequestError,
    SessionError,
    UnsupportedMediaError,
)

__all__ = ["error_body", "headers_of", "status_of"]

STATUS: dict[type[Exception], int] = {
    InvalidInputError: 400,
    MalformedBodyError: 400,
    ModelNotFoundError: 404,
    BodyTimeoutError: 408,
    BodyTooLargeError: 413,
    UnsupportedMediaError: 415,
    ModelNotReadyError: 503,
    QueueFullError: 503,
    DeadlineExceededError: 504,
    # The tensors fit the signature, yet the graph cannot take them: an index out of range, say.
    SessionError: 400,
}


def status_of(failure: Exception) -> int:
    """The status for an error; 500 for one that is no caller's doing."""
    for kind in type(failure).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 400 if isinstance(failure, RequestError) else 500


def headers_of(failure: Exception) -> list[tuple[bytes, bytes]]:
    """Headers that go with an error."""
    if isinstance(failure, QueueFullError):
        return [(b"retry-after", str(math.ceil(failure.retry_after_s)).encode())]
    if isinstance(failure, ModelNotReadyError):
        return [(b"retry-after", b"1")]
    return []


def error_body(text: str) -> bytes:
    """The body of every error."""
    return orjson.dumps({"error": text})
