"""Trained model in, folded and proven ONNX out."""

import infold.fold  # noqa: F401 - first, so that onnx_ir is imported the quick way
from infold.convert.fold_report import comparison_json, proof_json, verdict
from infold.convert.framework_proof import FrameworkProof
from infold.convert.frontends.exported import Convention, Options
from infold.convert.frontends.formats import Format
from infold.convert.html_report import html_report
from infold.convert.in_memory import fold
from infold.convert.inspect import Inspection, NormView, inspect
from infold.convert.made_already import version_made_from
from infold.convert.moments import Momentum
from infold.convert.pipeline import (
    Conversion,
    Sampling,
    convert,
    convert_to_repository,
    verify,
    write_text,
)
from infold.convert.reestimate import Moved, Reestimation, moved_json, reestimate
from infold.convert.verify import Proof

__all__ = [
    "Convention",
    "Conversion",
    "Format",
    "FrameworkProof",
    "Inspection",
    "Momentum",
    "Moved",
    "NormView",
    "Options",
    "Proof",
    "Reestimation",
    "Sampling",
    "comparison_json",
    "convert",
    "convert_to_repository",
    "fold",
    "html_report",
    "inspect",
    "moved_json",
    "proof_json",
    "reestimate",
    "verdict",
    "verify",
    "version_made_from",
    "write_text",
]
