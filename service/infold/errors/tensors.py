"""Tensors of a request that do not fit the model, each with its place."""

from __future__ import annotations

from collections.abc import Sequence

from infold.errors.base import InfoldError

__all__ = [
    "DatatypeError",
    "HalfInJsonError",
    "InvalidInputError",
    "MissingInputError",
    "RequestError",
    "ShapeError",
    "UnknownTensorError",
]


class RequestError(InfoldError):
    """Anything that a caller of the service can get wrong, or meet through no fault of theirs."""


class InvalidInputError(RequestError):
    """The tensors of a request do not fit the model's signature.

    Attributes:
        place: Where in the request, in the wire's own words (`inputs[0].data[7]`).
    """

    reason = "invalid_input"

    def __init__(self, place: str, detail: str) -> None:
        self.place = place
        self.detail = detail
        super().__init__(f"{place}: {detail}")


class UnknownTensorError(InvalidInputError):
    """A request names a tensor that the model does not have.

    Attributes:
        role: `input` or `output`.
    """

    def __init__(self, place: str, role: str, name: str, known: Sequence[str]) -> None:
        self.role = role
        self.name = name
        have = ", ".join(f"'{each}'" for each in known)
        super().__init__(f"{place}.name", f"the model has no {role} '{name}'; it has {have}")


class MissingInputError(InvalidInputError):
    """A request does not give every input of the model."""

    def __init__(self, wanted: Sequence[str], given: Sequence[str]) -> None:
        self.wanted = wanted
        self.given = given
        self.missing = [name for name in wanted if name not in given]
        super().__init__("inputs", f"'{self.missing[0]}' is missing")


class DatatypeError(InvalidInputError):
    """An input is of another datatype than the model's; both in the wire's words."""

    def __init__(self, place: str, name: str, expected: str, got: str) -> None:
        self.name = name
        self.expected = expected
        self.got = got
        super().__init__(f"{place}.datatype", f"{got} given, the model takes {expected}")


class ShapeError(InvalidInputError):
    """An input is of another shape than the model's, in which -1 is any length."""

    def __init__(self, place: str, name: str, expected: Sequence[int], got: Sequence[int]) -> None:
        self.name = name
        self.expected = expected
        self.got = got
        detail = f"shape {list(got)} given, the model takes {list(expected)}"
        super().__init__(f"{place}.shape", detail)


class HalfInJsonError(InvalidInputError):
    """A tensor of 16-bit floats comes or would go as JSON, where that is not allowed.

    Attributes:
        role: `input` or `output`.
    """

    def __init__(self, place: str, role: str, name: str, datatype: str) -> None:
        self.role = role
        self.name = name
        self.datatype = datatype
        super().__init__(place, f"{role} '{name}' of {datatype} has no JSON here; bytes have")
