"""Answers over TLS go in by pieces, and the end comes with their arrival: a number for a clock."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.rest.access import secured_transport
from infold.rest.access.secured_transport import (
    HIGH_BYTES,
    LOOK_S,
    LOW_BYTES,
    PIECE_BYTES,
    STANDSTILL_S,
    SecuredTransport,
)


class Below:
    """A transport that takes so many bytes; then it has enough until some are read."""

    def __init__(self) -> None:
        self.room = 10**9
        self.taken = bytearray()
        self.kept = 0
        self.on_its_way = 0
        self.log: list[str] = []
        self.secured: SecuredTransport
        self.is_blocked = False

    def write(self, data: bytes | memoryview) -> None:
        assert len(data) <= PIECE_BYTES and "close" not in self.log
        self.taken += data
        self.kept += max(0, len(data) - self.room)
        self.room = max(0, self.room - len(data))
        if self.kept and not self.is_blocked:
            self.is_blocked = True
            self.secured.block()

    def read(self, size: int) -> None:
        """The client reads."""
        self.kept, self.room = max(0, self.kept - size), self.room + max(0, size - self.kept)
        if not self.kept and self.is_blocked:
            self.is_blocked = False
            self.secured.unblock()

    def get_write_buffer_size(self) -> int:
        return self.kept

    def is_closing(self) -> bool:
        return "close" in self.log or "abort" in self.log

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert (high, low) == (1, 0)

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.log.append(name)


class Clock:
    """Timers that ring when the time is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, call))

    def pass_s(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            self.timers.remove(due[0])
            self.now, call = due[0]
            call()
        self.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    there = SimpleNamespace(get_running_loop=lambda: made)
    monkeypatch.setattr(secured_transport, "asyncio", there)
    monkeypatch.setattr(secured_transport, "sent_and_unread", lambda transport: transport.on_its_way)
    return made


def pair() -> tuple[SecuredTransport, Below]:
    below: Any = Below()
    below.secured = SecuredTransport(
        below, lambda: below.log.append("pause"), lambda: below.log.append("resume")
    )
    below.secured.begin()
    return below.secured, below


def test_a_short_answer_goes_straight_through(clock: Clock) -> None:
    """As the very object it is."""
    secured, below = pair()
    secured.write(b"short")
    secured.write(b"")
    assert (bytes(below.taken), secured.get_write_buffer_size(), below.log) == (b"short", 0, [])


def test_a_long_answer_waits_for_the_client(clock: Clock) -> None:
    """It is seen what waits; the connection pauses, and goes on in time."""
    secured, below = pair()
    below.room = 100_000
    answer = bytes(range(256)) * 4096
    secured.write(answer)
    assert below.log == ["pause"]
    assert len(below.taken) == 2 * PIECE_BYTES
    assert secured.get_write_buffer_size() == len(answer) - 100_000
    secured.write(b"and more")
    assert below.log == ["pause"]
    while len(below.taken) < len(answer) + 8:
        left = len(answer) + 8 - len(below.taken)
        assert ("resume" in below.log) == (left <= LOW_BYTES)
        below.read(PIECE_BYTES)
    assert bytes(below.taken) == answer + b"and more"
    assert below.log == ["pause", "resume"]


@given(
    st.lists(st.binary(max_size=3 * PIECE_BYTES), max_size=6),
    st.lists(st.integers(1, 2**18)),
    st.integers(0, 10**5),
)
def test_everything_arrives_in_order(answers: list[bytes], reads: list[int], room: int) -> None:
    """However it is written and read; nothing is lost by a close."""
    loop: Any = Clock()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(secured_transport, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
        secured, below = pair()
        below.room = room
        for answer, size in zip(answers, [*reads, *[1000] * 6], strict=False):
            secured.write(answer)
            below.read(size)
        secured.close()
        secured.write(b"too late")
        while "close" not in below.log:
            below.read(10**6)
        assert bytes(below.taken) == b"".join(answers)
        assert below.log.count("pause") - below.log.count("resume") in (0, 1)


def test_a_close_waits_for_what_is_written_and_reads_no_more(clock: Clock) -> None:
    """Then the transport below says farewell."""
    secured, below = pair()
    below.room = 0
    secured.write(bytes(3 * PIECE_BYTES))
    secured.close()
    secured.close()
    secured.resume_reading()
    assert secured.is_closing() and below.log == ["pause", "pause_reading"]
    for _ in range(3):
        below.read(PIECE_BYTES)
    assert below.log == ["pause", "pause_reading", "close"]
    assert len(below.taken) == 3 * PIECE_BYTES


def test_a_client_that_has_everything_is_not_waited_for(clock: Clock) -> None:
    """Whether or not it says farewell."""
    secured, below = pair()
    secured.write(b"bye")
    below.on_its_way = 3
    secured.close()
    clock.pass_s(LOOK_S)
    assert "abort" not in below.log
    below.on_its_way = 0
    clock.pass_s(LOOK_S)
    assert below.log[-1] == "abort"
    assert not clock.timers


def test_a_client_that_reads_slowly_gets_all_of_it_however_long_it_takes(clock: Clock) -> None:
    """One that stands still is let go after a while."""
    secured, below = pair()
    below.room = 0
    secured.write(bytes(40 * PIECE_BYTES))
    secured.close()
    below.on_its_way = 10**6
    for _ in range(40):
        clock.pass_s(STANDSTILL_S - 2 * LOOK_S)
        below.read(PIECE_BYTES)
    assert len(below.taken) == 40 * PIECE_BYTES and "abort" not in below.log
    clock.pass_s(STANDSTILL_S - 2 * LOOK_S)
    below.on_its_way -= 1
    clock.pass_s(STANDSTILL_S - 2 * LOOK_S)
    assert "abort" not in below.log
    clock.pass_s(4 * LOOK_S)
    assert below.log[-1] == "abort"


def test_nothing_waits_for_a_connection_that_is_gone(clock: Clock) -> None:
    """What was written takes no memory any more."""
    for end in ("lose", "abort"):
        secured, below = pair()
        below.room = 0
        secured.write(bytes(HIGH_BYTES * 4))
        getattr(secured, end)()
        assert secured._waiting_bytes == 0 and not secured._waiting
        taken = len(below.taken)
        below.read(10**6)
        secured.write(b"more")
        assert len(below.taken) == taken


def test_what_a_connection_asks_else_is_answered_by_the_transport_below(clock: Clock) -> None:
    """By name."""
    secured, below = pair()
    secured.pause_reading()
    secured.resume_reading()
    secured.set_protocol()
    assert below.log == ["pause_reading", "resume_reading", "set_protocol"]
