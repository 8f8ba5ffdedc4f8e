"""What is answered to a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

__all__ = ["JSON", "REQUEST_ID", "Answer", "Headers", "Reply", "of_body", "whole"]

JSON = b"application/json"
REQUEST_ID = b"x-request-id"

FIRST_LINES = {each.value: b"HTTP/1.1 %d %s\r\n" % (each, each.phrase.encode()) for each in HTTPStatus}

# Names in lower case.
Headers = list[tuple[bytes, bytes]]


def of_body(content_type: bytes, size: int) -> Headers:
    """What is said of any body: what it is, and how many bytes."""
    return [(b"content-type", content_type), (b"content-length", b"%d" % size)]


@dataclass(slots=True, eq=False)
class Reply:
    """An answer in parts, sent as they are.

    Attributes:
        parts: Of the body.
        content_type: Of all of it.
        headers: Beside content type and length.
        nulls: Values that JSON has no number for.
    """

    parts: Sequence[bytes | memoryview]
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()
    nulls: int = 0


# A status and what is answered with it.
Answer = tuple[int, Reply]


def whole(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | memoryview) -> bytes:
    """An answer in one piece, as it goes over the wire."""
    parts: list[bytes | memoryview] = [FIRST_LINES[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", body)
    return b"".join(parts)
