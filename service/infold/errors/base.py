"""The root of every error, and the word that it is counted by."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["InfoldError", "reason_of"]


class InfoldError(Exception):
    """Root of everything infold raises on purpose; `str()` of it is one clear line.

    Attributes:
        reason: In a word, for whoever counts what was refused; every error of a request has its own.
        asked_of: Model and version that the request was for, once that is known to be one of ours.
    """

    reason: ClassVar[str] = "internal"
    asked_of: tuple[str, int | None] | None = None


def reason_of(failure: BaseException) -> str:
    """Why a request was not answered, in a word of ours; other libraries' errors may have a reason, too."""
    return failure.reason if isinstance(failure, InfoldError) else InfoldError.reason
