"""What lies in a version's folder: sizes, digests, weights, golden samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from infold.doctor.findings import shown_bytes
from infold.errors import ConfigError, InfoldError, SessionError
from infold.runtime.digests import Digests
from infold.runtime.golden import read_golden
from infold.runtime.model_files import check_files
from infold.serving import ModelVersion
from infold.serving.preparing import checked_weights

__all__ = ["Contents", "contents_of"]

SHOWN_DIGITS = 12
MOST_REPORT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a version.

    Attributes:
        bytes: Of its graph and weights.
        sha256: Of its graph; empty where that cannot be read.
        weight_files: Names of files with weights.
        golden_rows: Samples with answers; None without any.
        doubt: What is strange, though it stops nothing.
        remedy: What to do about that.
        problem: What it would fail with before it is opened.
    """

    bytes: int = 0
    sha256: str = ""
    weight_files: tuple[str, ...] = ()
    golden_rows: int | None = None
    doubt: str = ""
    remedy: str = ""
    problem: InfoldError | None = None

    @property
    def text(self) -> str:
        """In a few words."""
        if self.problem is not None:
            return "its files are not in order"
        golden = (
            "no golden samples" if self.golden_rows is None else f"golden samples of {self.golden_rows} rows"
        )
        weights = f" with weights in {len(self.weight_files)} files" if self.weight_files else ""
        return f"{shown_bytes(self.bytes)}{weights}, sha256 {self.sha256[:SHOWN_DIGITS]}, {golden}"

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "bytes": self.bytes,
            "sha256": self.sha256,
            "weight_files": list(self.weight_files),
            "golden_rows": self.golden_rows,
        }


def contents_of(version: ModelVersion) -> Contents:
    """What lies there; whatever is wrong with it is a part of that."""
    try:
        check_files(version.path, root=version.root)
        weights = checked_weights(version)
        files = [version.path, *(version.path.parent / name for name in weights)]
        size = sum(each.stat().st_size for each in files)
        sha256 = Digests(None).of(version.path).sha256
        golden = read_golden(version.path, root=version.root)
    except (SessionError, ConfigError) as failure:
        return Contents(problem=failure)
    except (OSError, ValueError) as failure:
        return Contents(
            problem=SessionError(str(version.path), getattr(failure, "strerror", "") or str(failure))
        )
    rows = None
    if golden is not None and golden.outputs:
        first = next(iter(golden.outputs.values()))
        rows = first.shape[0] if first.ndim else 1
    doubt = _doubt(version, sha256)
    remedy = "convert it anew, or take the report away if the file was changed on purpose"
    return Contents(size, sha256, weights, rows, doubt, remedy if doubt else "")


def _doubt(version: ModelVersion, sha256: str) -> str:
    """The report beside it is about another file; empty if not, or if there is none to be read."""
    path = version.path.with_suffix(".fold-report.json")
    try:
        if path.stat().st_size > MOST_REPORT_BYTES:
            return ""
        told = json.loads(path.read_bytes())["result"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return (
        "" if told == sha256 else f"{path.name} is about another file, of sha256 {str(told)[:SHOWN_DIGITS]}"
    )
