"""What the serving floor tells, as Prometheus metrics.

Label children are looked up once a model version and kept: looking them up on
every request costs more than counting.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from infold import __version__
from infold.serving import State

__all__ = ["Metrics"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """An `Observer` that counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of_model = ("model", "version")
        registry = self.registry
        self._build = Gauge(
            "infold_build_info", "Constant 1; the version as label.", ["version"], registry=registry
        )
        self._build.labels(__version__).set(1)
        self._http = Counter(
            "infold_http_requests_total",
            "HTTP requests answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._http_seconds = Histogram(
            "infold_http_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._wait = Histogram(
            "infold_queue_seconds",
            "Time a request waits for its run.",
            of_model,
            buckets=SECONDS,
            registry=registry,
        )
        self._run = Histogram(
            "infold_run_seconds", "Time of one run, joining and splitting included.", of_model,
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._rows = Histogram(
            "infold_run_rows", "Rows in one run.", of_model, buckets=ROWS, registry=registry
        )
        self._requests = Counter(
            "infold_model_requests_total", "Requests that a run has answered.", of_model, registry=registry
        )
        self._failed = Counter(
            "infold_run_failures_total",
            "Runs that failed and were tried again one by one.",
            of_model,
            registry=registry,
        )
        self._state = Gauge(
            "infold_model_state", "1 for the state a version is in.", [*of_model, "state"], registry=registry
        )
        self._http_of = cache(lambda *labels: self._http.labels(*labels))
        self._http_seconds_of = cache(lambda route: self._http_seconds.labels(route))
        self._model_of = cache(self._children)

    def _children(self, model: str, version: int) -> tuple[Histogram, Histogram, Histogram, Counter, Counter]:
        labels = (model, str(version))
        return (
            self._wait.labels(*labels),
            self._run.labels(*labels),
            self._rows.labels(*labels),
            self._requests.labels(*labels),
            self._failed.labels(*labels),
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """An HTTP request was answered."""
        self._http_of(route, method, str(status)).inc()
        self._http_seconds_of(route).observe(seconds)

    def state_changed(self, model: str, version: int, state: str, reason: str) -> None:
        """See `Observer`."""
        del reason
        for each in State:
            self._state.labels(model, str(version), each.value).set(1 if each.value == state else 0)

    def batch_ran(self, model: str, version: int, requests: int, rows: int, seconds: float) -> None:
        """See `Observer`."""
        _, run, in_run, count, _ = self._model_of(model, version)
        run.observe(seconds)
        in_run.observe(rows)
        count.inc(requests)

    def batch_failed(self, model: str, version: int, requests: int) -> None:
        """See `Observer`."""
        del requests
        self._model_of(model, version)[4].inc()

    def waited(self, model: str, version: int, seconds: float) -> None:
        """See `Observer`."""
        self._model_of(model, version)[0].observe(seconds)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
