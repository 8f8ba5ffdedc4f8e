"""Clients that take their time: a byte now, a byte then."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator

from faults.questions import BUSY, reason_of
from faults.stage import Stage
from fuzz.asking import Answer, answers_in

__all__ = ["BODY_TIMEOUT_S", "HEADER_TIMEOUT_S", "slow_body", "slow_header", "slow_reader"]

# What the service is told: a head, and a body, must come within it.
HEADER_TIMEOUT_S, BODY_TIMEOUT_S = 2.0, 3.0
TIMEOUT_S = 30.0
BYTE_S = 0.05
HEAD = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
READ = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"


def slow_header(stage: Stage) -> str:
    """A request whose head comes byte by byte, without an end."""
    drops = itertools.chain(HEAD % 10, itertools.cycle(b"x-slow: y\r\n"))
    with _connected(stage) as slow:
        given = _drip(slow, drops, HEADER_TIMEOUT_S + TIMEOUT_S)
    assert given is not None and given.status == 408 and reason_of(given), given
    return "408"


def slow_body(stage: Stage) -> str:
    """A request whose body comes byte by byte: it is refused once its time is over."""
    drops = itertools.cycle(b" ")
    with _connected(stage) as slow:
        slow.sendall(HEAD % 1000 + b"\r\n")
        given = _drip(slow, drops, BODY_TIMEOUT_S + TIMEOUT_S)
    assert given is not None and given.status in (408, *BUSY) and reason_of(given), given
    return str(given.status)


def slow_reader(stage: Stage) -> str:
    """A client that asks for what is long, over and over, and reads none of it."""
    with _connected(stage) as deaf:
        deaf.settimeout(1.0)
        try:
            for _ in range(200):
                deaf.sendall(READ * 2000)
        except TimeoutError:
            return "not read on"
        except ConnectionError:
            return "cut off"
    return "taken in"


def _drip(slow: socket.socket, drops: Iterator[int], seconds: float) -> Answer | None:
    """What comes while drops are sent: an answer, status 0 where the connection is closed, or nothing."""
    end, data = time.monotonic() + seconds, b""
    slow.settimeout(BYTE_S)
    while time.monotonic() < end:
        try:
            slow.sendall(bytes([next(drops)]))
        except ConnectionError:
            return Answer(0, {}, data)
        try:
            part = slow.recv(2**16)
        except TimeoutError:
            continue
        except ConnectionError:
            return Answer(0, {}, data)
        if not part:
            return Answer(0, {}, data)
        data += part
        answers, _ = answers_in(data)
        if answers:
            return answers[0]
    return None


def _connected(stage: Stage) -> socket.socket:
    return socket.create_connection(stage.host.address, timeout=TIMEOUT_S)
