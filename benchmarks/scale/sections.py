"""All parts of docs/scale.md that are figures, by the marks they stand between."""

from __future__ import annotations

from collections.abc import Callable

from fleet_sections import autoscaling, depth, latency, node, policies, spare
from service_sections import capacity, measured, reality, theory
from service_times import ServiceTimes

__all__ = ["SECTIONS"]

SECTIONS: dict[str, Callable[[ServiceTimes], str]] = {
    each.__name__: each
    for each in (
        *(measured, theory, reality, capacity),
        *(latency, policies, depth, node, spare, autoscaling),
    )
}
