"""One run: a server, callers who check, bad clients beside them, and one fault after another."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.callers import Callers
from faults.changing import away_and_back, reload, swap
from faults.clock import Clock
from faults.corrupting import CORRUPTIONS
from faults.dawdling import BODY_TIMEOUT_S, HEADER_TIMEOUT_S, slow_body, slow_header, slow_reader
from faults.excuses import noted, settle
from faults.flooding import FLOODS, MAX_BODY_BYTES
from faults.host import Host
from faults.killing import kill_a_worker, kill_during_a_swap, order_while_a_worker_starts
from faults.leaving import half_request, left_alone, reset
from faults.ledger import Ledger
from faults.models import MODELS
from faults.stage import Stage
from faults.surroundings import clock_jump, disk_full
from faults.timeline import Timeline
from faults.vitals import Vitals
from shelves import Shelf

__all__ = ["BAD_CLIENTS", "STEPS", "Fault", "Run", "crowd", "run", "steps"]

# Returns in a word what came of it; fails by an exception.
Fault = Callable[[Stage], str]

# Carried out one after another; a new one is a new line here.
STEPS: Mapping[str, Fault] = {
    "hot swap": swap,
    "load the same version again": reload,
    "unload and load": away_and_back,
    **CORRUPTIONS,
    "kill -9 a worker": kill_a_worker,
    "kill -9 a worker during a swap": kill_during_a_swap,
    "kill -9 a worker, and order while another starts": order_while_a_worker_starts,
    "disk full": disk_full,
    "clock jump": clock_jump,
}
# Carried out all the time, by several at once.
BAD_CLIENTS: Mapping[str, Fault] = {
    "slow client: header": slow_header,
    "slow client: body": slow_body,
    "slow client: reads nothing": slow_reader,
    "half a request": half_request,
    "reset": reset,
    "left alone": left_alone,
    **FLOODS,
}

ENVIRONMENT = {
    "INFOLD_MODEL_CONTROL": "explicit",
    "INFOLD_LOAD_MODELS": '["*"]',
    "INFOLD_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    "INFOLD_BODY_TIMEOUT_S": str(BODY_TIMEOUT_S),
    "INFOLD_HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S),
}
CALLERS, BAD_CLIENTS_AT_ONCE = 8, 4
PAUSE_S = 0.02
BAD_PAUSE_S = 0.1
WARM_S = 6.0


@dataclass(slots=True)
class Run:
    """What a run works with.

    Attributes:
        stage: For faults.
        callers: Who check.
    """

    stage: Stage
    callers: Callers

    def vitals(self) -> Vitals:
        """What the service takes while nobody asks it."""
        self.callers.pause()
        try:
            return Vitals.at_rest(self.stage)
        finally:
            self.callers.go_on()

    def warmed(self) -> Vitals:
        """The same, once every thread and buffer there will be has been needed."""
        with crowd(self.stage):
            end = time.monotonic() + WARM_S
            for _ in MODELS:
                carry_out(self.stage, "hot swap", swap)
            time.sleep(max(0.0, end - time.monotonic()))
        return self.vitals()


@contextmanager
def run(folder: Path, seed: int = 0) -> Iterator[Run]:
    """A server that is asked; in the end every request has its fate in the books.

    Args:
        folder: An empty one.
        seed: Of all that is drawn.
    """
    ledger, timeline, clock = Ledger(), Timeline(), Clock(folder / "clock")
    shelf = Shelf(folder / "models")
    host = Host(shelf.root, folder, ENVIRONMENT | clock.environment)
    stage = Stage(host, shelf, timeline, ledger, clock, random.Random(seed))
    stage.set_up()
    with host:
        stage.is_served()
        callers = Callers(host, timeline, ledger, CALLERS, seed, PAUSE_S)
        with callers.asking():
            yield Run(stage, callers)
        assert host.stop() == 0
    with host.log.open("rb") as log:
        settle(ledger, noted(log, ledger.unanswered), host.kills, host.stops)


def carry_out(stage: Stage, name: str, fault: Fault, *, is_beside: bool = False) -> None:
    """A fault happens, and is noted; one that did not go as it must ends nothing else.

    Args:
        stage: Where it does.
        name: Of the fault.
        fault: It.
        is_beside: Others happen meanwhile, and may have killed the process that it was with.
    """
    kills = len(stage.host.kills)
    try:
        stage.ledger.fault(name, fault(stage))
    except Exception as failure:
        if is_beside and len(stage.host.kills) > kills:
            stage.ledger.fault(name, "cut by kill -9")
        else:
            stage.ledger.fail(name, repr(failure))


def steps(dice: random.Random, counts: Mapping[str, int]) -> list[tuple[str, Fault]]:
    """So many of each, in any order."""
    found = [(name, STEPS[name]) for name, count in counts.items() for _ in range(count)]
    dice.shuffle(found)
    return found


def one_after_another(stage: Stage, planned: Sequence[tuple[str, Fault]], seconds: float) -> None:
    """All of them, spread over a time; it takes longer if they do."""
    began = time.monotonic()
    for index, (name, fault) in enumerate(planned):
        time.sleep(max(0.0, began + seconds * index / len(planned) - time.monotonic()))
        carry_out(stage, name, fault)
    time.sleep(max(0.0, began + seconds - time.monotonic()))


@contextmanager
def crowd(stage: Stage) -> Iterator[None]:
    """Bad clients of every kind, in turn and several at once, until the end."""
    is_over, lock = threading.Event(), threading.Lock()
    turns = itertools.cycle(BAD_CLIENTS.items())

    def behave_badly() -> None:
        while not is_over.wait(BAD_PAUSE_S):
            with lock:
                name, fault = next(turns)
            carry_out(stage, name, fault, is_beside=True)

    threads = [threading.Thread(target=behave_badly, daemon=True) for _ in range(BAD_CLIENTS_AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
