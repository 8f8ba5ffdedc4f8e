"""The key that a request presents, in the one of two headers that it may come in."""

from __future__ import annotations

from collections.abc import Iterable

from infold.errors import KeyRefusedError

__all__ = ["secret_of"]

SCHEME = b"bearer"
HOW = "send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"


def secret_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key, as it was sent.

    Where there is an `X-API-Key`, `Authorization` may be meant for somebody else on the way.

    Args:
        headers: Names in lower case, and values.

    Raises:
        KeyRefusedError: There is none, or more than one.
    """
    own: list[bytes] = []
    bearer: list[bytes] = []
    for name, value in headers:
        if name == b"x-api-key":
            own.append(value)
        elif name == b"authorization":
            bearer.append(value)
    given = own or bearer
    if not given:
        raise KeyRefusedError(f"a key is needed: {HOW}")
    if len(given) > 1:
        raise KeyRefusedError("there is more than one key")
    secret = own[0].strip() if own else _after_scheme(bearer[0])
    if not secret:
        raise KeyRefusedError(f"the key is empty: {HOW}")
    return secret


def _after_scheme(value: bytes) -> bytes:
    scheme, _, secret = value.strip().partition(b" ")
    if scheme.lower() != SCHEME:  # RFC 9110, 11.1: in whatever case
        raise KeyRefusedError(f"'Authorization' holds no key: {HOW}")
    return secret.strip()
