"""The channel between supervisor and workers, without a process: codec, gathering, keeping."""

import asyncio
import socket
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from infold.errors import ConfigError, WorkerError
from infold.rest.channel import (
    Answer,
    Ask,
    Channel,
    Drain,
    Failed,
    Gather,
    Gathered,
    Hello,
    Joined,
    Lines,
    Message,
    Opened,
    Ready,
    encode,
)
from infold.rest.peers import Exchange, Peers
from infold.rest.supervisor import Pause

MESSAGES: list[Message] = [
    Hello(1, {"host": "::1"}, {"metrics": {"a": [1, 2.5]}}),
    Ask(7, "ready"),
    Drain(),
    Failed("line one\nline two", "INFOLD_PORT"),
    Gather(1, "load", {"model": "zwölf"}, 0.5, True),
    Gathered(1, [None, True, "x"]),
    Ready(),
    Opened("cpu (asked for)", []),
    Joined(),
    Answer(7, {"nested": [{}]}),
]


class Clock:
    """Timers that go off when told."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> "Timer":
        self.timers.append(Timer(call))
        return self.timers[-1]


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.is_cancelled = call, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Star:
    """An exchange with workers that are lists of what they were sent."""

    def __init__(self, workers: int) -> None:
        self.clock = Clock()
        self.exchange = Exchange(workers, self.clock.call_later)
        self.sent: list[list[Message]] = [[] for _ in range(workers)]
        for worker in range(workers):
            self.exchange.join(worker, self.sent[worker].append)

    def asked(self, worker: int) -> Ask:
        last = self.sent[worker][-1]
        assert isinstance(last, Ask)
        return last

    def answer(self, worker: int, answer: object) -> None:
        self.exchange.answered(worker, Answer(self.asked(worker).id, answer))


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_messages_come_out_however_the_bytes_are_cut(messages: list[Message], cuts: list[int]) -> None:
    """A stream knows no borders."""
    stream = b"".join(map(encode, messages))
    lines, found, start = Lines(), list[Message](), 0
    for end in [*sorted(cut for cut in cuts if cut < len(stream)), len(stream)]:
        found += lines.feed(stream[start:end])
        start = end
    assert found == messages


async def test_a_channel_ends_when_its_other_side_does() -> None:
    """Iteration stops; sending goes nowhere and raises nothing."""
    one, other = socket.socketpair()
    here, there = await Channel.over(one), await Channel.over(other)
    for message in MESSAGES:
        here.send(message)
    await here.flush()
    here.close()
    assert [message async for message in there] == MESSAGES
    there.send(Drain())
    await there.flush()
    there.close()


def test_answers_are_in_worker_order_whoever_is_first() -> None:
    """And they go to the one that asked."""
    star = Star(3)
    star.exchange.gather(1, Gather(5, "t", None, 1.0))
    for worker in (2, 0, 1):
        star.answer(worker, f"from {worker}")
    assert star.sent[1][-1] == Gathered(5, ["from 0", "from 1", "from 2"])
    assert star.clock.timers[0].is_cancelled


def test_a_worker_that_is_late_is_none() -> None:
    """What it says afterwards is nobody's answer."""
    star = Star(2)
    star.exchange.gather(0, Gather(1, "t", None, 1.0))
    late = star.asked(1)
    star.answer(0, True)
    star.clock.timers[0].call()
    assert star.sent[0][-1] == Gathered(1, [True, None])
    star.exchange.answered(1, Answer(late.id, True))
    assert star.sent[0][-1] == Gathered(1, [True, None])


def test_a_worker_that_dies_is_none_at_once() -> None:
    """Nobody waits for it, now or in the next gathering."""
    star = Star(2)
    star.exchange.gather(0, Gather(1, "t", None, 1.0))
    star.answer(0, True)
    star.exchange.leave(1)
    assert star.sent[0][-1] == Gathered(1, [True, None])
    star.exchange.gather(0, Gather(2, "t", None, 1.0))
    star.answer(0, True)
    assert star.sent[0][-1] == Gathered(2, [True, None])


