"""Stacked bars as a hand-written SVG: what each whole is made of, as shares.

It takes its colours and its letters from infold's line charts, and follows the reader's scheme as they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from infold.bench.plot import STYLE

__all__ = ["Bar", "draw_bars"]

WIDTH, LEFT, RIGHT, TOP = 760, 236, 176, 92
STEP, THICK = 46, 24
OWN_STYLE = """
.inside { font-size: 12px; fill: var(--paper); } .note { font-size: 12px; }
"""
LEAST_LABELLED = 0.075


@dataclass(frozen=True)
class Bar:
    """One whole.

    Attributes:
        name: In front of it.
        parts: Of any unit, one for each name of the legend.
        note: Behind it.
    """

    name: str
    parts: Sequence[float]
    note: str


def draw_bars(title: str, names: Sequence[str], bars: Sequence[Bar]) -> str:
    """The chart as the text of an SVG file."""
    height = TOP + STEP * len(bars) + 8
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}{OWN_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="var(--paper)"/>',
        f'<text class="title" x="24" y="30">{escape(title)}</text>',
    ]
    x = 24.0
    for number, name in enumerate(names):
        parts.append(
            f'<rect x="{x:.0f}" y="52" width="13" height="13" rx="2" fill="var(--c{number})"/>'
            f'<text class="name" x="{x + 19:.0f}" y="63">{escape(name)}</text>'
        )
        x += 48 + 7.0 * len(name)
    for number, bar in enumerate(bars):
        parts += _bar(bar, names, TOP + STEP * number)
    return "\n".join([*parts, "</svg>", ""])


def _bar(bar: Bar, names: Sequence[str], y: float) -> list[str]:
    whole, middle = sum(bar.parts), y + THICK / 2 + 4
    parts = [f'<text class="name" x="{LEFT - 12}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>']
    x = float(LEFT)
    for number, (name, part) in enumerate(zip(names, bar.parts, strict=True)):
        share = part / whole
        width = share * (WIDTH - LEFT - RIGHT)
        if not part:
            continue
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{max(width - 1, 0.6):.1f}" height="{THICK}" '
            f'fill="var(--c{number})"><title>{escape(name)}: {share:.1%}</title></rect>'
        )
        if share >= LEAST_LABELLED:
            parts.append(
                f'<text class="inside" x="{x + width / 2:.1f}" y="{middle}" text-anchor="middle">'
                f"{share:.0%}</text>"
            )
        x += width
    return [*parts, f'<text class="note" x="{x + 10:.1f}" y="{middle}">{escape(bar.note)}</text>']
