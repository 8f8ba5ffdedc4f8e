"""Requests that are refused before anything of them is read."""

from __future__ import annotations

from collections.abc import Sequence

from infold.errors.tensors import RequestError

__all__ = [
    "AccessError",
    "CertificateMissingError",
    "KeyRefusedError",
    "OtherPortError",
    "QuotaExceededError",
    "ScopeMissingError",
]


class AccessError(RequestError):
    """A request is refused for who sent it or where to, before anything of it is read."""

    reason = "forbidden"


class KeyRefusedError(AccessError):
    """There is no key, or none that holds."""

    reason = "unauthorized"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class ScopeMissingError(AccessError):
    """The key is good, but not for this.

    Attributes:
        key: Its name.
        scope: What it lacks.
        scopes: What it has.
    """

    def __init__(self, key: str, scope: str, scopes: Sequence[str]) -> None:
        self.key = key
        self.scope = scope
        self.scopes = tuple(scopes)
        super().__init__(f"this takes the scope '{scope}'; key '{key}' has {', '.join(scopes)}")


class QuotaExceededError(AccessError):
    """The key has been used more often than it may.

    Attributes:
        key: Its name.
        retry_after_s: Seconds after which it may be used again.
    """

    reason = "over_quota"

    def __init__(self, key: str, requests_per_s: float, retry_after_s: float) -> None:
        self.key = key
        self.requests_per_s = requests_per_s
        self.retry_after_s = retry_after_s
        super().__init__(f"key '{key}' may be used {requests_per_s:g} times a second, and has been")


class CertificateMissingError(AccessError):
    """The second port serves this to those alone who show a certificate."""

    reason = "no_certificate"

    def __init__(self) -> None:
        super().__init__("this takes a client certificate; health alone takes none on this port")


class OtherPortError(AccessError):
    """This is served, but not on the port that was asked."""

    reason = "other_port"

    def __init__(self, path: str, port: int) -> None:
        self.path = path
        self.port = port
        super().__init__(f"{path} is served on port {port}, not here")
