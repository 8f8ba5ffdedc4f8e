"""What goes wrong with a model's files: read, proven, written, held against what it answered before."""

from __future__ import annotations

from os import PathLike

from infold.errors.base import InfoldError

__all__ = [
    "DisagreementError",
    "FrameworkError",
    "GoldenError",
    "NothingToProveError",
    "ProofError",
    "SamplesError",
    "SourceError",
    "TargetError",
]

Path = str | PathLike[str]


class SourceError(InfoldError):
    """A model file cannot be read, or is no model that infold can work with."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"{path}: {detail}")


class FrameworkError(SourceError):
    """A training framework failed on a source, or died.

    Attributes:
        log: The last lines it printed.
    """

    def __init__(self, path: Path, detail: str, log: str) -> None:
        self.log = log
        super().__init__(path, detail)


class TargetError(InfoldError):
    """A result cannot be written where it was asked for."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"{path}: {detail}")


class SamplesError(InfoldError):
    """Sample inputs do not fit the model they are meant for."""


class ProofError(InfoldError):
    """Folded and unfolded differ by more than rounding explains, or could not be compared.

    Attributes:
        site: Name of the first value that is off, or None where no run came that far.
    """

    def __init__(self, detail: str, site: str | None = None) -> None:
        self.detail = detail
        self.site = site
        super().__init__(detail)


class NothingToProveError(ProofError):
    """The unfolded side does not run, or gives nothing finite: there is nothing to compare with."""


class DisagreementError(InfoldError):
    """A model answers otherwise in larger runs, or on other threads."""

    def __init__(self, model: Path, detail: str) -> None:
        self.model = model
        self.detail = detail
        super().__init__(f"{model}: {detail}")


class GoldenError(InfoldError):
    """A version does not answer as its golden samples say, or they do not fit it; names the number."""

    def __init__(self, place: str, detail: str) -> None:
        self.place = place
        self.detail = detail
        super().__init__(f"{place}: {detail}")
