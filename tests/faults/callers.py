"""Clients that check every answer: one request after another over kept connections, until each has one."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from faults.host import Host
from faults.ledger import Ledger, Unanswered
from faults.questions import Kind, Question, Verdict, judged, question
from faults.timeline import Timeline
from fuzz.asking import Answer, Request, answers_in

__all__ = ["Callers", "Cut", "Kept"]

TIMEOUT_S = 40.0  # longer than the service's own deadline
PATIENCE_S = 60.0  # for a server that takes the place of another
LIFE = 200  # requests over one connection
NUMBERS = itertools.count(1)


class Cut(Exception):  # noqa: N818 - nobody's error
    """A connection broke before an answer was there."""

    def __init__(self, received: int, why: object) -> None:
        self.received = received
        super().__init__(repr(why))


class Kept:
    """A connection for one request after another.

    Args:
        address: Host and port.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.name = f"f{next(NUMBERS)}"
        self.count = 0
        self.opened = time.monotonic()
        self._socket = socket.create_connection(address, timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: Request) -> Answer:
        """The answer; there is exactly one, and nothing behind it."""
        self.count += 1
        data = b""
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # an answer may be there already
                self._socket.sendall(request.wire)
            while True:
                answers, rest = answers_in(data)
                if answers:
                    assert len(answers) == 1 and not rest, (answers[1:], rest[:200])
                    return answers[0]
                part = self._socket.recv(2**18)
                if not part:
                    raise Cut(len(data), "closed")
                data += part
        except OSError as failure:
            raise Cut(len(data), failure) from failure

    def close(self) -> None:
        """Nothing is open."""
        self._socket.close()


class Callers:
    """Threads that ask all the time, and check.

    Args:
        host: Where the server is.
        timeline: What it may answer.
        ledger: Where it is noted.
        count: Of threads.
        seed: Of what they ask.
        pause_s: Longest time between an answer and the next request.
    """

    def __init__(
        self, host: Host, timeline: Timeline, ledger: Ledger, count: int, seed: int, pause_s: float
    ) -> None:
        self._host, self._timeline, self._ledger = host, timeline, ledger
        self._pause_s = pause_s
        self._is_over = threading.Event()
        self._may_ask = threading.Event()
        self._idle = [threading.Event() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._live, args=(random.Random(seed + number), idle), daemon=True)
            for number, idle in enumerate(self._idle)
        ]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """They ask, until the end."""
        for thread in self._threads:
            thread.start()
        self.go_on()
        try:
            yield
        finally:
            self._is_over.set()
            self._may_ask.set()
            for thread in self._threads:
                thread.join(2 * PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def pause(self) -> None:
        """Every request is answered and every connection closed, once this returns."""
        self._may_ask.clear()
        for idle in self._idle:
            assert idle.wait(PATIENCE_S), "a caller still waits"

    def go_on(self) -> None:
        """They ask again."""
        for idle in self._idle:
            idle.clear()
        self._may_ask.set()

    def _live(self, dice: random.Random, idle: threading.Event) -> None:
        connection: Kept | None = None
        while not self._is_over.is_set():
            if not self._may_ask.is_set():
                if connection is not None:
                    connection.close()
                    connection = None
                idle.set()
                self._may_ask.wait()
                continue
            try:
                connection = self._ask(question(dice, self._timeline), connection)
            except Exception as failure:  # a mistake of this harness must not look like silence
                self._ledger.lose(f"the caller broke: {failure!r}")
                connection = None
            time.sleep(dice.random() * self._pause_s)
        if connection is not None:
            connection.close()
        idle.set()

    def _ask(self, asked: Question, connection: Kept | None) -> Kept | None:
        """Ask until there is an answer; the connection to go on with."""
        for attempt in itertools.count():
            if connection is None:
                connection = self._connected()
                if connection is None:
                    return None
            identity = f"{connection.name}-{connection.count}"
            sent = time.monotonic()
            self._ledger.send(again=attempt > 0)
            try:
                given = connection.ask(asked.request(identity))
            except Cut as cut:
                failed = time.monotonic()
                missed = Unanswered(
                    identity, connection.name, connection.opened, sent, failed, cut.received, str(cut)
                )
                self._ledger.miss(missed)
                connection.close()
                connection = None
                continue
            self._ledger.judge(self._judged(asked, given, sent))
            if given.is_last or connection.count >= LIFE:
                connection.close()
                return None
            return connection
        return None

    def _judged(self, asked: Question, given: Answer, sent: float) -> Verdict:
        try:
            return judged(asked, given, sent, time.monotonic(), self._timeline)
        except Exception as failure:
            return Verdict(Kind.WRONG, f"cannot be judged: {failure!r}: {given!r}")

    def _connected(self) -> Kept | None:
        """A new connection; where a server is on its way, to that. None once it is over."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            was_there = self._host.changed.is_set()
            try:
                return Kept(self._host.address)
            except OSError as failure:
                if was_there and self._host.changed.is_set():
                    self._ledger.lose(f"no connection, though there is a server: {failure!r}")
                    self._ledger.sent += 1
                    return None
                self._host.changed.wait(0.1)
                if self._is_over.is_set():
                    return None
        self._ledger.lose("nobody took the server's place")
        self._ledger.sent += 1
        return None
