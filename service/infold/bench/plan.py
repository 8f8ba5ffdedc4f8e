"""What is asked of a bench, and whether it makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from infold.bench.loops import Timing
from infold.errors import ConfigError
from infold.rest.access.client_tls import ClientTls
from infold.runtime.options import Device

__all__ = ["Loops", "Plan"]

MOST_CALLERS = 4096
MOST_RATE = 1e6


class Loops(StrEnum):
    """Which loops run."""

    CLOSED = "closed"
    OPEN = "open"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a bench.

    Attributes:
        source: `http://host:port` or `https://host:port`, or a model repository folder.
        model: Its name; None takes the only one.
        version: None takes the one that is served by default.
        loops: Which loops run.
        concurrency: Callers of each closed load.
        rates: Requests a second of each open load; None takes them from the closed loop's peak.
        timing: Length of each load.
        body: `json`, `binary`, or a file that is sent as it is.
        path: Where requests go; None is the model's infer path.
        content_type: Of a file; None guesses from its name.
        samples, shapes, rows: See `request_tensors`.
        headers: Sent with every request.
        device: What runs the models of a repository.
        tls: How a server over https is believed to be the one.
    """

    source: str
    model: str | None = None
    version: int | None = None
    loops: Loops = Loops.BOTH
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rates: tuple[float, ...] | None = None
    timing: Timing = field(default_factory=lambda: Timing(3.0, 0.5))
    body: str = "json"
    path: str | None = None
    content_type: str | None = None
    samples: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rows: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    device: Device = Device.CPU
    tls: ClientTls = field(default_factory=ClientTls)

    @property
    def sends_tensors(self) -> bool:
        """Bodies are written from tensors, not read from a file."""
        return self.body in ("json", "binary")

    def check(self) -> None:
        """Return if it makes sense.

        Raises:
            ConfigError: Something does not; names the option.
        """
        if not self.concurrency or not all(1 <= each <= MOST_CALLERS for each in self.concurrency):
            raise ConfigError("--concurrency", f"must be numbers between 1 and {MOST_CALLERS}")
        if self.rates is not None and not (self.rates and all(0 < each <= MOST_RATE for each in self.rates)):
            raise ConfigError("--rates", f"must be 'auto', or rates above 0 and up to {MOST_RATE:,.0f}/s")
        if not 0 < self.timing.seconds <= 3600:
            raise ConfigError("--seconds", "must be above 0 and at most 3600")
        if not 0 <= self.timing.warmup_s <= 3600:
            raise ConfigError("--warmup", "must be between 0 and 3600 seconds")
        if self.path is not None and not self.path.startswith("/"):
            raise ConfigError("--path", "must start with /")
        if not self.sends_tensors:
            if not Path(self.body).is_file():
                raise ConfigError("--body", f"{self.body!r} is neither 'json', 'binary' nor a file")
        elif self.content_type is not None:
            raise ConfigError("--content-type", "goes with a file as --body")
        for name, value in self.headers:
            if not name.strip() or not (name + value).isprintable():
                raise ConfigError("--header", "must be of the form 'Name: value'")
