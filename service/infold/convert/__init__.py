"""Trained model in, folded and proven ONNX out."""

import infold.fold  # noqa: F401 - first, so that onnx_ir is imported the quick way
from infold.convert.fold_report import comparison_json, proof_json, verdict
from infold.convert.html_report import html_report
from infold.convert.in_memory import fold
from infold.convert.inspect import NormView, inspect
from infold.convert.pipeline import (
    Conversion,
    Sampling,
    convert,
    convert_to_repository,
    verify,
    write_text,
)
from infold.convert.verify import Proof

__all__ = [
    "Conversion",
    "NormView",
    "Proof",
    "Sampling",
    "comparison_json",
    "convert",
    "convert_to_repository",
    "fold",
    "html_report",
    "inspect",
    "proof_json",
    "verdict",
    "verify",
    "write_text",
]
