"""Clients that leave before they have what they asked for."""

from __future__ import annotations

import contextlib
import random
import socket
import struct

from faults.models import BROAD
from faults.questions import Question, question
from faults.stage import Stage

__all__ = ["half_request", "left_alone", "reset"]

TIMEOUT_S = 30.0


def half_request(stage: Stage) -> str:
    """Any part of a request, and then a farewell."""
    with _connected(stage) as leaving:
        wire = _wire(stage)
        leaving.sendall(wire[: stage.dice.randrange(len(wire))])
        if stage.dice.random() < 0.5:
            leaving.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                leaving.settimeout(1)
                leaving.recv(2**16)
    return "left"


def reset(stage: Stage) -> str:
    """Any part of a request or all of it, and then a reset."""
    leaving = _connected(stage)
    wire = _wire(stage)
    leaving.sendall(wire[: stage.dice.randrange(len(wire) + 1)])
    if stage.dice.random() < 0.3:
        leaving.sendall(wire)  # which may be no request at all behind half of one
    leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    leaving.close()
    return "reset"


def left_alone(stage: Stage) -> str:
    """Several whole requests at once, and nobody there when they are answered."""
    with _connected(stage) as leaving:
        leaving.sendall(b"".join(_wire(stage) for _ in range(5)))
    return "left"


def _wire(stage: Stage) -> bytes:
    """A sound request, which is long now and then; its id is none that callers have."""
    dice = random.Random(stage.dice.getrandbits(32))
    asked: Question = question(dice, stage.timeline)
    while asked.model == BROAD and dice.random() < 0.5:
        asked = question(dice, stage.timeline)
    return asked.request("leaves").wire


def _connected(stage: Stage) -> socket.socket:
    return socket.create_connection(stage.host.address, timeout=TIMEOUT_S)
