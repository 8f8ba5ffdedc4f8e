"""The one import of onnxruntime, so that its absence is one clear error."""

from __future__ import annotations

from types import ModuleType
from typing import cast

from infold.errors import RuntimeMissingError

__all__ = ["ERROR", "FATAL", "onnxruntime"]

# onnxruntime's log levels. What it logs as an error it raises as well, and a caller's mistake
# must not write lines that are no JSON into a server's log.
ERROR, FATAL = 3, 4


def onnxruntime() -> ModuleType:
    """The onnxruntime module, imported on first use and quiet below errors.

    Raises:
        RuntimeMissingError: Neither the `cpu` nor the `gpu` extra is installed.
    """
    try:
        import onnxruntime as module
    except ImportError as missing:
        raise RuntimeMissingError from missing
    if not hasattr(module, "InferenceSession"):  # a leftover empty folder imports as a namespace
        raise RuntimeMissingError
    module.set_default_logger_severity(FATAL)
    return cast(ModuleType, module)
