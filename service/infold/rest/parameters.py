"""What the `parameters` of a request, an input or an output say.

Parameters are flat: strings, numbers, true or false. Those that infold does not
know are passed over, as the protocol wants; those that would change the answer
and are not served are refused.

Source: open-inference-protocol, "Parameters"; Triton's extension_parameters.md,
extension_binary_data.md and extension_classification.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infold.errors import InvalidInputError, MalformedBodyError

__all__ = [
    "OutputParameters",
    "RequestParameters",
    "binary_size",
    "output_parameters",
    "request_parameters",
]

MOST_US = 2**53
SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
SHARED_MEMORY = "shared_memory_region"


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """Of a request.

    Attributes:
        is_binary: Outputs come as bytes unless they say otherwise.
        timeout_s: Longest time to wait for a run, in seconds; None leaves it to the service.
    """

    is_binary: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class OutputParameters:
    """Of an output.

    Attributes:
        is_binary: It comes as bytes; None leaves it to the request.
        classes: So many of its largest values are wanted instead of all; 0 for all.
    """

    is_binary: bool | None = None
    classes: int = 0


def request_parameters(given: Mapping[str, Any] | None) -> RequestParameters:
    """What a request's own parameters say.

    Raises:
        MalformedBodyError: One is of the wrong type.
        InvalidInputError: One asks for what is not served.
    """
    if not given:
        return RequestParameters()
    _check_flat(given, "parameters")
    for key in SEQUENCE:
        if given.get(key) not in (None, 0, "", False):
            raise InvalidInputError(f"parameters.{key}", "sequences are not served")
    for key in given:
        if key.startswith("triton_"):
            raise InvalidInputError(f"parameters.{key}", "is a reserved parameter")
    timeout = _count(given, "timeout", "parameters", MOST_US)
    _count(given, "priority", "parameters", 2**64)  # all requests are equal here
    return RequestParameters(
        bool(_flag(given, "binary_data_output", "parameters")), timeout / 1e6 if timeout else None
    )


def binary_size(given: Mapping[str, Any] | None, place: str) -> int | None:
    """The number of bytes that an input has behind the JSON; None if it has none.

    Raises:
        MalformedBodyError, InvalidInputError: As `request_parameters`.
    """
    if not given:
        return None
    place = f"{place}.parameters"
    _check_flat(given, place)
    if SHARED_MEMORY in given:
        raise InvalidInputError(f"{place}.{SHARED_MEMORY}", "shared memory is not served")
    size = given.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise InvalidInputError(f"{place}.binary_data_size", f"{size!r} is no number of bytes")
    return size


def output_parameters(given: Mapping[str, Any] | None, place: str) -> OutputParameters:
    """What the parameters of a requested output say.

    Raises:
        MalformedBodyError, InvalidInputError: As `request_parameters`.
    """
    if not given:
        return OutputParameters()
    place = f"{place}.parameters"
    _check_flat(given, place)
    if SHARED_MEMORY in given:
        raise InvalidInputError(f"{place}.{SHARED_MEMORY}", "shared memory is not served")
    return OutputParameters(
        _flag(given, "binary_data", place), _count(given, "classification", place, 2**31 - 1)
    )


def _check_flat(given: Mapping[str, Any], place: str) -> None:
    for key, value in given.items():
        if value is not None and not isinstance(value, str | int | float):
            raise MalformedBodyError(f"{place}.{key}: must be a string, a number, true or false")


def _flag(given: Mapping[str, Any], key: str, place: str) -> bool | None:
    value = given.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise MalformedBodyError(f"{place}.{key}: must be true or false")


def _count(given: Mapping[str, Any], key: str, place: str, most: int) -> int:
    value = given.get(key)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value < most:
        raise InvalidInputError(f"{place}.{key}", f"{value!r} is no whole number from 0 to {most - 1}")
    return value
