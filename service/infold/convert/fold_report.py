"""The fold report as JSON: an interface, versioned, with digests of what went in and came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx

from infold import __version__
from infold.convert.comparison import Comparison
from infold.convert.framework_proof import FrameworkProof
from infold.convert.frontends.exported import Framework
from infold.convert.layers import Layer
from infold.convert.proof import Proof, SiteProof
from infold.convert.serving_session import ServingProof
from infold.fold import Decision, FoldReport
from infold.runtime import versions

__all__ = [
    "SCHEMA_VERSION",
    "comparison_json",
    "counted",
    "framework_json",
    "proof_json",
    "report_json",
    "verdict",
]

SCHEMA_VERSION = 1


def verdict(report: FoldReport, proof: Proof | None) -> str:
    """The last line of the table: what was folded, and how sure that is."""
    if proof is None:
        return f"{counted(report)}; not verified"
    what = "verified" if proof.passed else "FAILED"
    return f"{counted(report)}; {what} on {proof.rows} samples, max relative error {proof.worst_relative:.1e}"


def counted(report: FoldReport) -> str:
    """How many norms there are, and what became of them."""
    if not report.norms:
        return "no norms found"
    return f"{len(report.folded)} of {len(report.norms)} folded, {len(report.kept)} kept"


def report_json(
    report: FoldReport,
    proof: Proof | None,
    *,
    source: dict[str, Any],
    result: dict[str, Any],
    serving: ServingProof | None = None,
    framework: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything a machine may want to know of one conversion.

    Args:
        report: The decisions.
        proof: The proof, or None where it was skipped.
        source: `path` and `sha256` of the unfolded file.
        result: The same of the folded one.
        serving: How the file behaves when served, where that was tried.
        framework: From `framework_json`.
        notes: What the user should know of the source.
    """
    sites = []
    for decision in report.decisions:
        entry = _decision_json(decision)
        found = [each for each in proof.sites if each.decision is decision] if proof else []
        worst = max(found, key=lambda each: each.comparison.exceeded, default=None)
        entry["proof"] = _site_json(worst) if worst else None
        sites.append(entry)
    return {
        "schema_version": SCHEMA_VERSION,
        "infold": __version__,
        "versions": {**versions(), "onnx": onnx.__version__},
        "source": source,
        "result": result,
        "verdict": verdict(report, proof),
        "norms": len(report.norms),
        "folded": len(report.folded),
        "kept": len(report.kept),
        "nodes_before": report.nodes_before,
        "nodes_after": report.nodes_after,
        "sites": sites,
        "proof": proof_json(proof),
        "serving": _serving_json(serving),
        "framework": framework,
        "notes": list(notes),
    }


def framework_json(
    framework: Framework | None, steps: FrameworkProof | None, layers: Sequence[Layer]
) -> dict[str, Any] | None:
    """What the framework's model holds, and the error at each step from its own answer on."""
    if framework is None:
        return None
    shown = {layer.norm for layer in layers if layer.value}
    outputs = [{**asdict(each), "passed": each.passed} for each in steps.outputs] if steps else []
    return {
        "name": framework.name,
        "format": framework.format.value,
        "norms": len(framework.norms),
        "not_found_in_graph": [n.layer for i, n in enumerate(framework.norms) if i not in shown],
        "outputs": [{key: _number(value) for key, value in each.items()} for each in outputs],
        "layers": [
            {"layer": each.name, "value": each.value or None, "error": _number(each.error)} for each in layers
        ],
    }


def _site_json(site: SiteProof) -> dict[str, Any]:
    return {
        "verdict": site.verdict,
        "fan_in": site.fan_in,
        **comparison_json(site.comparison),
        "folded_error": site.folded_error,
        "unfolded_error": site.unfolded_error,
    }


def proof_json(proof: Proof | None) -> dict[str, Any]:
    """A proof without its sites, which stand beside their norms."""
    if proof is None:
        return {"verified": False, "why": "skipped by --no-verify"}
    return {
        "verified": proof.passed,
        "oracle": proof.oracle,
        "samples": proof.rows,
        "outputs": [comparison_json(each) for each in proof.outputs],
        "norms_closer_to_float64": proof.closer_to_truth[0],
        "norms_held_against_float64": proof.closer_to_truth[1],
        "bodies": [
            {
                "in": each.where,
                "oracle": each.oracle,
                "drawn": list(each.drawn),
                "outputs": [comparison_json(output) for output in each.outputs],
            }
            for each in proof.bodies
        ],
        "not_observable": [
            {"site": each.decision.site, "in": each.decision.where or None, "why": each.why}
            for each in proof.unseen
        ],
    }


def _serving_json(serving: ServingProof | None) -> dict[str, Any] | None:
    if serving is None:
        return None
    return {
        "disabled_optimizers": list(serving.disabled_optimizers),
        "relative_error_with_them": serving.without_them,
        "outputs": [comparison_json(each) for each in serving.outputs],
    }


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """One comparison; JSON has no infinity, so what is not finite is written as a word."""
    facts = {key: _number(value) for key, value in asdict(comparison).items()}
    return {"value": facts.pop("name"), "passed": comparison.passed, **facts}


def _number(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _decision_json(decision: Decision) -> dict[str, Any]:
    affine = decision.affine
    return {
        "site": decision.site,
        "layer": decision.layer or None,
        "in": decision.where or None,
        "spelling": decision.spelling,
        "is_norm": decision.is_norm,
        "producer": decision.producer,
        "outcome": decision.outcome.value,
        "rule": decision.rule or None,
        "into": decision.into or None,
        "into_op": decision.into_op or None,
        "across": list(decision.across),
        "copied": list(decision.copied),
        "refusals": [
            {"rule": r.rule, "reason": r.reason.value, "at": r.at, "detail": r.detail}
            for r in decision.refusals
        ],
        "channels": affine.channels if affine else None,
        "scale": _range(affine.scale) if affine else None,
        "shift": _range(affine.shift) if affine else None,
    }


def _range(numbers: np.ndarray[Any, Any]) -> list[float]:
    return [float(numbers.min()), float(numbers.max())]
