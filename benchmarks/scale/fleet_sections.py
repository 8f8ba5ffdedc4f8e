"""The figures of docs/scale.md on a fleet: how busy it may be, who deals out, what is lost, what is spare."""

from __future__ import annotations

from collections.abc import Callable

from experiments import (
    AFTER_S,
    BURST,
    BURST_S,
    CALM,
    NODES,
    NOTICED_S,
    SHARES,
    burst,
    fleet_of,
    killed_node,
    steady,
)
from process import CAPACITY_ROWS, MOST_BYTES, MOST_CONNECTIONS
from service_times import ServiceTimes
from writing import figure, paragraph, table

from cluster import CONNECTIONS_EACH, SLOWER, Policy

__all__ = ["autoscaling", "depth", "latency", "node", "policies", "spare"]

FULL = 0.85  # what a fleet may reach when something is gone
DEPTHS = (8, 32, 64, 128, 256, 1024)
SLOW_SHARE = 0.7
KILLED = (
    *((Policy.TWO_CHOICES, share) for share in (0.6, 0.7, 0.85)),
    (Policy.ROUND_ROBIN, 0.6),
    (Policy.RANDOM, 0.6),
)
FLEETS = (3, 5, 10, 30, 100)
GONE: dict[str, Callable[[int], int]] = {
    "one node": lambda nodes: 1,
    "two nodes": lambda nodes: 2,
    "a zone, a third of them": lambda nodes: -(-nodes // 3),
}
DELAYS_S = {
    "15 s: a replica gets its place and starts": 15,
    "45 s: the same after metrics, 15, and autoscaler, 15": 45,
    "120 s: the same, and the image is pulled": 120,
    "300 s: the same, and a machine is got": 300,
}
RAMPS_S = {"1 min": 60, "5 min": 300, "15 min": 900, "1 h": 3600}


def latency(times: ServiceTimes) -> str:
    """Against how busy the fleet is."""
    rows = []
    for letter, body in times.cases.items():
        outcomes = [steady(body, times, share) for share in SHARES]
        told = [f"{figure(each.quantile_ms(0.5))}; {figure(each.quantile_ms(0.99))}" for each in outcomes]
        rows.append([f"({letter}) {body.name}", *told])
    for letter in "ce":
        waits = [1e3 * steady(times.cases[letter], times, share).mean_wait for share in SHARES]
        rows.append([f"({letter}) mean time from caller to run", *map(figure, waits)])
    return table([f"p50; p99 in ms, {NODES} nodes", *(f"{share:.0%} busy" for share in SHARES)], rows)


def policies(times: ServiceTimes) -> str:
    """Who chooses how."""
    body = times.cases["c"]
    fleet = fleet_of(body, times)
    dealt = Policy.CONNECTIONS.value.capitalize()
    words = paragraph(
        f"{fleet.replicas} processes on {NODES} nodes, {fleet.proxies} threads of proxies that",
        "know nothing of each",
        f"other. A slow node takes {SLOWER:g} times as long. *{dealt}* has no proxy:",
        f"{CONNECTIONS_EACH} busy connections for each process, each to a process that was drawn",
        "when it was opened.",
    )
    rows = []
    for policy in Policy:
        outcomes = [steady(body, times, share, policy) for share in SHARES]
        outcomes.append(steady(body, times, SLOW_SHARE, policy, fleet.replicas_a_node))
        rows.append([policy.value, *(figure(each.quantile_ms(0.99)) for each in outcomes)])
    heads = ["(c), p99 in ms", *(f"{each:.0%} busy" for each in SHARES), f"{SLOW_SHARE:.0%}, one node slow"]
    return f"{words}\n\n{table(heads, rows)}"


def depth(times: ServiceTimes) -> str:
    """How deep queues must be."""
    bodies, long = {letter: times.cases[letter] for letter in "ce"}, times.cases["b"]
    words = paragraph(
        f"One process, {CALM:.0%} busy, is asked {BURST:g} times what it can do for {BURST_S:g}",
        "s. No depth answers",
        "more than capacity allows; a deep queue turns refusals into waiting. For (b) the bodies",
        "count first:",
        f"{MOST_BYTES / 2**30:g} GiB of them are {MOST_BYTES // long.request_bytes} requests. For",
        "(a) nothing queues",
        f"in infold but connections, {MOST_CONNECTIONS:,} at most.",
    )
    heads = ["`capacity_rows`"]
    for letter in bodies:
        heads += [f"({letter}) a full queue, ms", "refused", "p99, ms"]
    rows = []
    for rows_deep in DEPTHS:
        row = [f"{rows_deep}{' (default)' if rows_deep == CAPACITY_ROWS else ''}"]
        for body in bodies.values():
            outcome = burst(body, rows_deep)
            refused = len(outcome.refused) / outcome.sent
            row += [
                figure(1e3 * rows_deep / body.capacity),
                f"{refused:.0%}",
                figure(outcome.quantile_ms(0.99)),
            ]
        rows.append(row)
    return f"{words}\n\n{table(heads, rows)}"


def node(times: ServiceTimes) -> str:
    """What a killed node does."""
    rows = []
    for policy, share in KILLED:
        unnoticed, after = killed_node(times.cases["e"], times, share, policy)
        lost = len(unnoticed.lost)
        row = [policy.value, f"{share:.0%}", f"{share * NODES / (NODES - 1):.0%}"]
        row += [f"{lost:,} of {unnoticed.sent:,}", f"{lost / unnoticed.sent:.1%}"]
        rows.append([*row, figure(unnoticed.quantile_ms(0.99)), figure(after.quantile_ms(0.99))])
    heads = [
        f"(e), one node of {NODES} falls silent",
        "busy before",
        "after",
        f"lost in {NOTICED_S:g} s",
        "that is",
    ]
    heads += ["p99 in that time, ms", f"p99 in the next {AFTER_S:g} s, ms"]
    return table(heads, rows)


def spare(times: ServiceTimes) -> str:
    """N + k."""
    del times
    rows = [
        [what, *(f"{FULL * (nodes - gone(nodes)) / nodes:.0%}" for nodes in FLEETS)]
        for what, gone in GONE.items()
    ]
    heads = [f"may be busy before, to be {FULL:.0%} busy without", *(f"of {nodes} nodes" for nodes in FLEETS)]
    return table(heads, rows)


def autoscaling(times: ServiceTimes) -> str:
    """How fast it must be."""
    del times
    rows = [
        [name, *(f"{FULL / (1 + delay / ramp):.0%}" for ramp in RAMPS_S.values())]
        for name, delay in DELAYS_S.items()
    ]
    return table(["may be busy at most, if load doubles within", *RAMPS_S], rows)
