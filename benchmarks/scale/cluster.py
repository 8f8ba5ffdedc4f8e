"""Callers, proxies, network cards and processes, simulated together.

Callers are an open loop: a Poisson process whose rate may change, so that a slow fleet cannot slow
them down. Each request meets one thread of a proxy, which chooses a replica by what that thread alone
knows, then the network card of the replica's node, then the replica.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from agenda import Agenda, Link
from process import CAPACITY_ROWS, Process, Request
from service_times import Times

__all__ = ["Cluster", "Fleet", "Outcome", "Policy", "closed_loop", "quantile"]

SLOWER = 1.5
CONNECTIONS_EACH = 8  # of Policy.CONNECTIONS, for each replica


class Policy(StrEnum):
    """Who is next."""

    TWO_CHOICES = "power of two choices"
    ROUND_ROBIN = "round robin"
    RANDOM = "random"
    CONNECTIONS = "connections dealt once"  # a Kubernetes Service without a proxy that reads HTTP


@dataclass(frozen=True)
class Fleet:
    """What there is.

    Attributes:
        replicas: Processes.
        cores: Of each.
        replicas_a_node: That share a network card; 0 for cards that take no time.
        node_bytes_per_s: Of one card, one way.
        proxies: Threads of proxies; 0 for none.
        proxy_s: Of one request.
        capacity_rows: Most rows that wait in a replica.
        slowed: The first so many replicas take SLOWER times as long: an older machine, a noisy neighbour.
    """

    times: Times
    replicas: int
    cores: int
    replicas_a_node: int = 0
    node_bytes_per_s: float = 1.0
    proxies: int = 0
    proxy_s: float = 0.0
    policy: Policy = Policy.TWO_CHOICES
    capacity_rows: int = CAPACITY_ROWS
    slowed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of requests; each is known by when it was sent."""

    answered: list[tuple[float, float, float]] = field(default_factory=list)  # sent, latency, wait for a run
    refused: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)

    def between(self, start: float, end: float = inf) -> Outcome:
        """Of the requests that were sent then."""
        return Outcome(
            [each for each in self.answered if start <= each[0] < end],
            [each for each in self.refused if start <= each < end],
            [each for each in self.lost if start <= each < end],
        )

    @property
    def sent(self) -> int:
        """How many there were."""
        return len(self.answered) + len(self.refused) + len(self.lost)

    @property
    def mean_wait(self) -> float:
        """For a run."""
        return sum(wait for _, _, wait in self.answered) / len(self.answered)

    def quantile_ms(self, part: float) -> float:
        """Of the latencies, in milliseconds."""
        return 1e3 * quantile([latency for _, latency, _ in self.answered], part)


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which that part of them lies."""
    ordered = sorted(values)
    return ordered[int(part * (len(ordered) - 1) + 0.5)] if ordered else float("nan")


class Cluster:
    """A fleet and its callers.

    Args:
        fleet: What there is.
        phases: Requests a second, and for how many seconds, one after the other.
        seed: Of everything drawn.
    """

    def __init__(self, fleet: Fleet, phases: Sequence[tuple[float, float]], seed: int) -> None:
        self.agenda, self.outcome = Agenda(), Outcome()
        self._fleet, self._random = fleet, random.Random(seed)
        self._phases = list(phases)
        self.processes = [self._process(number < fleet.slowed) for number in range(fleet.replicas)]
        nodes = -(-fleet.replicas // fleet.replicas_a_node) if fleet.replicas_a_node else 0
        self._cards = [Link(self.agenda) for _ in range(nodes)]
        self._proxies = [Link(self.agenda) for _ in range(fleet.proxies)]
        threads = max(1, fleet.proxies)
        self._open = [[0] * fleet.replicas for _ in range(threads)]
        self._turn = [self._random.randrange(fleet.replicas) for _ in range(threads)]
        self._dealt = [
            self._random.randrange(fleet.replicas) for _ in range(CONNECTIONS_EACH * fleet.replicas)
        ]
        self._listed = [True] * fleet.replicas  # what proxies believe
        self._choose: Callable[[int], int] = {
            Policy.TWO_CHOICES: self._of_two,
            Policy.ROUND_ROBIN: self._next,
            Policy.RANDOM: self._any,
            Policy.CONNECTIONS: lambda proxy: self._dealt[self._random.randrange(len(self._dealt))],
        }[fleet.policy]
        self._transfer_s = fleet.times.request_bytes / fleet.node_bytes_per_s

    def run(self) -> Outcome:
        """All requests have been answered, refused or lost."""
        self._phase(0)
        self.agenda.run()
        return self.outcome

    def kill_node(self, node: int, at_s: float, noticed_s: float) -> None:
        """A node will be silent from some time on; proxies leave it out so much later."""
        each = self._fleet.replicas_a_node
        gone = range(node * each, (node + 1) * each)

        def kill(_: object) -> None:
            for number in gone:
                self.processes[number].is_alive = False

        def leave_out(_: object) -> None:
            for number in gone:
                self._listed[number] = False

        self.agenda.at(at_s, kill, None)
        self.agenda.at(at_s + noticed_s, leave_out, None)

    # -- callers ----------------------------------------------------------------------------------

    def _phase(self, number: int) -> None:
        if number < len(self._phases):
            rate, seconds = self._phases[number]
            self._following((rate, self.agenda.now + seconds, number))

    def _following(self, phase: tuple[float, float, int]) -> None:
        rate, until, number = phase
        time = self.agenda.now + self._random.expovariate(rate)
        if time < until:
            self.agenda.at(time, self._send, phase)
        else:
            self.agenda.at(until, self._phase, number + 1)

    def _send(self, phase: tuple[float, float, int]) -> None:
        request = Request(self.agenda.now)
        if self._proxies:
            request.proxy = self._random.randrange(len(self._proxies))
            self._proxies[request.proxy].send(self._fleet.proxy_s, self._forward, request)
        else:
            self._forward(request)
        self._following(phase)

    # -- proxies ----------------------------------------------------------------------------------

    def _forward(self, request: Request) -> None:
        request.replica = self._choose(request.proxy)
        self._open[request.proxy][request.replica] += 1
        if self._cards:
            card = self._cards[request.replica // self._fleet.replicas_a_node]
            card.send(self._transfer_s, self._deliver, request)
        else:
            self._deliver(request)

    def _deliver(self, request: Request) -> None:
        process = self.processes[request.replica]
        if process.is_alive:
            process.arrive(request)
        else:  # nobody says so: for the proxy it stays open
            self._lost(request)

    def _of_two(self, proxy: int) -> int:
        one, other = self._any(proxy), self._any(proxy)
        mine = self._open[proxy]
        return one if mine[one] <= mine[other] else other

    def _any(self, proxy: int) -> int:
        while True:
            number = int(self._random.random() * len(self._listed))
            if self._listed[number]:
                return number

    def _next(self, proxy: int) -> int:
        while True:
            number = self._turn[proxy] = (self._turn[proxy] + 1) % len(self._listed)
            if self._listed[number]:
                return number

    # -- replicas ---------------------------------------------------------------------------------

    def _process(self, is_slow: bool) -> Process:
        fleet = self._fleet
        times = fleet.times.slower(SLOWER) if is_slow else fleet.times
        told = (self._answered, self._refused, self._lost)
        return Process(self.agenda, times, fleet.cores, *told, fleet.capacity_rows)

    def _answered(self, request: Request) -> None:
        self._open[request.proxy][request.replica] -= 1
        wait = max(0.0, request.taken - request.sent)
        self.outcome.answered.append((request.sent, self.agenda.now - request.sent, wait))

    def _refused(self, request: Request) -> None:
        self._open[request.proxy][request.replica] -= 1
        self.outcome.refused.append(request.sent)

    def _lost(self, request: Request) -> None:
        self.outcome.lost.append(request.sent)


def closed_loop(times: Times, cores: int, callers: int, answers: int) -> float:
    """Answers a second of one process where so many callers ask again as soon as they are answered."""
    agenda, ended = Agenda(), []

    def again(request: Request) -> None:
        ended.append(agenda.now)
        if len(ended) < answers:
            agenda.at(agenda.now, process.arrive, Request(agenda.now))

    process = Process(agenda, times, cores, again, again, again)
    for _ in range(callers):
        agenda.at(0.0, process.arrive, Request(0.0))
    agenda.run()
    first = answers // 5
    return (answers - 1 - first) / (ended[answers - 1] - ended[first])
