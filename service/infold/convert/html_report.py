"""The fold report as one self-contained page for a person: no script, no network.

Reads the same decisions and proof as the JSON report, so the two never differ.
"""

from __future__ import annotations

import math
from html import escape

import numpy as np

from infold.convert.fold_report import verdict
from infold.convert.framework_proof import Steps
from infold.convert.pipeline import Conversion
from infold.convert.proof import Proof
from infold.fold import Decision, Outcome, Reason
from infold.fold.affine import F64

__all__ = ["html_report"]

REMEDIES = {
    Reason.GRAPH_INPUT: "Nothing in front of it can absorb it. Nothing is wrong.",
    Reason.GRAPH_OUTPUT: "Callers see a value that would have to change. Drop the output if nobody needs it.",
    Reason.SHARED_OUTPUT: "Somebody else reads the value in front of it. Put the norm before the fork.",
    Reason.CAPTURED_BY_SUBGRAPH: "Producer and norm are on two sides of an If, Loop or Scan. Move one over.",
    Reason.NOT_CONSTANT: "A weight or a statistic is not fixed. Export parameters as plain initializers.",
    Reason.TRAINING_MODE: "It uses the statistics of each batch. Export the model for inference.",
    Reason.AXIS_MISMATCH: "Its channels lie on another axis than the operator's; equal lengths prove nothing",
    Reason.UNKNOWN_SHAPE: "Where the channels lie depends on an open shape. Export with shapes.",
    Reason.BLOCKED_BY_OP: "The operator named lets no affine through.",
    Reason.ZERO_PADDING: "A shift in front of padding would have to reach it. Place the norm behind.",
    Reason.SCATTERED_BORDER: "A transposed convolution takes no shift in front. Place the norm behind it.",
    Reason.NEGATIVE_SCALE: "An operator in between keeps order, a negative scale turns it round.",
    Reason.SHIFT_NOT_MOVABLE: "An operator in between lets a scale through, but no shift.",
    Reason.COSTS_MORE: "Correct, but the graph would have more operators than before.",
    Reason.QUANTIZED: "Integer weights take a positive scale for each output only. Fold before quantizing.",
    Reason.INVALID_STATISTICS: "The parameters make no sense; see the channel named.",
    Reason.NOT_REPRESENTABLE: "Folded weights would leave the range of their type. Fold in float32 first.",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #66707c; --line: #dfe4ea; --paper: #fff;
  --good: #1a7f5a; --bad: #b3261e; --bar: #2f6fb3; --bound: #c9d6e6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #98a3ae; --line: #303941;
  --paper: #14191e; --good: #57c79a; --bad: #ff8a80; --bar: #6ea8e8; --bound: #33465c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; }
.verdict { font-size: 1.6rem; font-weight: 600; margin: .4rem 0 1rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; padding: 0; list-style: none; }
.facts b { display: block; font-size: 1.15rem; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: middle; } th { color: var(--soft); font-weight: 500; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; } a { color: var(--bar); } dt { font-weight: 600; } dd { margin: 0 0 .6rem; }
"""


def html_report(conversion: Conversion, sizes: tuple[int, int]) -> str:
    """The whole page.

    Args:
        conversion: A finished conversion.
        sizes: Bytes of the unfolded and of the folded file.
    """
    report, proof = conversion.report, conversion.proof
    good = proof is not None and proof.passed
    title = f"{conversion.json['source']['path']}: batch norm folded"
    parts = [
        _heading(conversion),
        f'<p class="verdict {"good" if good else "soft"}">{escape(verdict(report, proof))}</p>',
        _notes(conversion.notes),
        _facts(conversion, sizes),
        _errors(conversion) if proof is not None else "",
        _distributions(report.norms),
        _table(report.norms),
        _reasons(report.kept),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _heading(conversion: Conversion) -> str:
    name, version = conversion.json["source"]["path"], conversion.json["infold"]
    return f'<h1>{escape(name)} <span class="soft">folded by infold {escape(version)}</span></h1>'


def _notes(notes: tuple[str, ...]) -> str:
    return "".join(f"<p>{escape(note)}.</p>" for note in notes)


def _first_step(conversion: Conversion) -> tuple[Steps, ...]:
    """The output that is furthest off, if a framework has answered too."""
    steps = conversion.framework.outputs if conversion.framework else ()
    return tuple(sorted(steps, key=lambda each: each.folded)[-1:])


def _facts(conversion: Conversion, sizes: tuple[int, int]) -> str:
    report, proof = conversion.report, conversion.proof
    facts = []
    if framework := conversion.json["framework"]:
        facts.append(("read by", framework["name"]))
        facts += [("framework to folded", f"{each.folded:.1e}") for each in _first_step(conversion)]
    facts += [
        ("operators", f"{report.nodes_before} → {report.nodes_after}"),
        ("file", f"{_bytes(sizes[0])} → {_bytes(sizes[1])}"),
        ("norms folded", f"{len(report.folded)} of {len(report.norms)}"),
    ]
    if proof is not None:
        closer, known = proof.closer_to_truth
        facts.append(("proven on", f"{proof.rows} samples"))
        facts.append(("oracle", proof.oracle.split(",")[0]))
        if known:
            facts.append(("folded at least as close to float64", f"{closer} of {known}"))
    if conversion.serving is not None and conversion.serving.disabled_optimizers:
        facts.append(("optimizers to leave out", ", ".join(conversion.serving.disabled_optimizers)))
    items = "".join(
        f"<li><b>{escape(value)}</b><span class=soft>{escape(name)}</span></li>" for name, value in facts
    )
    return f'<ul class="facts">{items}</ul>'


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


# -- error beside bound ---------------------------------------------------------------------------


def _framework_errors(conversion: Conversion) -> dict[str, str]:
    """How far each layer and output of the export is from what the framework gave, by name."""
    if conversion.framework is None:
        return {}
    layers = {each.name: f"{each.error:.1e}" for each in conversion.framework.layers}
    return layers | {f"output {each.name}": f"{each.unfolded:.1e}" for each in conversion.framework.outputs}


def _errors(conversion: Conversion) -> str:
    """One line a norm on a logarithmic axis: what was measured inside what is allowed."""
    assert conversion.proof is not None
    found = [(site.decision.full_name, site.comparison) for site in conversion.proof.sites]
    for body in conversion.proof.bodies:
        found += [(f"output {each.name} of {body.where}", each) for each in body.outputs]
    found += [(f"output {each.name}", each) for each in conversion.proof.outputs]
    shown = [v for _, each in found for v in (each.max_abs, each.bound) if v > 0 and math.isfinite(v)]
    if not shown:
        return ""
    low, high = math.floor(math.log10(min(shown))) - 1, math.ceil(math.log10(max(shown)))

    def width(value: float) -> float:
        if value <= 0:
            return 0.0
        return 420 * (min(high, max(low, math.log10(value))) - low) / (high - low)

    from_framework = _framework_errors(conversion)
    rows = []
    for name, each in found:
        color = "var(--bar)" if each.passed else "var(--bad)"
        rows.append(
            f"<tr><td>{escape(name)}</td><td><svg width=420 height=14 role=img "
            f'aria-label="error {each.max_abs:.2e}, allowed {each.bound:.2e}">'
            f'<rect width="{width(each.bound):.1f}" height=14 rx=3 fill="var(--bound)"/>'
            f'<rect y=4 width="{width(each.max_abs):.1f}" height=6 rx=2 fill="{color}"/></svg></td>'
            f"<td class=n>{each.max_abs:.1e}</td><td class=n>{each.bound:.1e}</td>"
            + (f"<td class=n>{from_framework.get(name, '-')}</td></tr>" if from_framework else "</tr>")
        )
    head = "<tr><th>value</th><th>error inside what rounding explains, 1e"
    head += f"{low} to 1e{high}</th><th>error</th><th>allowed</th>"
    head += "<th>framework to unfolded, relative</th></tr>" if from_framework else "</tr>"
    table = f"<div class=wide><table>{head}{''.join(rows)}</table></div>"
    return f"<h2>Folded against unfolded</h2>{table}{_unseen(conversion.proof)}"


def _unseen(proof: Proof) -> str:
    if not proof.unseen:
        return ""
    items = "".join(
        f"<dt>{escape(each.decision.full_name)}</dt><dd>{escape(each.why)}</dd>" for each in proof.unseen
    )
    return f"<h2>Not compared on their own</h2><dl>{items}</dl>"


# -- distributions --------------------------------------------------------------------------------


def _distributions(norms: tuple[Decision, ...]) -> str:
    """Gamma, moving variance and effective scale of each norm as small histograms."""
    if not norms:
        return ""
    rows = []
    for norm in norms:
        parameters, affine = norm.parameters, norm.affine
        cells = [
            _histogram(parameters.gamma) if parameters else "<span class=soft>not recoverable</span>",
            _histogram(parameters.variance, log=True)
            if parameters
            else "<span class=soft>not recoverable</span>",
            _histogram(affine.scale) if affine else "<span class=soft>not readable</span>",
        ]
        channels = affine.channels if affine else "?"
        rows.append(
            f"<tr><td>{_named(norm)}</td><td class=n>{channels}</td>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    head = "<tr><th>norm</th><th>channels</th><th>gamma</th><th>moving variance (log)</th><th>scale</th></tr>"
    return f"<h2>What the norms hold</h2><div class=wide><table>{head}{''.join(rows)}</table></div>"


def _histogram(numbers: F64, *, log: bool = False) -> str:
    finite = numbers[np.isfinite(numbers)]
    low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
    if not finite.size:
        return "<span class=soft>not finite</span>"
    values = np.log10(np.maximum(finite, 1e-30)) if log else finite
    counts, _ = np.histogram(values, bins=24)
    peak = counts.max()
    bars = "".join(
        f'<rect x="{5 * n}" y="{26 - 24 * count / peak:.1f}" width=4 height="{24 * count / peak:.1f}" '
        'fill="var(--bar)"/>'
        for n, count in enumerate(counts)
        if count
    )
    return (
        f'<svg width=120 height=28 role=img aria-label="{low:.3g} to {high:.3g}">{bars}'
        '<line x1=0 x2=120 y1=27 y2=27 stroke="var(--line)"/></svg>'
        f"<span class=soft>{low:.3g} … {high:.3g}</span>"
    )


# -- sites and reasons ----------------------------------------------------------------------------


def _table(norms: tuple[Decision, ...]) -> str:
    if not norms:
        return "<p>No norms found.</p>"
    rows = []
    for norm in norms:
        if norm.outcome is Outcome.FOLDED:
            outcome, why = '<span class="good">folded</span>', escape(norm.why)
        else:
            outcome = '<span class="bad">kept</span>'
            why = "<br>".join(
                f'{escape(each.rule)}: <a href="#{each.reason}">{each.reason}</a>'
                + (f" <span class=soft>{escape(each.detail)}</span>" if each.detail else "")
                for each in norm.refusals
            )
        rows.append(
            f"<tr><td>{_named(norm)}</td><td>{escape(norm.spelling)}</td><td>{outcome}</td>"
            f"<td>{why}</td><td>{escape(norm.at)}</td><td>{escape(', '.join(norm.across)) or '-'}</td></tr>"
        )
    head = "".join(
        f"<th>{word}</th>" for word in ("norm", "written as", "outcome", "into / why", "at", "across")
    )
    return f"<h2>Every norm</h2><div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _named(norm: Decision) -> str:
    where = f" <span class=soft>in {escape(norm.where)}</span>" if norm.place else ""
    return escape(norm.site) + where


def _reasons(kept: tuple[Decision, ...]) -> str:
    met = sorted({refusal.reason for decision in kept for refusal in decision.refusals})
    if not met:
        return ""
    items = "".join(f'<dt id="{reason}">{reason}</dt><dd>{escape(REMEDIES[reason])}</dd>' for reason in met)
    return f"<h2>What the reasons mean</h2><dl>{items}</dl>"
