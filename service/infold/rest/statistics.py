"""A snapshot of what was counted, as the protocol's statistics extension tells it.

Source: Triton's docs/protocol/extension_statistics.md. Counts are of requests, times
cumulative nanoseconds over requests, as its clients divide the one by the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infold.rest.counting import Snapshot, total
from infold.rest.metrics import BATCHES, RUNS
from infold.rest.shadow_counts import shadow_statistics

__all__ = ["statistics"]

Labels = tuple[str, ...]


def statistics(snapshots: Sequence[Snapshot], versions: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The statistics object of some versions, summed over all processes.

    Args:
        snapshots: Of each process.
        versions: Model and version, in the order told.
    """
    summed = total(snapshots)
    counters = {
        family: {tuple(labels): count for labels, count in rows}
        for family, rows in summed["counters"].items()
    }
    histograms = {
        family: {tuple(labels): (sum(counts), sum_) for labels, counts, sum_ in rows}
        for family, rows in summed["histograms"].items()
    }
    latest = {
        tuple(labels): at for labels, at in summed["latest"].get("infold_last_run_timestamp_seconds", ())
    }
    return {
        "model_stats": [
            _of_version((model, str(version)), counters, histograms, latest)
            | shadow_statistics((model, str(version)), counters, histograms, summed)
            for model, version in versions
        ]
    }


def _of_version(
    version: Labels,
    counters: dict[str, dict[Labels, float]],
    histograms: dict[str, dict[Labels, tuple[int, float]]],
    latest: dict[Labels, float],
) -> dict[str, Any]:
    def counted(family: str, *more: str) -> float:
        return counters.get(family, {}).get((*version, *more), 0)

    def ended(outcome: str) -> dict[str, int]:
        seconds = counted("infold_inference_seconds_total", outcome)
        return duration(counted("infold_inferences_total", outcome), seconds)

    executions, rows = histograms.get("infold_run_rows", {}).get(version, (0, 0.0))
    waits, waited_s = histograms.get("infold_stage_seconds", {}).get((*version, "queue"), (0, 0.0))
    requests = counted("infold_model_requests_total")
    stages = {
        f"compute_{stage}": duration(requests, counted(RUNS, stage)) for stage in ("input", "infer", "output")
    }
    return {
        "name": version[0],
        "version": version[1],
        "last_inference": int(latest.get(version, 0.0) * 1000),
        "inference_count": int(rows),
        "execution_count": executions,
        "inference_stats": {
            "success": ended("success"),
            "fail": ended("fail"),
            "queue": duration(waits, waited_s),
            **stages,
            "cache_hit": duration(0, 0.0),
            "cache_miss": duration(0, 0.0),
        },
        "response_stats": {},
        "batch_stats": _batches(version, counters.get(BATCHES, {})),
        "memory_usage": [],
    }


def _batches(version: Labels, counted: dict[Labels, float]) -> list[dict[str, Any]]:
    sizes = sorted({int(labels[2]) for labels in counted if labels[:2] == version})
    found = []
    for size in sizes:
        count = counted.get((*version, str(size), "count"), 0)
        stages = {
            f"compute_{stage}": duration(count, counted.get((*version, str(size), stage), 0.0))
            for stage in ("input", "infer", "output")
        }
        found.append({"batch_size": size, **stages})
    return found


def duration(count: float, seconds: float) -> dict[str, int]:
    """The protocol's pair of a count and a time."""
    return {"count": int(count), "ns": round(seconds * 1e9)}
