"""What one closed loop on one model does not show: company, bursts and too much of both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from measure import Running, ServerError
from results import Results, Special

from servers import Server

PAIR = ("mobilenetv2", "resnet50")
OPEN = "mobilenetv2"
AT_KNEE = 8  # callers of the closed loop whose rate is called the knee
WAITING = 512  # connections of the open loop under overload: more than a server's queue holds

TWO_MODELS = "two models at once"
OPEN_LOOP = "open loop at 80 % of the knee"
OVERLOAD = "overload at 150 % of the knee"
Measure = Callable[[Server, str, float], list[Special]]


def two_models(server: Server, body: str, seconds: float) -> list[Special]:
    """Each model alone, then both, in one server; the sum of what is left to each."""
    with Running(server, PAIR, body) as running:
        alone = [running.measure(each, 4, seconds, 0.5).load for each in PAIR]
        both = [each.load for each in running.together([(each, 4) for each in PAIR], seconds, 0.5)]
    shares = [
        mine.answers_per_s / max(own.answers_per_s, 1e-9) for mine, own in zip(both, alone, strict=True)
    ]
    told = ", ".join(
        f"{name} {own.answers_per_s:.1f}/s alone, {mine.answers_per_s:.1f}/s beside the other ({share:.2f})"
        for name, own, mine, share in zip(PAIR, alone, both, shares, strict=True)
    )
    wrong = sum(each.wrong for each in (*alone, *both))
    return [Special(TWO_MODELS, server.name, sum(shares), f"sum {sum(shares):.2f}: {told}", wrong)]


def open_loop(server: Server, body: str, seconds: float) -> list[Special]:
    """Poisson arrivals below the knee and above it."""
    seconds = max(seconds, 1.0)
    with Running(server, [OPEN], body) as running:
        peak = running.measure(OPEN, AT_KNEE, seconds, 0.5).load
        knee = peak.answers_per_s
        calm = running.measure(OPEN, 64, 2 * seconds, 0.5, 0.8 * knee).load
        before = running.pss_mib()
        flood = running.measure(OPEN, WAITING, 2 * seconds, 1.0, 1.5 * knee)
    ratio = calm.p99_ms / calm.p50_ms if calm.p99_ms and calm.p50_ms else None
    first = Special(
        OPEN_LOOP,
        server.name,
        ratio,
        f"p99/p50 {shown(ratio)}: {calm.answers_per_s:.1f}/s of {0.8 * knee:.1f}/s asked, p50 "
        f"{shown(calm.p50_ms)} ms, p99 {shown(calm.p99_ms)} ms, at most {calm.late} waiting to be sent, "
        f"{calm.unanswered} unanswered, {calm.refused} refused",
        peak.wrong + calm.wrong,
    )
    load = flood.load
    goodput = load.answers_per_s / knee if knee else None
    second = Special(
        OVERLOAD,
        server.name,
        goodput,
        f"goodput {shown(goodput)} of the knee's {knee:.1f}/s: {load.refused} refused "
        f"({load.retry_after} with Retry-After), statuses {load.statuses or 'none'}, {load.errors} broken "
        f"connections, {load.unanswered} unanswered, p99 {shown(load.p99_ms)} ms, "
        f"memory +{flood.pss_mib - before:.0f} MiB",
        load.wrong,
    )
    return [first, second]


def measure_specials(
    results: Results, servers: list[Server], seconds: float, networks: list[str] | None
) -> None:
    """Those of the given servers that can be asked all this; binary where they take it."""
    kinds: list[tuple[str, Measure, set[str]]] = [
        (TWO_MODELS, two_models, set(PAIR)),
        (OPEN_LOOP, open_loop, {OPEN}),
    ]
    for server in servers:
        for name, kind, needed in kinds:
            if (networks is not None and not needed <= set(networks)) or server.environment.missing():
                continue
            if kind is two_models and not server.can_hold(PAIR):
                continue
            for body in ("binary", "json"):
                print(f"{name}: {server.name}, {body}", file=sys.stderr, flush=True)
                try:
                    done = kind(server, body, seconds)
                except ServerError as error:
                    done = [Special(name, server.name, None, f"not measured: {error}", error.wrong)]
                results.specials += [replace(each, words=f"{body}: {each.words}") for each in done]
                if done[0].value is not None:
                    break


def shown(value: float | None) -> str:
    """A figure, or that there is none."""
    return "-" if value is None else f"{value:.2f}"
