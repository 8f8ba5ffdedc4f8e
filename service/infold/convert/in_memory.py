"""Folding from a script: a model in, a folded one out, and the report.

from infold.convert import fold
folded, report = fold(onnx.load("model.onnx"))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, overload, runtime_checkable

import onnx

from infold.convert.fold_report import counted
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.frontends.exported import Options
from infold.convert.frontends.source import Source, open_source
from infold.convert.layers import Layer, find_layers
from infold.convert.norms import with_parameters
from infold.convert.pipeline import fold_source
from infold.convert.writing import folded_proto, write_model
from infold.errors import SourceError
from infold.fold import FoldReport

__all__ = ["KerasModel", "fold"]


@runtime_checkable
class KerasModel(Protocol):
    """What is needed of a Keras model: that it can save itself."""

    def save(self, filepath: str) -> object:
        """Write a `.keras` file."""

    def get_config(self) -> object:
        """Its layers, as Keras describes them."""


@overload
def fold(
    model: onnx.ModelProto | KerasModel, *, options: Options | None = None
) -> tuple[onnx.ModelProto, FoldReport]: ...


@overload
def fold(
    model: Path, destination: Path | None = None, *, options: Options | None = None
) -> tuple[Path, FoldReport]: ...


@overload
def fold(
    model: str, destination: Path | None = None, *, options: Options | None = None
) -> tuple[str, FoldReport]: ...


def fold(
    model: onnx.ModelProto | KerasModel | Path | str,
    destination: Path | None = None,
    *,
    options: Options | None = None,
) -> tuple[onnx.ModelProto | Path | str, FoldReport]:
    """Fold every norm that can be folded; nothing is proven (see `convert` for that).

    Args:
        model: A model in memory (ONNX or Keras), or the path of any source. It is left as it is.
        destination: For a path: where the folded file goes; by default beside it as
            `<stem>.folded.onnx`.
        options: How to read a source that does not say everything itself.

    Returns:
        The folded model (an ONNX model for a model in memory, a path of the type given for a
        path), and what became of each norm.

    Raises:
        SourceError: The model cannot be used.
    """
    with _opened(model, options) as source:
        layers: tuple[Layer, ...] = ()
        if source.framework is not None:
            source, layers, _ = find_layers(source)
        _, folded, report = fold_source(source)
        if source.framework is not None:
            report = with_parameters(report, source.framework, layers)
        outcome = f"{counted(report)}; not verified"
        if not isinstance(model, Path | str):
            return folded_proto(source, folded, outcome), report
        path = Path(model)
        target = destination or path.with_name(f"{path.stem}.folded.onnx")
        write_model(source, folded, outcome, target)
    return type(model)(target), report


@contextmanager
def _opened(model: object, options: Options | None) -> Iterator[Source]:
    if isinstance(model, onnx.ModelProto):
        yield onnx_frontend.in_memory(model)
    elif isinstance(model, Path | str):
        with open_source(model, options) as source:
            yield source
    elif isinstance(model, KerasModel):
        with TemporaryDirectory(prefix="infold-keras-") as folder:
            path = Path(folder) / "model.keras"
            model.save(str(path))
            with open_source(path, options) as source:
                yield source
    else:
        kind = type(model).__name__
        raise SourceError(
            kind, "no model that can be folded in memory: an onnx.ModelProto, a Keras model or a path"
        )
