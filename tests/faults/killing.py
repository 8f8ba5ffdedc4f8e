"""Processes that end without a farewell."""

from __future__ import annotations

import threading

from faults.changing import away_and_back
from faults.host import WORKERS
from faults.models import LINE
from faults.stage import Stage, until

__all__ = ["kill_a_worker", "kill_during_a_swap", "order_while_a_worker_starts"]

STARTING_S = 0.8


def kill_a_worker(stage: Stage) -> str:
    """Kill -9: readiness shows it, another takes its place, and those it was answering ask again."""
    died = stage.host.count("worker died")
    _kill(stage)
    until(lambda: not stage.is_ready(), "readiness to show that a worker is gone")
    until(lambda: stage.host.count("worker died") == died + 1, "the supervisor to notice")
    _is_whole_again(stage)
    return "respawned"


def kill_during_a_swap(stage: Stage) -> str:
    """The order is under way in both workers when one of them goes."""
    failures: list[BaseException] = []

    def swap() -> None:
        try:
            stage.swap(LINE)
        except BaseException as failure:
            failures.append(failure)

    died = stage.host.count("worker died")
    swapping = threading.Thread(target=swap)
    swapping.start()
    threading.Event().wait(stage.dice.random() * 0.3)  # anywhere in it
    _kill(stage)
    swapping.join()
    if failures:
        raise failures[0]
    until(lambda: stage.host.count("worker died") == died + 1, "the supervisor to notice")
    _is_whole_again(stage)
    return "respawned, swapped"


def order_while_a_worker_starts(stage: Stage) -> str:
    """An order that a worker has missed is obeyed before it answers anybody."""
    started = stage.host.count("worker started")
    _kill(stage)
    until(lambda: stage.host.count("worker started") == started + 1, "a new worker to be started")
    threading.Event().wait(stage.dice.random() * STARTING_S)
    if stage.dice.random() < 0.5:
        stage.swap(LINE)
    else:
        away_and_back(stage)
    _is_whole_again(stage)
    return "respawned, obeyed"


def _kill(stage: Stage) -> None:
    stage.host.kill_a_worker(stage.dice.randrange(WORKERS))


def _is_whole_again(stage: Stage) -> None:
    until(lambda: stage.host.count("worker ready") == stage.host.count("worker started"), "a new worker")
    until(stage.is_ready, "readiness to come back")
