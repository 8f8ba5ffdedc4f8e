"""Why a request got no answer: a process that was killed, a service on its way down, or nothing at all.

The service's own log decides. Callers give every request an id that begins with its connection's, so
the log tells which worker a connection was with, and whether the service had begun with a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from faults.ledger import Ledger, Unanswered

__all__ = ["Kill", "Noted", "Stop", "noted", "settle"]

# What is sent on a connection whose other end has just died.
SOON_S = 2.0
# Between the order to kill and the end of a process.
DYING_S = 0.1
# What was sent so long before the order to go has been read by then.
UNREAD_S = 2.0
LINE = re.compile(rb'"request_id":"((f\d+)-\d+)"')
WORKER = re.compile(rb'"worker":(\d+)')
STATUS = re.compile(rb'"status":(\d+)')


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker was killed."""

    worker: int
    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    """The service was told to go, and was gone."""

    at: float
    gone: float


@dataclass(slots=True)
class Noted:
    """What the log says of those that got no answer.

    Attributes:
        statuses: By id of a request.
        workers: By connection.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    workers: dict[str, set[int]] = field(default_factory=dict)


def noted(log: Iterable[bytes], unanswered: Sequence[Unanswered]) -> Noted:
    """What a log says of some requests and their connections."""
    identities = {each.identity for each in unanswered}
    connections = {each.connection for each in unanswered}
    found = Noted()
    for line in log:
        ids = LINE.search(line)
        if ids is None or (connection := ids[2].decode()) not in connections:
            continue
        if worker := WORKER.search(line):
            found.workers.setdefault(connection, set()).add(int(worker[1]))
        if (identity := ids[1].decode()) in identities and (status := STATUS.search(line)):
            found.statuses[identity] = int(status[1])
    return found


def settle(ledger: Ledger, log: Noted, kills: Sequence[Kill], stops: Sequence[Stop]) -> None:
    """Tell all requests without an answer apart; none is left."""
    for each in ledger.unanswered:
        if any(_is_cut(each, kill, log) for kill in kills):
            ledger.cut += 1
        elif any(_is_untaken(each, stop, log) for stop in stops):
            ledger.untaken += 1
        else:
            status = log.statuses.get(each.identity, "nothing")
            ledger.lost.append(f"{each}; the log says {status}")
    ledger.unanswered.clear()


def _is_cut(each: Unanswered, kill: Kill, log: Noted) -> bool:
    """Its connection was with the worker that was killed, as far as anybody knows."""
    was_with = log.workers.get(each.connection, {kill.worker})
    is_open = each.opened <= kill.at + DYING_S and kill.at <= each.failed
    return is_open and was_with == {kill.worker} and each.sent <= kill.at + SOON_S


def _is_untaken(each: Unanswered, stop: Stop, log: Noted) -> bool:
    """It met a connection that was being closed, and nobody had begun with it."""
    is_meanwhile = stop.at <= each.failed and stop.at - UNREAD_S <= each.sent <= stop.gone + SOON_S
    return is_meanwhile and not each.received and each.identity not in log.statuses
