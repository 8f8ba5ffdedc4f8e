"""Imports onnx_ir without sympy, which takes longer to import than most models take to fold.

onnx_ir computes with symbolic lengths (`N + 1`) through sympy; folding only compares them by
name. So sympy, and the one module that asks it for something while it is imported, get the
standard library's lazy loader: they are executed when first asked for anything, and work as
ever. Should onnx_ir ask earlier, or have been imported already, this changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

__all__ = ["deferred"]


class _Deferring:
    """Finds the named modules where Python would, and leaves executing them for later."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where the module is; None for any other, and for what the usual path does not hold."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self._names else None
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = LazyLoader(spec.loader)  # type: ignore[arg-type] # a Loader
            return spec
        return None


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Modules of these names that are imported inside are executed when they are first used."""
    finder = _Deferring(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with deferred("sympy", "onnx_ir._symbolic_shapes"):
    import onnx_ir  # noqa: F401 - while sympy is held back
