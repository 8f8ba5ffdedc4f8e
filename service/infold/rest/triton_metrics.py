"""The same counts under Triton's names, for boards and autoscaling rules that know those.

Written by hand: prometheus_client would end the name of every counter in `_total`.

Source: Triton's docs/user_guide/metrics.md as of 24.07, the first with reasons of failures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from infold.rest.counting import Snapshot, total
from infold.rest.metrics import OF_MODEL, RUNS

__all__ = ["FAMILIES", "REASONS", "triton_page"]

# What of Triton's four reasons an error of ours is; every other is OTHER.
REASONS = {
    "queue_full": "REJECTED",
    "in_flight_bytes": "REJECTED",
    "queue_too_long": "REJECTED",
    "deadline": "REJECTED",
    "abandoned": "CANCELED",
    "session_failed": "BACKEND",
}
EVERY_REASON = ("REJECTED", "CANCELED", "BACKEND", "OTHER")

Row = tuple[tuple[str, ...], float]
Rows = Iterable[Row]


@dataclass(frozen=True, slots=True)
class Family:
    """One of Triton's families.

    Attributes:
        kind: `counter` or `gauge`.
        help: What it tells.
        rows: Its labels' values with its own, from all that was counted.
        labels: Their names.
    """

    kind: str
    help: str
    rows: Callable[[Snapshot], Rows]
    labels: tuple[str, ...] = OF_MODEL


def triton_page(snapshots: Sequence[Snapshot]) -> bytes:
    """The sum of all snapshots as Prometheus text in Triton's names, to follow our own page."""
    summed = total(snapshots)
    lines: list[str] = []
    for name, family in FAMILIES.items():
        lines += (f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}")
        for values, number in family.rows(summed):
            labels = ",".join(
                f'{label}="{_escaped(value)}"' for label, value in zip(family.labels, values, strict=True)
            )
            lines.append(f"{name}{{{labels}}} {round(number)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _counter(name: str, last: str | None = None, times: float = 1) -> Callable[[Snapshot], Rows]:
    """The rows of a counter, or those whose last label has this value, without it."""

    def rows(snapshot: Snapshot) -> Rows:
        for labels, number in snapshot["counters"].get(name, ()):
            if last is None or labels[-1] == last:
                yield tuple(labels[:2]), number * times

    return rows


def _run_rows(*, are_summed: bool) -> Callable[[Snapshot], Rows]:
    """How many runs there were, or how many rows they had together."""

    def rows(snapshot: Snapshot) -> Rows:
        for labels, counts, summed in snapshot["histograms"].get("infold_run_rows", ()):
            yield tuple(labels), summed if are_summed else sum(counts)

    return rows


def _waited(snapshot: Snapshot) -> Rows:
    for (model, version, stage), _, seconds in snapshot["histograms"].get("infold_stage_seconds", ()):
        if stage == "queue":
            yield (model, version), seconds * MICROSECONDS


def _waiting(snapshot: Snapshot) -> Rows:
    for labels, number in snapshot["gauges"].get("infold_queue_requests", ()):
        yield tuple(labels), number


def _failures(snapshot: Snapshot) -> Rows:
    """Refused requests of each version by Triton's reason, from 0 on."""
    found: dict[tuple[str, str, str], float] = {
        (model, version, reason): 0
        for model, version, *_ in (labels for labels, _ in snapshot["counters"].get(RUNS, ()))
        for reason in EVERY_REASON
    }
    for (model, version, reason), count in snapshot["counters"].get("infold_refusals_total", ()):
        key = (model, version, REASONS.get(reason, "OTHER"))
        if model and version:
            found[key] = found.get(key, 0) + count
    yield from found.items()


MICROSECONDS = 1e6
FAMILIES = {
    "nv_inference_request_success": Family(
        "counter", "Requests that were answered.", _counter("infold_inferences_total", "success")
    ),
    "nv_inference_request_failure": Family(
        "counter", "Requests that were not answered.", _failures, (*OF_MODEL, "reason")
    ),
    "nv_inference_count": Family("counter", "Rows that were run.", _run_rows(are_summed=True)),
    "nv_inference_exec_count": Family("counter", "Runs of the model.", _run_rows(are_summed=False)),
    "nv_inference_request_duration_us": Family(
        "counter",
        "Microseconds from the arrival of answered requests to their answers.",
        _counter("infold_inference_seconds_total", "success", MICROSECONDS),
    ),
    "nv_inference_queue_duration_us": Family(
        "counter", "Microseconds that requests waited for their run.", _waited
    ),
    "nv_inference_compute_input_duration_us": Family(
        "counter",
        "Microseconds of reading and joining; those of a run count for each of its requests.",
        _counter(RUNS, "input", MICROSECONDS),
    ),
    "nv_inference_compute_infer_duration_us": Family(
        "counter",
        "Microseconds in the model; those of a run count for each of its requests.",
        _counter(RUNS, "infer", MICROSECONDS),
    ),
    "nv_inference_compute_output_duration_us": Family(
        "counter",
        "Microseconds of splitting and writing; those of a run count for each of its requests.",
        _counter(RUNS, "output", MICROSECONDS),
    ),
    "nv_inference_pending_request_count": Family("gauge", "Requests that wait for a run.", _waiting),
}
