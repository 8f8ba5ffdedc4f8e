"""What measure.py wrote, as the simulation takes it.

The least of the rounds counts: whatever else a machine does can only make a request take longer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from infold.runtime import Batching, SessionConfig
from infold.serving.plan import Measured, Plan, choose

__all__ = ["CASES", "FILE", "Body", "ServiceTimes", "Times"]

FILE = Path(__file__).with_name("service_times.json")
# What the page asks of a fleet: a letter, a network, a kind of body.
CASES = {
    "a": ("tiny", "json"),
    "b": ("mobilenetv2", "json"),
    "c": ("mobilenetv2", "binary"),
    "d": ("mobilenetv2", "jpeg"),
    "e": ("resnet50", "binary"),
}
NAMES = {"tiny": "64-64-10 MLP", "mobilenetv2": "MobileNetV2", "resnet50": "ResNet-50"}
KINDS = {"json": "JSON", "binary": "bytes", "jpeg": "JPEG 640x480"}


@dataclass(frozen=True)
class Times:
    """What a process takes for requests of one kind, in seconds.

    Attributes:
        loop_s: On the event loop, which holds the interpreter.
        locked_s: Of a row in a runner that holds the interpreter (reading JSON).
        run_s: Of a run of so many rows in a runner that does not, pictures prepared.
        plan: How the model is run; None for one core a run, all cores, nothing joined.
        wide_s: Of a lone row on all cores.
        request_bytes: Length of a request.
    """

    loop_s: float
    locked_s: float
    run_s: Callable[[int], float]
    plan: Plan | None = None
    wide_s: float = 0.0
    request_bytes: int = 0

    def slower(self, factor: float) -> Times:
        """The same on a machine that takes so many times as long."""
        run_s, by = self.run_s, factor
        return replace(
            self,
            loop_s=self.loop_s * by,
            locked_s=self.locked_s * by,
            run_s=lambda rows: by * run_s(rows),
            wide_s=self.wide_s * by,
        )


@dataclass(frozen=True, eq=False)
class Body:
    """One network asked with one kind of body; all times are CPU seconds."""

    network: str
    kind: str
    request_bytes: int
    loop_s: float
    locked_s: float
    free_s: float  # in a runner, without the interpreter, of one row
    narrow_s: dict[int, float]  # bare runs by rows
    bare_wide_s: float
    answers_per_s: float  # the most of all rounds, in a closed loop

    @property
    def name(self) -> str:
        """For a table."""
        return f"{NAMES[self.network]}, {KINDS[self.kind]}"

    @property
    def cpu_s(self) -> float:
        """Of a request, all threads."""
        return self.loop_s + self.locked_s + self.free_s

    @property
    def interpreter_s(self) -> float:
        """Of it what one process can do for one request at a time only."""
        return self.loop_s + self.locked_s

    @cached_property
    def is_inline(self) -> bool:
        """Everything happens on the event loop."""
        return self.plan(1).inline_rows > 0

    def plan(self, cores: int) -> Plan:
        """What infold itself chooses from the bare runs."""
        measured = Measured(self.narrow_s, self.bare_wide_s)
        return choose(measured, cores, Batching(), SessionConfig(), joinable=True)

    @property
    def cores(self) -> int:
        """Of one process: two where the interpreter leaves the second something to do."""
        return 2 if not self.is_inline and 2 * self.interpreter_s < 0.7 * self.cpu_s else 1

    @property
    def capacity(self) -> float:
        """Most requests a second of one process of so many cores."""
        return min(1 / self.interpreter_s, self.cores / self.cpu_s)

    def times(self, cores: int) -> Times:
        """For a simulated process of so many cores."""
        if self.is_inline:
            return Times(self.loop_s, 0.0, lambda rows: 0.0, self.plan(cores), 0.0, self.request_bytes)
        alone, most = self.narrow_s[1], max(self.narrow_s)

        def run_s(rows: int) -> float:
            below = max(each for each in self.narrow_s if each <= rows)
            above = min((each for each in self.narrow_s if each >= rows), default=most)
            part = 0.0 if above == below else (rows - below) / (above - below)
            took = self.narrow_s[below] + part * (self.narrow_s[above] - self.narrow_s[below])
            return self.free_s * took / alone * max(1.0, rows / most)

        wide_s = self.free_s - alone + self.bare_wide_s
        return Times(
            self.loop_s, self.locked_s, run_s, self.plan(cores), max(wide_s, 0.0), self.request_bytes
        )


class ServiceTimes:
    """The whole file."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        rows = {(each["network"], each["kind"]): each for each in told["bodies"]}
        self.bodies = {key: self._body(rows, *key) for key in rows}

    @classmethod
    def read(cls, path: Path = FILE) -> ServiceTimes:
        """As it lies there."""
        return cls(json.loads(path.read_text()))

    @property
    def cases(self) -> dict[str, Body]:
        """By letter."""
        return {letter: self.bodies[key] for letter, key in CASES.items()}

    def proxy_s(self, request_bytes: int) -> float:
        """CPU seconds of the proxy for a request of that length: a line through the two measured."""
        proxy, short, long = (
            self.told["proxy"],
            self.bodies["tiny", "binary"],
            self.bodies["mobilenetv2", "binary"],
        )
        small, large = proxy["tiny"]["least"], proxy["mobilenetv2"]["least"]
        by_byte = (large - small) / (long.request_bytes - short.request_bytes)
        return float(small + by_byte * max(0, request_bytes - short.request_bytes))

    def _body(self, rows: dict[tuple[str, str], dict[str, Any]], network: str, kind: str) -> Body:
        row, plain = rows[network, kind], rows[network, "binary"]
        runs = self.told["runs"][network]
        loop, threads, bare = row["loop_s"]["least"], row["threads_s"]["least"], plain["threads_s"]["least"]
        # Reading JSON holds the interpreter; preparing a picture does not.
        locked = max(0.0, threads - bare) if kind == "json" else 0.0
        narrow = {int(key): value for key, value in runs["narrow_s"].items()}
        wide, size, rate = runs["wide_s"], row["request_bytes"], row["answers_per_s"]["most"]
        body = Body(network, kind, size, loop, locked, threads - locked, narrow, wide, rate)
        # On the event loop it is done in one go; what other threads took is the noise of the clock.
        return replace(body, loop_s=loop + threads, locked_s=0.0, free_s=0.0) if body.is_inline else body
