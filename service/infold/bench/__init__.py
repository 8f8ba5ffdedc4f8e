"""Load for a server, and how it bears it: closed and open loops over HTTP, answers checked."""

from infold.bench.loops import Timing
from infold.bench.plan import Loops, Plan
from infold.bench.plot import Axis, Chart, Point, Series, draw
from infold.bench.report import Report
from infold.bench.run import bench

__all__ = ["Axis", "Chart", "Loops", "Plan", "Point", "Report", "Series", "Timing", "bench", "draw"]
