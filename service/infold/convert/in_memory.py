"""Folding from a script: a model in, the same kind of model out, and the report.

from infold.convert import fold
folded, report = fold(onnx.load("model.onnx"))
"""

from __future__ import annotations

from pathlib import Path
from typing import overload

import onnx

from infold.convert.fold_report import counted
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.pipeline import fold_source
from infold.convert.writing import folded_proto, write_model
from infold.fold import FoldReport

__all__ = ["fold"]


@overload
def fold(model: onnx.ModelProto) -> tuple[onnx.ModelProto, FoldReport]: ...


@overload
def fold(model: Path, destination: Path | None = None) -> tuple[Path, FoldReport]: ...


@overload
def fold(model: str, destination: Path | None = None) -> tuple[str, FoldReport]: ...


def fold(
    model: onnx.ModelProto | Path | str, destination: Path | None = None
) -> tuple[onnx.ModelProto | Path | str, FoldReport]:
    """Fold every norm that can be folded; nothing is proven (see `convert` for that).

    Args:
        model: A model in memory, or the path of one. It is left as it is.
        destination: For a path: where the folded file goes; by default beside it as
            `<stem>.folded.onnx`.

    Returns:
        The folded model as the type that was given, and what became of each norm.

    Raises:
        SourceError: The file cannot be used.
    """
    if isinstance(model, onnx.ModelProto):
        source = onnx_frontend.in_memory(model)
        _, folded, report = fold_source(source)
        return folded_proto(source, folded, f"{counted(report)}; not verified"), report
    path = Path(model)
    source = onnx_frontend.load(path)
    _, folded, report = fold_source(source)
    target = destination or path.with_name(f"{path.stem}.folded.onnx")
    write_model(source, folded, f"{counted(report)}; not verified", target)
    return type(model)(target), report
