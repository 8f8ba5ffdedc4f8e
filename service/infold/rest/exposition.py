"""What was counted, as the page that Prometheus scrapes.

prometheus_client only writes it, since its own counters lock and look up labels,
at a cost that a request notices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from infold import __version__
from infold.rest.counting import Snapshot, total
from infold.rest.metrics import COUNTERS, GAUGES, HISTOGRAMS, LATEST, OF_MODEL
from infold.serving import State

__all__ = ["CONTENT_TYPE", "page_of"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STATE_HELP = (
    "1 for the state a version is in; with several workers: failed if it failed in any, "
    "else the state of the worker that is least far from loading to unloaded."
)


def page_of(snapshots: Sequence[Snapshot]) -> bytes:
    """The sum of all snapshots as Prometheus text."""
    return generate_latest(_Families(total(snapshots)))


class _Families(Collector):
    """One snapshot as prometheus_client's metric families."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        build = GaugeMetricFamily(
            "infold_build_info", "Constant 1; the version as label.", labels=("version",)
        )
        build.add_metric([__version__], 1)
        yield build
        for name, (text, label_names) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=label_names)
            for labels, count in self._snapshot["counters"].get(name, ()):
                counter.add_metric(labels, count)
            yield counter
        for name, (text, label_names, bounds) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, text, labels=label_names)
            edges = [*(str(float(bound)) for bound in bounds), "+Inf"]
            for labels, counts, summed in self._snapshot["histograms"].get(name, ()):
                buckets = list(zip(edges, map(float, accumulate(counts)), strict=True))
                histogram.add_metric(labels, buckets, summed)
            yield histogram
        for name, (text, label_names) in {**GAUGES, **LATEST}.items():
            gauge = GaugeMetricFamily(name, text, labels=label_names)
            source = self._snapshot["gauges"] if name in GAUGES else self._snapshot["latest"]
            for labels, value in source.get(name, ()):
                gauge.add_metric(labels, value)
            yield gauge
        state = GaugeMetricFamily("infold_model_state", STATE_HELP, labels=(*OF_MODEL, "state"))
        for model, version, current in self._snapshot["states"]:
            for each in State:
                state.add_metric([model, version, each.value], float(each.value == current))
        yield state
