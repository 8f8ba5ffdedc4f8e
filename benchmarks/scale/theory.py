"""Mean waits that are known on paper, which the simulation is held against.

Rates are requests a second, times seconds; a wait ends where the service begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["bulk_wait", "erlang_wait", "fixed_wait", "pollaczek_khinchine_wait"]

SETTLED = 1e-13


def erlang_wait(rate: float, mean_s: float, servers: int) -> float:
    """M/M/c, by Erlang's C."""
    load = rate * mean_s
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    all_busy = last / (sum(load**n / math.factorial(n) for n in range(servers)) + last)
    return all_busy * mean_s / (servers - load)


def pollaczek_khinchine_wait(rate: float, mean_s: float, square_s: float) -> float:
    """M/G/1; `square_s` is the mean of the squared service time."""
    return rate * square_s / (2 * (1 - rate * mean_s))


def fixed_wait(rate: float, service_s: float, servers: int, most: int = 400) -> float:
    """M/D/c: whoever is served now has left one service time later, and nobody else has."""
    arrivals = _poisson(rate * service_s, most)
    share = np.zeros(most)
    share[0] = 1.0
    while True:
        waiting = np.zeros(most)
        waiting[0] = share[: servers + 1].sum()
        waiting[1 : most - servers] = share[servers + 1 :]
        following = np.convolve(waiting, arrivals)[:most]
        following /= following.sum()
        if np.abs(following - share).max() < SETTLED:
            break
        share = following
    in_queue = sum((n - servers) * share[n] for n in range(servers + 1, most))
    return float(in_queue / rate)


def bulk_wait(rate: float, run_s: Callable[[int], float], most_rows: int, most: int = 600) -> float:
    """One server that takes all who wait, up to so many, as soon as it is free, and one if it is idle."""
    moves = np.zeros((most, most))
    areas, times = np.zeros(most), np.zeros(most)
    for waiting in range(most):
        rows = min(max(waiting, 1), most_rows)
        left, seconds = max(waiting, 1) - rows, run_s(rows)
        arrivals = _poisson(rate * seconds, most - left)
        moves[waiting, left:] = arrivals
        moves[waiting] /= moves[waiting].sum()
        areas[waiting] = left * seconds + rate * seconds**2 / 2
        times[waiting] = seconds + (1 / rate if waiting == 0 else 0)
    share = np.full(most, 1 / most)
    while np.abs((following := share @ moves) - share).max() >= SETTLED:
        share = following
    return float(share @ areas / (share @ times) / rate)


def _poisson(mean: float, length: int) -> np.ndarray:
    logs: Sequence[float] = [n * math.log(mean) - mean - math.lgamma(n + 1) for n in range(length)]
    return np.exp(np.array(logs))
