"""What is counted of requests and runs, by the names that Prometheus knows it by."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from infold.errors import reason_of
from infold.rest import shadow_counts
from infold.rest.counting import NOTHING, Counter, Histogram, Ledger, Snapshot, total
from infold.rest.shadow_counts import ShadowCounts, add_shadows
from infold.rest.stages import STAGE_SECONDS, StageCounts
from infold.serving import Shadowed, Spent, State, Took

__all__ = [
    "BATCHES",
    "COUNTERS",
    "GAUGES",
    "HISTOGRAMS",
    "LATEST",
    "OF_MODEL",
    "RUNS",
    "Metrics",
    "ModelCounts",
]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Numbers of rows that runs are told apart by; where callers may send any number, more are of no use.
MOST_SIZES = 1024

OF_MODEL = ("model", "version")
# Each worker tells how many were there before it, so none is missed that died before anybody looked.
RESTARTS = "infold_worker_restarts_total"
COUNTERS = {
    "infold_http_requests_total": ("HTTP requests answered.", ("route", "method", "status")),
    "infold_model_requests_total": ("Requests that a run has answered.", OF_MODEL),
    "infold_run_failures_total": ("Runs that failed and were tried again one by one.", OF_MODEL),
    "infold_inferences_total": ("Requests for a model, answered or refused.", (*OF_MODEL, "outcome")),
    "infold_inference_seconds_total": (
        "From the arrival of such a request to its answer.",
        (*OF_MODEL, "outcome"),
    ),
    "infold_refusals_total": ("Requests that were not answered, by reason.", (*OF_MODEL, "reason")),
    "infold_null_values_total": ("Values sent as null: JSON has no NaN and no infinity.", OF_MODEL),
    RESTARTS: ("Workers that were started again in the place of one that died.", ()),
    **shadow_counts.COUNTERS,
}
HISTOGRAMS = {
    "infold_http_request_seconds": (
        "From the first byte of a request to the last of its answer.",
        ("route",),
        SECONDS,
    ),
    "infold_stage_seconds": (
        "Time of a request in one stage of its way; the batch and compute of a run count for each of it.",
        (*OF_MODEL, "stage"),
        STAGE_SECONDS,
    ),
    "infold_run_seconds": ("Time of one run, joining and splitting included.", OF_MODEL, SECONDS),
    "infold_run_rows": ("Rows in one run.", OF_MODEL, ROWS),
    **shadow_counts.HISTOGRAMS,
}
GAUGES = {
    "infold_requests_in_flight": ("Requests that wait or run.", OF_MODEL),
    "infold_queue_rows": ("Rows that wait for a run.", OF_MODEL),
    "infold_queue_requests": ("Requests that wait for a run.", OF_MODEL),
    "infold_in_flight_bytes": ("Bodies of requests that are not answered yet, in bytes.", ()),
}
LATEST = {"infold_last_run_timestamp_seconds": ("When a run ended last, in Unix time.", OF_MODEL)}
# Not on the page: a label for each number of rows would be too many.
BATCHES = "infold_batches"
# Nor this: it tells of runs, for each of their requests, what `infold_stage_seconds` tells of requests.
RUNS = "infold_run_stages"
NOBODY = ("", None)


class Outcomes:
    """How many requests ended so, and how long that took them together."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """One more did."""
        self.count += 1
        self.seconds += seconds


def add(total: Spent, spent: Spent, times: int) -> None:
    """Count a run's time so many times over."""
    total.input_s += times * spent.input_s
    total.infer_s += times * spent.infer_s
    total.output_s += times * spent.output_s