def test_an_asker_that_dies_is_sent_nothing() -> None:
    """Its gathering ends all the same."""
    star = Star(2)
    star.exchange.gather(0, Gather(1, "t", None, 1.0))
    star.exchange.leave(0)
    star.answer(1, True)
    assert not any(isinstance(message, Gathered) for message in star.sent[0] + star.sent[1])


def test_a_kept_answer_stands_in_and_is_handed_to_the_successor() -> None:
    """Only where the asker wants it."""
    star = Star(2)
    star.exchange.gather(0, Gather(1, "count", None, 1.0, kept=True))
    star.answer(0, 3)
    star.answer(1, 4)
    star.exchange.leave(1)
    star.exchange.gather(0, Gather(2, "count", None, 1.0, kept=True))
    star.answer(0, 5)
    assert star.sent[0][-1] == Gathered(2, [5, 4])
    assert star.exchange.earlier(1) == {"count": 4}
    star.exchange.gather(0, Gather(3, "count", None, 1.0))
    star.answer(0, 6)
    assert star.sent[0][-1] == Gathered(3, [6, None])


def test_a_shared_answer_is_handed_to_whoever_starts_later() -> None:
    """Whoever gave it; that of another topic is its own affair."""
    star = Star(3)
    star.exchange.gather(0, Gather(1, "orders", "first", 1.0, shared=True))
    star.answer(0, ["first"])
    star.answer(2, ["first"])
    star.exchange.gather(0, Gather(2, "ready", None, 1.0))
    star.answer(0, True)
    assert star.exchange.earlier(1) == {"orders": ["first"]}
    star.exchange.leave(2)
    assert star.exchange.earlier(2) == {"orders": ["first"]}


def test_a_shared_answer_is_the_newest_whoever_is_slow() -> None:
    """What a slow one says of an earlier question is no news."""
    star = Star(2)
    star.exchange.gather(0, Gather(1, "orders", "first", 1.0, shared=True))
    slow = star.asked(1)
    star.answer(0, ["first"])
    star.exchange.gather(0, Gather(2, "orders", "second", 1.0, shared=True))
    star.answer(0, ["first", "second"])
    star.exchange.answered(1, Answer(slow.id, ["first"]))
    star.exchange.leave(1)
    assert star.exchange.earlier(1) == {"orders": ["first", "second"]}


def test_what_is_asked_while_a_worker_starts_it_is_asked_when_it_joins() -> None:
    """In order, and only what is shared; it began with what was so before."""
    star = Star(2)
    star.exchange.leave(1)
    star.sent[1].clear()
    star.exchange.gather(0, Gather(1, "orders", "before", 1.0, shared=True))
    star.answer(0, ["before"])
    assert star.exchange.earlier(1) == {"orders": ["before"]}
    for number, topic, payload in ((2, "orders", "second"), (3, "ready", None), (4, "orders", "third")):
        star.exchange.gather(0, Gather(number, topic, payload, 1.0, shared=topic == "orders"))
        star.answer(0, payload)
    star.exchange.join(1, star.sent[1].append)
    asked = star.sent[1]
    assert [(each.topic, each.payload) for each in asked if isinstance(each, Ask)] == [
        ("orders", "second"),
        ("orders", "third"),
    ]
    sent = len(star.sent[0])
    star.answer(1, "third")
    assert len(star.sent[0]) == sent  # nobody waits for that
    star.exchange.leave(1)
    star.exchange.earlier(1)
    star.exchange.join(1, star.sent[1].append)
    assert len(asked) == 2


def test_what_a_worker_dies_of_its_successor_is_asked() -> None:
    """Or what it died over: the question is open, so no answer says that it was obeyed."""
    star = Star(2)
    star.exchange.gather(0, Gather(1, "orders", "heavy", 1.0, shared=True))
    star.exchange.leave(1)
    assert star.exchange.earlier(1) == {}
    star.sent[1].clear()
    star.answer(0, ["heavy"])
    star.exchange.join(1, star.sent[1].append)
    assert star.asked(1).payload == "heavy"


