"""The section `[shadow]` of a `model.toml`: which model a share of the requests is run on a second time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["ShadowConfig"]

NAMES = ("file", "version")


@dataclass(frozen=True, slots=True)
class ShadowConfig:
    """What a version is held against while it serves.

    Attributes:
        file: An ONNX file in the version's own folder; empty for none.
        version: Another version of the same model; 0 for none.
        share: Of the runs, that are repeated.
    """

    file: str = ""
    version: int = 0
    share: float = 0.01

    @property
    def is_named(self) -> bool:
        """There is something to hold it against."""
        return bool(self.file or self.version)

    def below(self, table: Any) -> ShadowConfig:
        """This, without the shadow it names where `table` names one: the nearer file decides."""
        if isinstance(table, Mapping) and any(key in table for key in NAMES):
            return replace(self, file="", version=0)
        return self

    def problem(self) -> tuple[str, str] | None:
        """The first key that makes no sense, and why, or None."""
        if self.file and (self.file in (".", "..") or any(each in self.file for each in "/\\\0")):
            return "file", f"{self.file!r} is not the name of a file in the version's folder"
        if self.version < 0:
            return "version", f"{self.version} is no version"
        if self.file and self.version:
            return "version", "a shadow is a file or a version, not both"
        if not math.isfinite(self.share) or not 0 < self.share <= 1:
            return "share", f"{self.share} is not above 0 and at most 1"
        return None