class ModelCounts:
    """What is counted of one version."""

    __slots__ = (
        "_at_once",
        "answered",
        "batches",
        "failures",
        "last_run",
        "nulls",
        "refused",
        "requests",
        "rows",
        "run",
        "spent",
        "stages",
    )

    def __init__(self) -> None:
        self.requests, self.failures, self.nulls = Counter(), Counter(), Counter()
        self.run, self.rows = Histogram(SECONDS), Histogram(ROWS)
        self.answered, self.refused = Outcomes(), Outcomes()
        self.stages = StageCounts()
        self.spent = Spent()
        self.batches: dict[int, tuple[Counter, Spent]] = {}
        self.last_run = 0.0
        self._at_once = Ledger(self._count_at_once)

    def ran_at_once(self, took: Took) -> None:
        """The session ran once, for one request that had not waited, and answered it."""
        self.last_run = time.time()
        self._at_once.add(took)

    def settle(self) -> None:
        """Bring everything up to date."""
        self._at_once.settle()
        self.stages.settle()

    def _count_at_once(self, runs: NDArray[np.float64]) -> None:
        rows, spent = runs[:, 0], runs[:, [1, 4, 5]]  # decoded, computed, encoded
        self.requests.count += len(runs)
        add(self.spent, Spent(*spent.sum(0).tolist()), 1)
        for size in np.unique(rows).tolist():
            of_size = spent[rows == size]
            self._of_size(int(size), len(of_size), Spent(*of_size.sum(0).tolist()))
        self.run.observe_all(spent.sum(1))
        self.rows.observe_all(rows)
        self.stages.by_stage["queue"].observe_all(np.zeros(len(runs)))

    def _of_size(self, rows: int, runs: int, spent: Spent) -> None:
        if (batch := self.batches.get(rows)) is None:
            batch = Counter(), Spent()
            if len(self.batches) < MOST_SIZES:
                self.batches[rows] = batch
        batch[0].count += runs
        add(batch[1], spent, 1)

    def batch_ran(self, requests: int, rows: int, spent: Spent) -> None:
        """The session ran once."""
        run, of_rows, seconds = self.run, self.rows, spent.total_s
        self.last_run = time.time()
        add(self.spent, spent, requests)
        self._of_size(rows, 1, spent)
        run.counts[bisect_left(SECONDS, seconds)] += 1
        run.sum += seconds
        of_rows.counts[bisect_left(ROWS, rows)] += 1
        of_rows.sum += rows
        self.requests.count += requests


