"""What is counted of shadows, and how the statistics tell it; plain numbers, as all that is counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infold.rest.counting import Counter, Histogram, Snapshot
from infold.serving import Shadowed

__all__ = ["COUNTERS", "HISTOGRAMS", "ShadowCounts", "add_shadows", "shadow_statistics"]

DIVERGENCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
OF_MODEL = ("model", "version")

RUNS, DROPPED, FAILED = (f"infold_shadow_{what}_total" for what in ("runs", "dropped", "failures"))
DIVERGENCE = "infold_shadow_divergence"
# Not on the page: it never falls, and a rate of the histogram says more.
WORST = "infold_shadow_divergence_max"

COUNTERS = {
    RUNS: ("Runs that were repeated on the shadow and compared.", OF_MODEL),
    DROPPED: ("Runs that were picked for the shadow, and not repeated for want of time or room.", OF_MODEL),
    FAILED: ("Times that the shadow could not be loaded, or failed to run.", OF_MODEL),
}
HISTOGRAMS = {
    DIVERGENCE: (
        "How far what was served is from the shadow's answer, over its largest magnitude.",
        OF_MODEL,
        DIVERGENCES,
    ),
}

Labels = tuple[str, ...]


class ShadowCounts:
    """What is counted of one version's shadow.

    Attributes:
        dropped: Runs that were picked in vain.
        failures: Times that it failed.
        divergence: Of the runs that were compared.
        worst: The largest of them.
    """

    __slots__ = ("divergence", "dropped", "failures", "worst")

    def __init__(self) -> None:
        self.dropped, self.failures = Counter(), Counter()
        self.divergence = Histogram(DIVERGENCES)
        self.worst = 0.0

    def add(self, outcome: Shadowed, divergence: float) -> None:
        """Something became of it."""
        match outcome:
            case Shadowed.RAN:
                self.divergence.observe(divergence)
                self.worst = max(self.worst, divergence)
            case Shadowed.DROPPED:
                self.dropped.count += 1
            case Shadowed.FAILED:
                self.failures.count += 1
            case Shadowed.OPENED:
                pass  # its numbers are shown from now on

    @property
    def runs(self) -> int:
        """That were compared."""
        return sum(self.divergence.counts)


def add_shadows(snapshot: Snapshot, shadows: Mapping[tuple[str, int], ShadowCounts]) -> None:
    """Put what was counted of shadows, by model and version, into a snapshot."""
    rows = [([model, str(version)], counts) for (model, version), counts in shadows.items()]
    snapshot["counters"] |= {
        RUNS: [(labels, each.runs) for labels, each in rows],
        DROPPED: [(labels, each.dropped.count) for labels, each in rows],
        FAILED: [(labels, each.failures.count) for labels, each in rows],
    }
    snapshot["histograms"][DIVERGENCE] = [
        (labels, list(each.divergence.counts), each.divergence.sum) for labels, each in rows
    ]
    snapshot["latest"][WORST] = [(labels, each.worst) for labels, each in rows]


def shadow_statistics(
    version: Labels,
    counters: Mapping[str, Mapping[Labels, float]],
    histograms: Mapping[str, Mapping[Labels, tuple[int, float]]],
    summed: Snapshot,
) -> dict[str, Any]:
    """The field `shadow` of a version's statistics; nothing where it has none.

    Args:
        version: Model and version.
        counters: Of all processes, by family.
        histograms: Count and sum of all processes, by family.
        summed: Where the largest divergence is told.
    """
    if version not in histograms.get(DIVERGENCE, {}):
        return {}
    count, total = histograms[DIVERGENCE][version]
    worst = {tuple(labels): value for labels, value in summed["latest"].get(WORST, ())}
    return {
        "shadow": {
            "count": count,
            "mean": total / count if count else 0.0,
            "max": worst.get(version, 0.0),
            "dropped": int(counters[DROPPED][version]),
            "failed": int(counters[FAILED][version]),
        }
    }
