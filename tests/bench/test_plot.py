"""The chart: read back as XML, since nobody looks at it here."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from infold.bench.plot import HEIGHT, WIDTH, Axis, Chart, Point, Series, draw

SVG = "{http://www.w3.org/2000/svg}"


def parsed(*series: Series, log: bool = True, **more: object) -> ElementTree.Element:
    chart = Chart("a < b & c", Axis("rate in 1/s"), Axis("latency in ms", log), series, **more)  # type: ignore[arg-type]
    return ElementTree.fromstring(draw(chart))


def circles(root: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in root.iter(f"{SVG}circle")]


def texts(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def test_every_point_is_drawn_inside_the_picture() -> None:
    """With its label, and joined to its neighbours."""
    points = [Point(n, 10.0**n, f"<{n}>") for n in range(5)]
    root = parsed(Series("one", points), Series("two", points[:2], 1, True))
    assert len(circles(root)) == 7
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in circles(root))
    assert [each.text for each in root.iter(f"{SVG}title")][:2] == ["<0>", "<1>"]
    lines = [len((each.get("points") or "").split()) for each in root.iter(f"{SVG}polyline")]
    assert lines == [5, 2]


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis() -> None:
    """And equal differences on a linear one."""
    points = [Point(1, 1), Point(2, 10), Point(3, 100)]
    (x0, y0), (x1, y1), (x2, y2) = circles(parsed(Series("s", points)))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


def test_axes_name_their_units_and_the_legend_the_series() -> None:
    """Text that holds markup stays text."""
    shown = texts(parsed(Series("p50 <ms>", [Point(1, 1)])))
    assert {"a < b & c", "rate in 1/s", "latency in ms", "p50 <ms>"} <= set(shown)


@pytest.mark.parametrize("y", [math.nan, math.inf, 0.0, -1.0])
def test_a_point_without_a_place_is_passed_over(y: float) -> None:
    """Nothing was answered, say, so there is no latency."""
    assert len(circles(parsed(Series("s", [Point(1, y), Point(2, 5)])))) == 1


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [[], [3.0], [0.001, 1e6], [999.0, 1000.0], [1e-7]])
def test_any_range_can_be_drawn(values: list[float], log: bool) -> None:
    """Nothing, one value, many decades."""
    root = parsed(Series("s", [Point(v, v) for v in values]), log=log)
    assert len(circles(root)) == len(values)
    assert all(0 <= y <= HEIGHT for _, y in circles(root))


def test_marks_are_named() -> None:
    """And widen the axis to reach them."""
    root = parsed(Series("s", [Point(1, 1)]), marks=[(50, "limit")])
    assert "limit" in texts(root)


def test_both_colour_schemes_are_served() -> None:
    """The picture follows the reader's."""
    assert "prefers-color-scheme: dark" in draw(Chart("t", Axis("x"), Axis("y"), []))
