"""What is answered to a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["JSON", "REQUEST_ID", "Answer", "Headers", "Reply", "of_body"]

JSON = b"application/json"
REQUEST_ID = b"x-request-id"

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
