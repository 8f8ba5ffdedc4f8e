"""What infold sets out to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from results import Results
from specials import OPEN_LOOP, TWO_MODELS

from servers import SERVERS

OURS, OURS_TWICE = "infold", "infold, 2 workers"
FLOOR, FLOOR_TWICE = "bare ASGI", "bare ASGI, 2 workers"

Figure = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """One goal; `figure` is None where something it needs was not measured."""

    words: str
    figure: Figure
    bound: float
    at_least: bool = True
    by_cpu: Figure | None = None  # the same by CPU seconds, where the figure is of answers a second

    def is_met(self, results: Results) -> bool | None:
        """Whether it was reached; None if it was not measured."""
        value = self.figure(results)
        if value is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound


def of(network: str, body: str, concurrency: int, figure: str, server: str = OURS) -> Figure:
    """A figure of a row."""
    return lambda results: results.figure(network, body, concurrency, server, figure)


def ratio(one: Figure, other: Figure) -> Figure:
    """One figure as a multiple of another."""

    def divided(results: Results) -> float | None:
        a, b = one(results), other(results)
        return a / b if a is not None and b else None

    return divided


def above_bare(network: str) -> Figure:
    """Milliseconds that serving adds to a lone run on all cores, between the medians."""

    def added(results: Results) -> float | None:
        p50 = results.figure(network, "binary", 1, OURS, "p50_ms")
        bare = results.figure(network, "binary", 1, OURS, "bare_wide_p50_ms")
        return p50 - bare if p50 is not None and bare is not None else None

    return added


def best_peer(network: str, body: str, concurrency: int, figure: str) -> Figure:
    """The largest figure of all peers."""

    def largest(results: Results) -> float | None:
        peers = [each.name for each in SERVERS if each.is_peer]
        values = [results.figure(network, body, concurrency, each, figure) for each in peers]
        return max((each for each in values if each is not None), default=None)

    return largest


def special(name: str) -> Figure:
    """The figure of a special row."""
    return lambda results: results.special(name, OURS)


def share(words: str, network: str, body: str, bound: float, server: str = OURS) -> Target:
    """Eight callers' answers as a share of the bare loop's."""
    told = f"{words}, 8 callers{server.removeprefix(OURS)}: share of bare"
    by_cpu = of(network, body, 8, "cpu_share", server)
    return Target(told, of(network, body, 8, "share", server), bound, by_cpu=by_cpu)


def compared(words: str, make: Callable[[str], Figure], bound: float) -> Target:
    """Answers a second as a multiple of others, and the same by CPU seconds."""
    return Target(words, make("answers_per_s"), bound, by_cpu=make("answers_per_cpu_s"))


TARGETS = (
    share("ResNet-50 binary", "resnet50", "binary", 0.88),
    share("MobileNetV2 binary", "mobilenetv2", "binary", 0.88),
    Target("MobileNetV2 binary, 1 caller: p50 above bare on all cores, ms", above_bare("mobilenetv2"),
           0.8, at_least=False),
    Target("ResNet-50 binary, 1 caller: p50 above bare on all cores, ms", above_bare("resnet50"),
           2.5, at_least=False),
    share("MobileNetV2 JSON", "mobilenetv2", "json", 0.32),
    share("MobileNetV2 JSON", "mobilenetv2", "json", 0.32, OURS_TWICE),
    share("MobileNetV2 JPEG 640x480", "mobilenetv2", "jpeg", 0.65),
    Target("ResNet-50 JSON, 8 callers: share of bare per CPU second", of("resnet50", "json", 8, "cpu_share"),
           0.70),
    Target("ResNet-50 JSON, 8 callers, 2 workers: share of bare per CPU second",
           of("resnet50", "json", 8, "cpu_share", OURS_TWICE), 0.70),
    compared("tiny JSON, 32 callers, one process: of the bare ASGI floor",
             lambda by: ratio(of("tiny", "json", 32, by), of("tiny", "json", 32, by, FLOOR)), 0.80),
    compared("tiny JSON, 32 callers, one process: multiple of plain FastAPI",
             lambda by: ratio(of("tiny", "json", 32, by), of("tiny", "json", 32, by, "plain")), 6),
    compared("tiny JSON, 32 callers, two processes: multiple of the best peer",
             lambda by: ratio(of("tiny", "json", 32, by, OURS_TWICE), best_peer("tiny", "json", 32, by)), 1),
    compared("tiny binary, 32 callers, two processes: of the bare ASGI floor",
             lambda by: ratio(of("tiny", "binary", 32, by, OURS_TWICE),
                              of("tiny", "binary", 32, by, FLOOR_TWICE)), 0.80),
    Target("tiny JSON, 1 caller: p50, ms", of("tiny", "json", 1, "p50_ms"), 0.20, at_least=False),
    compared("ResNet-50 binary, 8 callers: int8 over float32",
             lambda by: ratio(of("resnet50_int8", "binary", 8, by), of("resnet50", "binary", 8, by)), 2.5),
    Target("ResNet-50 binary, 8 callers: memory, MiB", of("resnet50", "binary", 8, "pss_mib"),
           360, at_least=False),
    Target("tiny JSON, 32 callers: memory, MiB", of("tiny", "json", 32, "pss_mib"), 90, at_least=False),
    Target("two models at once: sum of shares of each alone", special(TWO_MODELS), 0.9),
    Target("open loop at 80 % of the knee: p99 over p50", special(OPEN_LOOP), 3, at_least=False),
)  # fmt: skip
