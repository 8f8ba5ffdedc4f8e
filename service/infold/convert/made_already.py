"""Is the newest version of a model made from this very source already?

For whoever converts at every start, such as a job of `docker compose up`. Only
files are compared, by their digest in the version's report, and infold's own
version: other options or samples are no reason to convert again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infold import __version__
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.frontends.exported import Options
from infold.convert.frontends.formats import Format, recognise
from infold.convert.frontends.source import digest_of
from infold.convert.pipeline import is_version_name
from infold.errors import ConfigError

__all__ = ["version_made_from"]

FLAG = "--if-changed"


def version_made_from(
    source: Path | str, repository: Path, name: str, options: Options | None
) -> tuple[Path, dict[str, Any]] | None:
    """The newest version's model and its report if it is made from this source, else None.

    Args:
        source: As `convert_to_repository` takes it.
        repository: The folder of models.
        name: Of the model.
        options: How the source is read.

    Raises:
        SourceError: The source cannot be read.
        ConfigError: It is code, of which a digest tells nothing.
    """
    options = options or Options()
    found = options.format or recognise(str(source))
    if found is Format.MODULE:
        raise ConfigError(FLAG, "is for files; whether code has changed nobody can tell")
    newest = _newest(repository / name)
    if newest is None:
        return None
    report = _report(newest)
    if report is None or report["infold"] != __version__:
        return None
    is_onnx = found is Format.ONNX
    digest = onnx_frontend.load(Path(source)).sha256 if is_onnx else digest_of(str(source), options)
    return (newest / "model.onnx", report) if report["source"]["sha256"] == digest else None


def _newest(model: Path) -> Path | None:
    """The version with the highest number that has a model."""
    if not model.is_dir():
        return None
    versions = [each for each in model.iterdir() if is_version_name(each.name)]
    newest = max(versions, key=lambda each: int(each.name), default=None)
    return newest if newest is not None and (newest / "model.onnx").is_file() else None


def _report(version: Path) -> dict[str, Any] | None:
    """The report of a conversion, or None where there is none that could be believed."""
    try:
        report = json.loads((version / "model.fold-report.json").read_text(encoding="utf-8"))
        return report if isinstance(report["source"]["sha256"], str) and report["infold"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