def test_a_worker_that_is_down_answers_a_shared_question_as_the_others_do() -> None:
    """It will be so when it is back; one that is there and says nothing has not answered."""
    star = Star(3)
    star.exchange.leave(1)
    star.exchange.gather(0, Gather(1, "orders", "x", 1.0, shared=True))
    star.answer(0, "done")
    star.clock.timers[0].call()
    assert star.sent[0][-1] == Gathered(1, ["done", "done", None])
    star.exchange.gather(0, Gather(2, "orders", "y", 1.0, shared=True))
    star.answer(0, None)
    star.exchange.leave(2)
    assert star.sent[0][-1] == Gathered(2, [None, None, None])  # the answer to x is none to y


async def double(payload: object) -> int:
    assert isinstance(payload, int)
    return 2 * payload


def test_a_worker_that_came_back_meanwhile_does_not_make_an_order_fail() -> None:
    """It is asked when it joins and answers nobody before it has obeyed; one that is only slow is none."""
    star = Star(3)
    star.exchange.gather(0, Gather(1, "orders", "x", 1.0, shared=True))
    star.exchange.leave(1)
    star.exchange.earlier(1)
    star.exchange.join(1, star.sent[1].append)
    assert star.asked(1).payload == "x"
    star.answer(0, "done")
    star.clock.timers[0].call()
    assert star.sent[0][-1] == Gathered(1, ["done", "done", None])


async def test_alone_one_gathers_from_oneself() -> None:
    """Callers need not know how many there are; no handler and a failing one are no answer."""
    peers = Peers()
    peers.on("double", double)
    assert await peers.gather("double", 4) == [8]
    assert await peers.gather("double", "four") == [None]
    assert await peers.gather("unheard of") == [None]


async def test_alone_one_waits_no_longer_than_told() -> None:
    """And what was begun is not broken off."""
    peers, may_end, ended = Peers(), asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> bool:
        await may_end.wait()
        ended.set()
        return True

    peers.on("slow", slow)
    assert await peers.gather("slow", timeout_s=0) == [None]
    may_end.set()
    await ended.wait()


async def test_workers_gather_through_the_supervisor() -> None:
    """All parts together, but for the sockets."""
    loop = asyncio.get_running_loop()
    exchange = Exchange(2, lambda delay, call: loop.call_later(delay, call))

    def send_of(worker: int) -> Callable[[Message], None]:
        def send(message: Message) -> None:
            if isinstance(message, Gather):
                exchange.gather(worker, message)
            elif isinstance(message, Answer):
                exchange.answered(worker, message)

        return send

    peers = [Peers(worker, 2, send_of(worker)) for worker in range(2)]
    for worker, each in enumerate(peers):
        each.on("double", double)
        exchange.join(worker, each.receive)  # type: ignore[arg-type]
    both = await asyncio.gather(peers[0].gather("double", 1), peers[1].gather("double", 2))
    assert both == [[2, 2], [4, 4]]


async def test_without_a_supervisor_one_answers_for_oneself() -> None:
    """It was killed while it was asked, or before."""
    peers = Peers(1, 3, lambda _: peers.left_alone())
    peers.on("double", double)
    assert await peers.gather("double", 4) == [None, 8, None]
    assert await peers.gather("double", 5) == [None, 10, None]


def test_the_pause_doubles_until_a_worker_lasts() -> None:
    """From 0.1 s to 5 s."""
    pause = Pause()
    assert [pause.after(0.5) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert pause.after(60.0) == 0.1


def test_what_is_left_of_an_error() -> None:
    """The place of a setting is told apart, since it decides the exit code."""
    assert Failed.of(ConfigError("--port", "no")) == Failed("no", "--port")
    assert Failed.of(WorkerError("gone")) == Failed("gone")


async def test_what_was_asked_before_is_answered_once_all_is_settled() -> None:
    """So a worker that has missed orders obeys them before it answers anybody."""
    sent: list[object] = []
    peers = Peers(1, 2, sent.append)
    may = asyncio.Event()

    async def obey(_: object) -> bool:
        await may.wait()
        return True

    peers.on("order", obey)
    await peers.settled()
    peers.receive(Ask(1, "order"))
    peers.receive(Ask(2, "order"))
    settled = asyncio.create_task(peers.settled())
    await asyncio.sleep(0)
    assert not settled.done()
    may.set()
    await settled
    assert [each.id for each in sent if isinstance(each, Answer)] == [1, 2]
