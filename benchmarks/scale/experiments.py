"""What is simulated: each function is one question, with its seeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from capacity import NODE
from service_times import Body, ServiceTimes, Times
from theory import bulk_wait, erlang_wait, fixed_wait, pollaczek_khinchine_wait

from cluster import Cluster, Fleet, Outcome, Policy, closed_loop
from infold.serving.plan import Plan

__all__ = [
    "AFTER_S",
    "BURST",
    "BURST_S",
    "CALM",
    "NODES",
    "NOTICED_S",
    "SHARES",
    "Compared",
    "burst",
    "fleet_of",
    "killed_node",
    "open_loops",
    "real_rates",
    "steady",
    "textbook",
]

SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
NODES = 5  # of the fleet that is simulated; more of the same would change little
REQUESTS, REQUESTS_EACH = 8_000, 150  # of a simulated point, at least, and for each replica
TEXTBOOK_REQUESTS = 60_000
PROXY_BUSY = 0.6
BURST, BURST_S, CALM = 2.0, 5.0, 0.7
NOTICED_S, AFTER_S = 10.0, 10.0


@dataclass(frozen=True)
class Compared:
    """One figure, in two ways."""

    name: str
    expected: float
    simulated: float

    @property
    def ratio(self) -> float:
        """Simulated over expected."""
        return self.simulated / self.expected


def mean_wait(run_s: Callable[[int], float], cores: int, rate: float, most_rows: int = 1) -> float:
    """Of one process without loop, proxy or network, simulated."""
    times = Times(0.0, 0.0, run_s, Plan(1, cores, 0, most_rows, 0))
    fleet = Fleet(times, 1, cores, capacity_rows=10**9)
    return Cluster(fleet, [(rate, TEXTBOOK_REQUESTS / rate)], 2).run().mean_wait


@cache
def textbook() -> list[Compared]:
    """The simulated queue beside queues that are solved on paper; service times are 1 on average."""
    draws = random.Random(11)

    def exponential(rows: int) -> float:
        return draws.expovariate(1.0)

    def two_kinds(rows: int) -> float:  # nine short, one long
        return 0.5 if draws.random() < 0.9 else 5.5

    def fixed(rows: int) -> float:
        return 1.0

    def batch(rows: int) -> float:
        return 0.5 + 0.1 * rows

    square = 0.9 * 0.5**2 + 0.1 * 5.5**2
    asked = (
        ("M/M/1, 70 % busy", erlang_wait(0.7, 1, 1), (exponential, 1, 0.7)),
        ("M/M/4, 70 % busy", erlang_wait(2.8, 1, 4), (exponential, 4, 2.8)),
        ("M/G/1, 70 % busy, one of ten long", pollaczek_khinchine_wait(0.7, 1, square), (two_kinds, 1, 0.7)),
        ("M/D/1, 80 % busy", pollaczek_khinchine_wait(0.8, 1, 1), (fixed, 1, 0.8)),
        ("M/D/4, 90 % busy", fixed_wait(3.6, 1, 4), (fixed, 4, 3.6)),
        ("batches of up to 8, 0.5 + 0.1 a row, 5 rows a second", bulk_wait(5, batch, 8), (batch, 1, 5, 8)),
    )
    return [Compared(name, expected, mean_wait(*queue)) for name, expected, queue in asked]


def real_rates(times: ServiceTimes, cores: int, callers: dict[str, int]) -> Iterator[tuple[Body, Compared]]:
    """Closed loops as infold was measured on that many cores, and as they are simulated."""
    for body in times.bodies.values():
        simulated = closed_loop(body.times(cores), cores, callers[body.network], 2000)
        yield body, Compared(body.name, body.answers_per_s, simulated)


def open_loops(times: ServiceTimes, cores: int) -> Iterator[tuple[Compared, Compared]]:
    """Median and p99 of infold's open loops, in milliseconds."""
    for told in times.told["open_loop"]:
        body = times.bodies[told["network"], told["kind"]]
        rate = told["rate"]
        seconds = 20_000 / rate
        outcome = Cluster(Fleet(body.times(cores), 1, cores), [(rate, seconds)], 5).run()
        name = f"{body.name}, {rate:,.0f}/s, others took {told['others_cores']} cores"
        yield (
            Compared(name, told["p50_ms"], outcome.quantile_ms(0.5)),
            Compared(name, told["p99_ms"], outcome.quantile_ms(0.99)),
        )


def fleet_of(body: Body, times: ServiceTimes, policy: Policy = Policy.TWO_CHOICES, slowed: int = 0) -> Fleet:
    """NODES full nodes, and as many proxy threads as are PROXY_BUSY when the nodes are full."""
    each = NODE.cores // body.cores
    replicas, proxy_s = NODES * each, times.proxy_s(body.request_bytes)
    by_card = NODES * NODE.bytes_per_s / body.request_bytes
    proxies = max(2, round(min(replicas * body.capacity, by_card) * proxy_s / PROXY_BUSY))
    if policy is Policy.CONNECTIONS:
        proxies, proxy_s = 0, 0.0
    return Fleet(
        body.times(body.cores), replicas, body.cores, each, NODE.bytes_per_s, proxies, proxy_s, policy,
        slowed=slowed,
    )  # fmt: skip


def full_rate(fleet: Fleet, body: Body) -> float:
    """Requests a second at which the fleet's first part is at its end."""
    nodes = fleet.replicas / fleet.replicas_a_node
    return min(fleet.replicas * body.capacity, nodes * fleet.node_bytes_per_s / body.request_bytes)


@cache
def steady(
    body: Body, times: ServiceTimes, share: float, policy: Policy = Policy.TWO_CHOICES, slowed: int = 0
) -> Outcome:
    """A fleet at a share of what it can carry."""
    fleet = fleet_of(body, times, policy, slowed)
    rate = share * full_rate(fleet, body)
    seconds = max(REQUESTS, REQUESTS_EACH * fleet.replicas) / rate
    return Cluster(fleet, [(rate, seconds)], 7).run().between(0.2 * seconds)


def burst(body: Body, capacity_rows: int) -> Outcome:
    """Of one process: CALM, then BURST times what it can carry for a while, then CALM."""
    fleet = Fleet(body.times(body.cores), 1, body.cores, capacity_rows=capacity_rows)
    shares = ((CALM, 1.0), (BURST, BURST_S), (CALM, 1.0))
    phases = [(share * body.capacity, seconds) for share, seconds in shares]
    return Cluster(fleet, phases, 13).run().between(1.0, 1.0 + BURST_S)


def killed_node(
    body: Body, times: ServiceTimes, share: float, policy: Policy = Policy.TWO_CHOICES
) -> tuple[Outcome, Outcome]:
    """One of NODES dies: requests until it is left out, with those it had, and requests after that."""
    fleet = fleet_of(body, times, policy)
    rate, dies = share * full_rate(fleet, body), 1.0
    cluster = Cluster(fleet, [(rate, dies + NOTICED_S + AFTER_S)], 17)
    cluster.kill_node(0, dies, NOTICED_S)
    outcome = cluster.run()
    had = [each for each in outcome.lost if each < dies]
    unnoticed = outcome.between(dies, dies + NOTICED_S)
    unnoticed.lost.extend(had)
    return unnoticed, outcome.between(dies + NOTICED_S)
