"""Triton's own texts and codes for what goes wrong, for clients that look at them.

Source: Triton's core and its HTTP server, as their tests assert them.
"""

from __future__ import annotations

from collections.abc import Sequence

from infold.errors import (
    DatatypeError,
    DeadlineExceededError,
    HalfInJsonError,
    InfoldError,
    MissingInputError,
    ModelControlError,
    ModelNotReadyError,
    QueueFullError,
    ShapeError,
    UnknownTensorError,
    UnsupportedMediaError,
)
from infold.rest.problems import status_of

__all__ = ["triton_words"]


def triton_words(failure: InfoldError, model: str | None) -> tuple[int, str]:
    """Status and text for an error, of a request for that model."""
    of = f"for model '{model}'"
    match failure:
        case ShapeError():
            shapes = f"Expected {_listed(failure.expected)}, got {_listed(failure.got)}"
            return 400, f"unexpected shape for input '{failure.name}' {of}. {shapes}"
        case DatatypeError():
            types = f"data-type is '{failure.got}', but model '{model}' expects '{failure.expected}'"
            return 400, f"inference input '{failure.name}' {types}"
        case UnknownTensorError():
            return 400, f"unexpected inference {failure.role} '{failure.name}' {of}"
        case MissingInputError():
            numbers = f"expected {len(failure.wanted)} inputs but got {len(failure.given)} inputs {of}"
            names = f"Got input(s) {_quoted(failure.given)}, but missing required input(s)"
            return 400, (
                f"{numbers}. {names} {_quoted(failure.missing)}. Please provide all required input(s)."
            )
        case HalfInJsonError():
            is_input = failure.role == "input"
            what = f"{'receiving' if is_input else 'sending'} {failure.datatype} data via JSON"
            where = f"input {failure.name}" if is_input else "output"
            return 400, f"{what} is not supported. Please use the binary data format for {where}"
        case ModelNotReadyError(is_of_version=True):
            which = f"'{failure.model}' version {failure.version}"
            return 503, f"Request for unknown model: {which} is not at ready state"
        case ModelNotReadyError():
            return 404, f"Request for unknown model: '{failure.model}' has no available versions"
        case QueueFullError():
            return 503, "Exceeds maximum queue size"
        case DeadlineExceededError():
            return 503, "Request timeout expired"
        case ModelControlError():
            return 503, "explicit model load / unload is not allowed if polling is enabled"
        case UnsupportedMediaError():
            return 501, str(failure)
        case _:
            return status_of(failure), str(failure)


def _listed(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _quoted(names: Sequence[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"
