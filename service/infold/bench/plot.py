"""A line chart as a hand-written SVG: series of points, linear or logarithmic axes.

It knows nothing of loads or servers. The colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Chart", "Point", "Series", "draw"]

WIDTH, HEIGHT = 760, 470
LEFT, RIGHT, TOP, BOTTOM = 76, 40, 88, 58
COLOURS = 6

STYLE = """
svg { color-scheme: light dark; --paper: #ffffff; --ink: #1d2733; --soft: #5b6672; --line: #dfe4ea;
  --c0: #1f6fb5; --c1: #c2571a; --c2: #1a7f5a; --c3: #8a4fb0; --c4: #a3831a; --c5: #b3264a; }
@media (prefers-color-scheme: dark) { svg { --paper: #14191e; --ink: #e4e9ee; --soft: #98a3ae;
  --line: #303941; --c0: #6ab0f0; --c1: #f09a5c; --c2: #57c79a; --c3: #c79be8; --c4: #dcc05a;
  --c5: #ff8aa5; } }
text { font: 13px system-ui, sans-serif; fill: var(--soft); }
.title { font-size: 16px; font-weight: 600; fill: var(--ink); } .name { fill: var(--ink); }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); }
.mark { stroke: var(--soft); stroke-dasharray: 2 4; }
.series { fill: none; stroke-width: 2; stroke-linejoin: round; } .dashed { stroke-dasharray: 7 5; }
"""


@dataclass(frozen=True, slots=True)
class Point:
    """One point; its label is shown when it is pointed at."""

    x: float
    y: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points joined in their order.

    Attributes:
        name: For the legend.
        points: Those that an axis cannot show (not finite; not above 0 on a logarithmic one)
            are passed over.
        colour: Number of the colour, so that kindred series can share one.
        is_dashed: Drawn with a broken line.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, unit included, and how; a linear one starts at 0."""

    label: str
    is_log: bool = False

    def shows(self, value: float) -> bool:
        """The value has a place on it."""
        return math.isfinite(value) and (value > 0 or not self.is_log)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        marks: Places on the x axis that get an upright line, with their names.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    marks: Sequence[tuple[float, str]] = ()


Scale = Callable[[float], float]


def draw(chart: Chart) -> str:
    """The chart as the text of an SVG file."""
    shown = [
        (series, [p for p in series.points if chart.x.shows(p.x) and chart.y.shows(p.y)])
        for series in chart.series
    ]
    points = [point for _, some in shown for point in some]
    x_ticks = _ticks(chart.x, [p.x for p in points] + [x for x, _ in chart.marks if chart.x.shows(x)])
    y_ticks = _ticks(chart.y, [p.y for p in points])
    across = _scale(chart.x, x_ticks, LEFT, WIDTH - RIGHT)
    up = _scale(chart.y, y_ticks, HEIGHT - BOTTOM, TOP)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(chart.title)}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="var(--paper)"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(chart.title)}</text>',
        *_grid(chart, x_ticks, y_ticks, across, up),
        *_marks(chart, across),
        *_legend(chart.series),
        *(_line(series, some, across, up) for series, some in shown),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _ticks(axis: Axis, values: Sequence[float]) -> list[float]:
    """Round numbers that enclose all values."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    if axis.is_log:
        steps = (1, 2, 5) if high < 1000 * low else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
        every = [float(f"{step}e{power}") for power in powers for step in steps]
        first = max((n for n, tick in enumerate(every) if tick <= low), default=0)
        last = next(n for n, tick in enumerate(every) if tick >= high and n > first)
        return every[first : last + 1]
    low, high = min(0.0, low), max(0.0, high)
    rough = (high - low or 1.0) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [n * step for n in range(math.floor(low / step), max(math.ceil(high / step), 1) + 1)]


def _scale(axis: Axis, ticks: Sequence[float], start: float, end: float) -> Scale:
    def place(value: float) -> float:
        return math.log10(value) if axis.is_log else value

    low, high = place(ticks[0]), place(ticks[-1])
    return lambda value: start + (place(value) - low) / (high - low) * (end - start)


def _grid(chart: Chart, xs: list[float], ys: list[float], across: Scale, up: Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in ys:
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in xs:
        x = across(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{_number(tick)}</text>')
    middle, centre = (TOP + bottom) / 2, (LEFT + right) / 2
    turned = f'transform="rotate(-90 20 {middle})"'
    return [
        *parts,
        f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
        f'<text x="{centre}" y="{HEIGHT - 14}" text-anchor="middle">{escape(chart.x.label)}</text>',
        f'<text x="20" y="{middle}" text-anchor="middle" {turned}>{escape(chart.y.label)}</text>',
    ]


def _marks(chart: Chart, across: Scale) -> list[str]:
    parts = []
    for value, name in chart.marks:
        if not chart.x.shows(value):
            continue
        x = across(value)
        # Text stays inside the picture: to the left of a line that stands far right.
        anchor, gap = ("end", -5) if x > WIDTH / 2 else ("start", 5)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text x="{x + gap:.1f}" y="{HEIGHT - BOTTOM - 8}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    return parts


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    x, y = float(LEFT), 52
    for each in series:
        width = 62 + 7.2 * len(each.name)
        if x + width > WIDTH and x > LEFT:
            x, y = float(LEFT), y + 19
        dashed = " dashed" if each.is_dashed else ""
        parts.append(
            f'<line class="series{dashed}" x1="{x:.0f}" x2="{x + 30:.0f}" y1="{y}" y2="{y}" '
            f'stroke="{_colour(each)}"/>'
            f'<text class="name" x="{x + 36:.0f}" y="{y + 4}">{escape(each.name)}</text>'
        )
        x += width
    return parts


def _line(series: Series, points: Sequence[Point], across: Scale, up: Scale) -> str:
    places = [(across(point.x), up(point.y)) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_colour(series)}">'
        f"<title>{escape(point.label)}</title></circle>"
        for point, (x, y) in zip(points, places, strict=True)
    )
    dashed = " dashed" if series.is_dashed else ""
    return f'<polyline class="series{dashed}" stroke="{_colour(series)}" points="{path}"/>{dots}'


def _colour(series: Series) -> str:
    return f"var(--c{series.colour % COLOURS})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
