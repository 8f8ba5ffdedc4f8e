"""The results as markdown."""

from __future__ import annotations

import statistics

from machine import CORES
from results import Cell, Results, Row
from targets import TARGETS

HEADS = (
    "server", "answers/s", "of bare", "answers/CPU s", "of bare", "p50 ms", "p99 ms", "MiB", "ready s",
    "others", "",
)  # fmt: skip
BODIES = {"json": "JSON", "binary": "binary", "jpeg": "JPEG 640x480"}


def tables(results: Results, *, is_whole: bool) -> str:
    """All of it; of a part of the run only the targets that were measured."""
    parts = [f"{CORES} cores. How to read this: the head of `benchmarks/serving/run.py`."]
    for cell in dict.fromkeys(row.cell for row in results.rows):
        parts.append(_cell(results, cell))
    if results.bare:
        parts.append(_bare(results))
    if results.specials:
        parts.append(_specials(results))
    parts.append(_targets(results, is_whole))
    return "\n\n".join(each for each in parts if each) + "\n"


def _cell(results: Results, cell: Cell) -> str:
    callers = "1 caller" if cell.concurrency == 1 else f"{cell.concurrency} callers"
    lines = [
        f"### {cell.network}, {BODIES[cell.body]}, {callers}",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|---|" + "---:|" * (len(HEADS) - 2) + "---|",
    ]
    lines += [_row(row) for row in results.rows if row.cell == cell]
    return "\n".join(lines)


def _row(row: Row) -> str:
    name = f"{row.server} ({row.version})" if row.version else row.server
    if not row.rounds:
        return f"| {name} |" + " |" * (len(HEADS) - 2) + f" not measured: {_safe(row.reason)} |"
    rates = row.values("answers_per_s")
    spread = f" ({min(rates):,.0f}..{max(rates):,.0f})" if len(rates) > 1 else ""
    remarks = [row.note] if row.note else []
    for count, word in (
        ("wrong", "**wrong answers**"),
        ("refused", "refused"),
        ("errors", "broken connections"),
    ):
        if row.total(count):
            remarks.append(f"{row.total(count)} {word}")
    if row.reason:
        remarks.append(f"not in every round: {_safe(row.reason)}")
    cells = (
        name,
        f"{_short(row.median('answers_per_s'))}{spread}",
        f"{row.median('share'):.3f}",
        _short(row.median("answers_per_cpu_s")),
        f"{row.median('cpu_share'):.3f}",
        f"{row.median('p50_ms'):.2f}",
        f"{row.median('p99_ms'):.2f}",
        f"{row.median('pss_mib'):.0f}",
        f"{row.median('ready_s'):.1f}",
        f"{row.median('others_cores'):.2f}",
        "; ".join(remarks),
    )
    return "| " + " | ".join(cells) + " |"


def _bare(results: Results) -> str:
    lines = [
        "### onnxruntime alone",
        "",
        "| network | layout | images/s | p50 ms | CPU ms per image |",
        "|---|---|---:|---:|---:|",
    ]
    for network, times in results.bare.items():
        for number, layout in enumerate(times[0].loops):
            of = [each.loops[number] for each in times]
            rates = [each["images_per_s"] for each in of]
            p50, cpu = (statistics.median(each[key] for each in of) for key in ("p50_ms", "cpu_s_per_image"))
            rate = f"{_short(statistics.median(rates))} ({min(rates):,.0f}..{max(rates):,.0f})"
            lines.append(f"| {network} | {layout['name']} | {rate} | {p50:.3g} | {1e3 * cpu:.3g} |")
    return "\n".join(lines)


def _specials(results: Results) -> str:
    lines = ["### Company, bursts and overload", "", "| what | server | |", "|---|---|---|"]
    lines += [f"| {each.name} | {each.server} | {_safe(each.words)} |" for each in results.specials]
    return "\n".join(lines)


def _targets(results: Results, is_whole: bool) -> str:
    lines = ["### Targets", "", "| target | wanted | reached | | by CPU second |", "|---|---:|---:|---|---:|"]
    for target in TARGETS:
        value, met = target.figure(results), target.is_met(results)
        if met is None and not is_whole:
            continue
        wanted = f"{'>=' if target.at_least else '<='} {target.bound:g}"
        verdict = {True: "met", False: "**missed**", None: "not measured"}[met]
        by_cpu = target.by_cpu(results) if target.by_cpu else None
        reached = " | ".join((_figure(value), verdict, _figure(by_cpu)))
        lines.append(f"| {target.words} | {wanted} | {reached} |")
    return "\n".join(lines) if len(lines) > 4 else ""


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _safe(text: str) -> str:
    """Text that cannot end a cell."""
    return text.replace("|", "/").replace("\n", " ")
