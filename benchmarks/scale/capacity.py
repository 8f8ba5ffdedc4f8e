"""How much it takes for 10^5 requests a second: arithmetic from service times, no chance in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from service_times import Body, ServiceTimes

__all__ = ["GIGABIT", "NODE", "RATE", "Need", "Node", "need_of"]

RATE = 1e5
GIGABIT = 1e9 / 8  # bytes


@dataclass(frozen=True)
class Node:
    """What is assumed of a machine, and how far it may be filled."""

    cores: int = 16
    gigabits: float = 25.0
    busy_cores: float = 0.6
    busy_card: float = 0.7

    @property
    def bytes_per_s(self) -> float:
        """Of its network card, one way."""
        return self.gigabits * GIGABIT


NODE = Node()


@dataclass(frozen=True)
class Need:
    """What one kind of request asks for at RATE.

    Attributes:
        most_per_node: Requests a second at which each part of one full node is at its end.
        cores: Busy on average, without the proxies'.
        nodes: Of infold, filled as far as a node may be.
        proxy_cores: Busy on average.
        proxy_nodes: Likewise filled, by cores or by network, whichever is more.
    """

    most_per_node: dict[str, float]
    cores: float
    gigabits: float
    processes: int
    nodes: int
    nodes_by_cores: int
    nodes_by_card: int
    proxy_cores: float
    proxy_nodes: int

    @property
    def first(self) -> str:
        """The part of a node that is at its end first."""
        return min(self.most_per_node, key=lambda part: self.most_per_node[part])


def need_of(body: Body, times: ServiceTimes, node: Node = NODE, rate: float = RATE) -> Need:
    """What it takes."""
    processes = node.cores // body.cores
    most = {
        "cores": node.cores / body.cpu_s,
        "interpreter": processes / body.interpreter_s,
        "network": node.bytes_per_s / body.request_bytes,
    }
    if body.is_inline:  # the loop is all there is: its limit is that of the cores
        del most["interpreter"]
    inside = min(most["cores"], most.get("interpreter", math.inf))
    by_cores = math.ceil(rate / (inside * node.busy_cores))
    by_card = math.ceil(rate / (most["network"] * node.busy_card))
    proxy_s = times.proxy_s(body.request_bytes)
    proxies = max(math.ceil(rate * proxy_s / (node.cores * node.busy_cores)), by_card)
    nodes = max(by_cores, by_card)
    return Need(
        most,
        rate * body.cpu_s,
        rate * body.request_bytes / GIGABIT,
        nodes * processes,
        nodes,
        by_cores,
        by_card,
        rate * proxy_s,
        proxies,
    )
