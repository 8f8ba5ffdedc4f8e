"""The one table from what went wrong to what a caller is told.

Source: Open Inference Protocol v2, `{"error": "..."}`; a caller's mistake is 4xx, never 500.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import orjson

from infold.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    CertificateMissingError,
    DeadlineExceededError,
    InfoldError,
    InvalidInputError,
    KeyRefusedError,
    LoadError,
    MalformedBodyError,
    ModelControlError,
    ModelNotFoundError,
    ModelNotReadyError,
    NotServedError,
    OtherPortError,
    OverloadedError,
    QueueFullError,
    QueueTooLongError,
    QuotaExceededError,
    RequestError,
    ScopeMissingError,
    SessionError,
    UnsupportedCodingError,
    UnsupportedMediaError,
)
from infold.rest.reply import JSON, of_body, whole

__all__ = [
    "Problems",
    "error_body",
    "headers_of",
    "last_words",
    "our_words",
    "status_of",
    "unknown_body",
]

# Status and text for an error, of a request for that model.
Problems = Callable[[InfoldError, str | None], tuple[int, str]]

LONGEST_TEXT = 1000
STATUS: dict[type[Exception], int] = {
    InvalidInputError: 400,
    MalformedBodyError: 400,
    LoadError: 400,
    KeyRefusedError: 401,
    ModelControlError: 403,
    ScopeMissingError: 403,
    CertificateMissingError: 403,
    ModelNotFoundError: 404,
    OtherPortError: 404,
    BodyTimeoutError: 408,
    BodyTooLargeError: 413,
    UnsupportedMediaError: 415,
    QuotaExceededError: 429,
    NotServedError: 501,
    ModelNotReadyError: 503,
    QueueFullError: 503,
    OverloadedError: 503,
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


def our_words(failure: InfoldError, model: str | None) -> tuple[int, str]:
    """Status and text as infold says them."""
    del model
    return status_of(failure), str(failure)


def last_words(status: int, text: str, *headers: tuple[bytes, bytes]) -> bytes:
    """A whole answer that no app has given, behind which the connection is closed."""
    body = error_body(text)
    return whole(status, [*of_body(JSON, len(body)), (b"connection", b"close"), *headers], body)


def headers_of(failure: Exception) -> list[tuple[bytes, bytes]]:
    """Headers that go with an error."""
    if isinstance(failure, KeyRefusedError):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(failure, QueueFullError | OverloadedError | QueueTooLongError | QuotaExceededError):
        return [(b"retry-after", str(math.ceil(failure.retry_after_s)).encode())]
    if isinstance(failure, ModelNotReadyError):
        return [(b"retry-after", b"1")]
    if isinstance(failure, UnsupportedCodingError):
        return [(b"accept-encoding", ", ".join(failure.served).encode())]  # RFC 9110, 15.5.16
    return []


def error_body(text: str) -> bytes:
    """The body of every error; what a caller has sent comes back at most in part."""
    if len(text) > LONGEST_TEXT:
        text = f"{text[: LONGEST_TEXT // 2]} ... {text[-LONGEST_TEXT // 2 :]}"
    return orjson.dumps({"error": text.encode("utf-8", "replace").decode()})


def unknown_body(identity: str) -> bytes:
    """The body for what nobody expected: where it is told, and nothing of what it is."""
    return error_body(f"internal error; the server's log has it under request id {identity}")
