"""How long a request may take, as its headers say."""

from __future__ import annotations

from collections.abc import Mapping

from infold.errors import InvalidInputError

__all__ = ["ENVOY", "OURS", "timeout_of"]

# Milliseconds, as gateways write them; 0 is none at all, as with a request's own parameter `timeout`.
OURS = b"x-request-timeout-ms"
ENVOY = b"x-envoy-expected-rq-timeout-ms"
MOST_DIGITS = 15


def timeout_of(headers: Mapping[bytes, bytes], most_s: float) -> float:
    """Seconds from its arrival to its answer: the least of what the service and its headers give.

    Args:
        headers: Of the request, names in lower case.
        most_s: What the service gives.

    Raises:
        InvalidInputError: A header says nothing that can be meant; names it.
    """
    if OURS in headers:
        most_s = min(most_s, _seconds(headers[OURS], OURS) or most_s)
    if ENVOY in headers:
        most_s = min(most_s, _seconds(headers[ENVOY], ENVOY) or most_s)
    return most_s


def _seconds(text: bytes, name: bytes) -> float:
    if not text.isdigit() or len(text) > MOST_DIGITS:
        shown = str(text[:40], "latin-1")
        raise InvalidInputError(name.decode(), f"'{shown}' is no whole number of milliseconds")
    return int(text) / 1000
