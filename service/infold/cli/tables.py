"""Plain aligned text: what the terminal shows of norms and proofs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infold.convert import FrameworkProof, Moved, NormView, Proof
    from infold.fold import FoldReport

__all__ = ["fold_table", "inspect_table", "moved_table", "numbers_table", "proof_table", "steps_table"]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, two spaces apart."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


def numbers_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of numbers behind a column of names: those to the right, these to the left."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for name, *numbers in (header, *rows):
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def fold_table(report: FoldReport) -> str:
    """Each norm: folded into what, or kept and why."""
    rows = [
        [d.full_name, d.outcome.value, d.why, d.at or "-", ", ".join(d.across) or "-"] for d in report.norms
    ]
    return aligned(["site", "outcome", "into / why", "at", "across"], rows) if rows else ""


def proof_table(proof: Proof) -> str:
    """Each compared value: measured error beside the bound it had to keep."""
    rows = []
    for kind, name, found in [
        *(("site", site.decision.full_name, site.comparison) for site in proof.sites),
        *(("body", f"{each.name} of {body.where}", each) for body in proof.bodies for each in body.outputs),
        *(("output", each.name, each) for each in proof.outputs),
    ]:
        rows.append(
            [
                kind,
                name,
                f"{found.max_abs:.2e}",
                f"{found.bound:.2e}",
                f"{found.relative:.1e}",
                "-" if found.cosine is None else f"{found.cosine:.9f}",
                "-" if found.argmax_agreement is None else f"{found.argmax_agreement:.0%}",
                "ok" if found.passed else "OFF",
            ]
        )
    header = ["value", "name", "max abs", "allowed", "relative", "cosine", "same class", ""]
    notes = [f"not compared on its own: {each.decision.full_name}: {each.why}" for each in proof.unseen]
    return "\n".join([aligned(header, rows), *notes])


def steps_table(steps: FrameworkProof | None) -> str:
    """Each output on its way from the framework to the folded model."""
    if steps is None:
        return ""
    header = ["output", "measured on", "framework -> unfolded", "framework -> folded", "allowed"]
    rows = [
        [each.name, each.measured_on, f"{each.unfolded:.1e}", f"{each.folded:.1e}", f"{each.allowed:.1e}"]
        for each in steps.outputs
    ]
    return aligned(header, rows)


def inspect_table(views: Sequence[NormView]) -> str:
    """Every norm's parameters and effect, then the warnings."""
    rows = []
    knows_momentum = any(view.norm is not None for view in views)
    is_calibrated = any(view.settled is not None for view in views)
    for view in views:
        facts = view.json()
        lost = "not recoverable" if view.decision.affine is not None else "-"
        rows.append(
            [
                facts["name"],
                facts["spelling"],
                "-" if facts["channels"] is None else str(facts["channels"]),
                lost if facts["epsilon"] is None else f"{facts['epsilon']:g}",
                *(_range(facts[key], lost) for key in ("gamma", "beta", "moving_mean", "moving_variance")),
                _range(facts["scale"], "-"),
                _range(facts["shift"], "-"),
                facts["producer"],
                "yes" if facts["would_fold"] else "no",
                facts["into_or_why"],
                facts["at"] or "-",
                *([_momentum(view)] if knows_momentum else []),
                *([_settled(view)] if is_calibrated else []),
            ]
        )
    header = "norm,spelling,channels,epsilon,gamma,beta,moving mean,moving variance,scale,shift"
    header += ",producer,folds,into / why,at"
    header += ",momentum" * knows_momentum + ",settled" * is_calibrated
    table = aligned(header.split(","), rows)
    notes = [f"warning: {view.decision.site}: {note}" for view in views for note in view.warnings]
    return "\n".join([table, *notes])


def moved_table(moved: Sequence[Moved]) -> str:
    """How far each norm's statistics have moved; the mean in old standard deviations."""
    rows = []
    for each in moved:
        shift, ratio = each.mean_shift, each.variance_ratio
        rows.append(
            [
                each.name,
                str(len(shift)),
                str(each.count),
                f"{shift.min():.3g} .. {shift.max():.3g}",
                f"{ratio.min():.3g} .. {ratio.max():.3g}",
            ]
        )
    header = ["norm", "channels", "numbers seen", "mean moved by (deviations)", "variance, new over old"]
    return aligned(header, rows)


def _settled(view: NormView) -> str:
    """The share of the way, and how far the mean is off where that is much."""
    if view.settled is None or view.settled.share is None:
        return "-"
    return f"{view.settled.share:.0%}, mean off by {view.settled.apart:.2g} sd"


def _momentum(view: NormView) -> str:
    """With the share it counts: Keras' is of the old statistics, PyTorch's of the new."""
    if view.norm is None or view.norm.momentum is None:
        return "-"
    return f"{view.norm.momentum:g} of the {view.norm.convention}"


def _range(pair: list[float | str] | None, otherwise: str) -> str:
    if pair is None:
        return otherwise
    low, high = (each if isinstance(each, str) else f"{each:.4g}" for each in pair)
    return f"{low} .. {high}"