class Metrics:
    """An `Observer` that counts, on the event loop's thread alone.

    Args:
        connections: How many were refused or cut, by reason; somebody else counts them.
    """

    def __init__(self, connections: Mapping[str, int] | None = None) -> None:
        self._connections = connections if connections is not None else {}
        self._http: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._http_seconds: dict[str, Histogram] = {}
        self._models: dict[tuple[str, int], ModelCounts] = {}
        self._refused: dict[tuple[str, str, str], int] = {}
        self._shadows: dict[tuple[str, int], ShadowCounts] = {}
        self._states: dict[tuple[str, int], str] = {}
        self._earlier = NOTHING
        self.restarts = 0

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """An HTTP request was answered."""
        try:
            counter, histogram = self._http[route, method, status]
        except KeyError:
            histogram = self._http_seconds.setdefault(route, Histogram(SECONDS))
            counter = Counter()
            self._http[route, method, status] = counter, histogram
        counter.count += 1
        histogram.counts[bisect_left(SECONDS, seconds)] += 1
        histogram.sum += seconds

    def refused(self, failure: BaseException) -> None:
        """A request got no answer but this; what names a model of ours says so itself, or it is nobody's."""
        model, version = getattr(failure, "asked_of", None) or NOBODY
        key = (model, "" if version is None else str(version), reason_of(failure))
        self._refused[key] = self._refused.get(key, 0) + 1

    def of_model(self, model: str, version: int) -> ModelCounts:
        """The counts of one version, always the same object."""
        try:
            return self._models[model, version]
        except KeyError:
            counts = self._models[model, version] = ModelCounts()
            return counts

    def state_changed(self, model: str, version: int, state: str, reason: str) -> None:
        """See `Observer`."""
        del reason
        self._states[model, version] = str(state)
        if state == State.READY:  # from here on it is told with zeros, or a rate would miss what comes first
            self.of_model(model, version)

    def batch_ran(self, model: str, version: int, requests: int, rows: int, spent: Spent) -> None:
        """See `Observer`."""
        self.of_model(model, version).batch_ran(requests, rows, spent)

    def ran_at_once(self, model: str, version: int, took: Took) -> None:
        """See `Observer`."""
        self.of_model(model, version).ran_at_once(took)

    def batch_failed(self, model: str, version: int, requests: int) -> None:
        """See `Observer`."""
        del requests
        self.of_model(model, version).failures.count += 1

    def waited(self, model: str, version: int, seconds: float) -> None:
        """See `Observer`."""
        self.of_model(model, version).stages.waited(seconds)

    def shadowed(self, model: str, version: int, outcome: Shadowed, divergence: float) -> None:
        """See `Observer`."""
        self._shadows.setdefault((model, version), ShadowCounts()).add(outcome, divergence)

    def go_on_from(self, earlier: Snapshot) -> None:
        """Count on from what an earlier process had, so that no total ever falls; not its states."""
        counters = {name: rows for name, rows in earlier["counters"].items() if name != RESTARTS}
        self._earlier = {**earlier, "counters": counters, "states": [], "gauges": {}}

    def snapshot(
        self,
        load: Mapping[tuple[str, int], tuple[int, int, int]] | None = None,
        in_flight_bytes: int = 0,
    ) -> Snapshot:
        """Everything counted, what was gone on from included.

        Args:
            load: Of each model and version, requests in flight, rows that wait and requests that wait.
            in_flight_bytes: That the bodies of requests in flight have together.
        """
        present = [([model, str(version)], counts) for (model, version), counts in (load or {}).items()]
        for counts in self._models.values():
            counts.settle()
        models = [([model, str(version)], counts) for (model, version), counts in self._models.items()]
        own: Snapshot = {
            "counters": {
                "infold_http_requests_total": [
                    ([route, method, str(status)], counter.count)
                    for (route, method, status), (counter, _) in self._http.items()
                ],
                "infold_model_requests_total": [(labels, each.requests.count) for labels, each in models],
                "infold_run_failures_total": [(labels, each.failures.count) for labels, each in models],
                "infold_null_values_total": [(labels, each.nulls.count) for labels, each in models],
                "infold_inferences_total": [
                    ([*labels, outcome], ended.count)
                    for labels, each in models
                    for outcome, ended in (("success", each.answered), ("fail", each.refused))
                ],
                "infold_inference_seconds_total": [
                    ([*labels, outcome], ended.seconds)
                    for labels, each in models
                    for outcome, ended in (("success", each.answered), ("fail", each.refused))
                ],
                "infold_refusals_total": [
                    *((list(labels), count) for labels, count in self._refused.items()),
                    *((["", "", reason], count) for reason, count in self._connections.items()),
                ],
                RESTARTS: [([], self.restarts)],
                RUNS: [
                    ([*labels, stage], seconds)
                    for labels, each in models
                    for stage, seconds in _stages(each.spent)
                ],
                BATCHES: [
                    ([*labels, str(rows), what], value)
                    for labels, each in models
                    for rows, (ran, spent) in each.batches.items()
                    for what, value in (("count", ran.count), *_stages(spent))
                ],
            },
            "latest": {
                "infold_last_run_timestamp_seconds": [
                    (labels, each.last_run) for labels, each in models if each.last_run
                ]
            },
            "histograms": {
                "infold_http_request_seconds": [
                    _row([route], histogram) for route, histogram in self._http_seconds.items()
                ],
                "infold_stage_seconds": [
                    _row([*labels, stage], histogram)
                    for labels, each in models
                    for stage, histogram in each.stages.by_stage.items()
                ],
                "infold_run_seconds": [_row(labels, each.run) for labels, each in models],
                "infold_run_rows": [_row(labels, each.rows) for labels, each in models],
            },
            "gauges": {
                "infold_requests_in_flight": [(labels, float(flying)) for labels, (flying, _, _) in present],
                "infold_queue_rows": [(labels, float(rows)) for labels, (_, rows, _) in present],
                "infold_queue_requests": [(labels, float(waiting)) for labels, (_, _, waiting) in present],
                "infold_in_flight_bytes": [([], float(in_flight_bytes))],
            },
            "states": [(model, str(version), state) for (model, version), state in self._states.items()],
        }
        add_shadows(own, self._shadows)
        return own if self._earlier is NOTHING else total([own, self._earlier])


def _stages(spent: Spent) -> tuple[tuple[str, float], ...]:
    return ("input", spent.input_s), ("infer", spent.infer_s), ("output", spent.output_s)


def _row(labels: list[str], histogram: Histogram) -> tuple[list[str], list[int], float]:
    return labels, list(histogram.counts), histogram.sum
