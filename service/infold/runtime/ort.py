"""The one import of onnxruntime, so that its absence is one clear error."""

from __future__ import annotations

from types import ModuleType

from infold.errors import RuntimeMissingError

__all__ = ["onnxruntime"]


def onnxruntime() -> ModuleType:
    """The onnxruntime module, imported on first use and quiet below errors.

    Raises:
        RuntimeMissingError: Neither the `cpu` nor the `gpu` extra is installed.
    """
    try:
        import onnxruntime as module  # noqa: PLC0415 - the first use pays, not every start
    except ImportError as missing:
        raise RuntimeMissingError from missing
    if not hasattr(module, "InferenceSession"):  # a leftover empty folder imports as a namespace
        raise RuntimeMissingError
    module.set_default_logger_severity(3)
    return module
