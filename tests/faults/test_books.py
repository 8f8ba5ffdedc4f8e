"""The harness itself: what is wrong is called wrong, and what is lost is not excused."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from faults.excuses import Kill, Noted, Stop, noted, settle
from faults.ledger import Ledger, Unanswered
from faults.models import LINE, answer
from faults.questions import Form, Kind, Question, judged, reason_of
from faults.timeline import Timeline
from fuzz.asking import Answer

X = np.arange(8, dtype=np.float32).reshape(2, 4)
ASKED = Question(LINE, None, Form.JSON, X)


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timeline() -> Timeline:
    """Version 1 from 1 to 5, version 2 from 4; orders are given at 3 and carried out at 5."""
    clock = Hands()
    made = Timeline(clock)

    def at(second: float, what: str, version: int | None) -> None:
        clock.now = second
        getattr(made, what)(LINE, version)

    at(0, "appears", None)
    at(0, "appears", 1)
    at(1, "is_sure", 1)
    at(1, "is_sure", None)
    at(2, "appears", 2)
    at(3, "is_doubtful", 1)
    at(5, "is_sure", 2)
    at(5, "vanishes", 1)
    clock.now = 6
    return made


def given(version: int, y: np.ndarray, **more: object) -> Answer:
    """An answer as the service writes it."""
    output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.reshape(-1).tolist()}
    content = {"model_name": LINE, "model_version": str(version), "outputs": [output | more]}
    return Answer(200, {}, orjson.dumps(content))


def refused(status: int, text: str, **headers: str) -> Answer:
    names = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Answer(status, names, orjson.dumps({"error": text}))


@pytest.mark.parametrize(
    ("version", "sent", "received", "kind"),
    [
        (1, 1, 2, Kind.ANSWERED),
        (1, 4.9, 7, Kind.ANSWERED),
        (1, 5.1, 6, Kind.WRONG),
        (2, 1, 1.9, Kind.WRONG),
        (2, 1, 2.1, Kind.ANSWERED),
        (2, 6, 7, Kind.ANSWERED),
        (3, 6, 7, Kind.WRONG),
    ],
)
def test_a_version_answers_while_it_is_there(
    timeline: Timeline, version: int, sent: float, received: float, kind: Kind
) -> None:
    """From when it may be there to when it must be gone, and at no other time."""
    verdict = judged(ASKED, given(version, answer(version, X)), sent, received, timeline)
    assert verdict.kind is kind, verdict


def test_an_answer_that_is_off_by_a_bit_is_wrong(timeline: Timeline) -> None:
    """As is one of another version's numbers, of another shape, of another request, or under another name."""
    right = answer(1, X)
    off = right.copy()
    off[1, 3] = np.nextafter(off[1, 3], np.float32(np.inf))
    odd = [
        given(1, off),
        given(1, answer(2, X)),
        given(1, right, shape=[4, 2]),
        given(1, right[:1]),
        given(1, answer(1, X[::-1])),
        given(1, right, name="z"),
        Answer(200, {}, b"{}"),
    ]
    for each in odd:
        assert judged(ASKED, each, 1, 2, timeline).kind is Kind.WRONG, each
    assert judged(ASKED, given(1, right), 1, 2, timeline).kind is Kind.ANSWERED


def test_whoever_asks_for_a_version_gets_that_one(timeline: Timeline) -> None:
    """And whoever asks for none does not get one that has had to make room."""
    named = Question(LINE, 2, Form.JSON, X)
    assert judged(named, given(1, answer(1, X)), 2, 4, timeline).kind is Kind.WRONG
    assert judged(named, given(2, answer(2, X)), 2, 4, timeline).kind is Kind.ANSWERED
    assert judged(ASKED, given(1, answer(1, X)), 4, 6, timeline).kind is Kind.ANSWERED


@pytest.mark.parametrize(
    ("asked", "answer_", "sent", "received", "kind"),
    [
        (1, refused(404, "version 1 is not found"), 1, 2, Kind.WRONG),
        (1, refused(404, "version 1 is not found"), 2, 3.1, Kind.REFUSED),
        (None, refused(404, "is not found"), 2, 6, Kind.WRONG),
        (None, refused(503, "is not ready: loading"), 2, 6, Kind.WRONG),
        (None, refused(503, "the queue is full (8 rows)", retry_after="1"), 2, 6, Kind.REFUSED),
        (None, refused(503, "the queue is full (8 rows)"), 2, 6, Kind.WRONG),
        (None, refused(429, "the key is over its quota", retry_after="3"), 2, 6, Kind.REFUSED),
        (None, refused(429, "the key is over its quota"), 2, 6, Kind.WRONG),
        (None, refused(404, "there is no such path here"), 2, 6, Kind.WRONG),
        (None, refused(504, "the deadline passed after 30 s"), 2, 6, Kind.REFUSED),
        (None, refused(500, "internal error"), 2, 6, Kind.WRONG),
        (None, refused(400, "inputs[0].data"), 0, 1, Kind.WRONG),
        (None, Answer(503, {}, b"Service Unavailable"), 0, 1, Kind.WRONG),
        (None, refused(503, ""), 0, 1, Kind.WRONG),
    ],
)
def test_a_refusal_needs_a_reason_that_holds(
    timeline: Timeline, asked: int | None, answer_: Answer, sent: float, received: float, kind: Kind
) -> None:
    """What was there all the time is not missing, and no sound request is the caller's mistake."""
    question = Question(LINE, asked, Form.JSON, X)
    verdict = judged(question, answer_, sent, received, timeline)
    assert verdict.kind is kind, verdict


def test_reasons_are_told_apart_without_names_and_numbers() -> None:
    """Or a table of them would have a line for each request."""
    assert reason_of(refused(404, "unknown model: 'line' version 3")) == "unknown model: '...' version N"


def missed(connection: str = "f1", number: int = 3, **more: float) -> Unanswered:
    times = {"opened": 10.0, "sent": 19.0, "failed": 20.5, "received": 0} | more
    return Unanswered(f"{connection}-{number}", connection, why="closed", **times)  # type: ignore[arg-type]


def line(identity: str, worker: int, status: int = 200) -> bytes:
    return b'{"worker":%d,"event":"request answered","request_id":"%s","status":%d}' % (
        worker,
        identity.encode(),
        status,
    )


LOG = [line("f1-1", 0), line("f2-1", 1), line("f1-2", 0), line("leaves", 1), b"no json"]
KILLS, STOPS = [Kill(0, 20.0)], [Stop(40.0, 42.0)]


@pytest.mark.parametrize(
    ("each", "fate"),
    [
        (missed(), "cut"),
        (missed(received=10), "cut"),
        (missed(sent=20.4), "cut"),
        (missed("f3"), "cut"),  # its first request: nobody knows whom it was with
        (missed("f2"), "lost"),  # with the other worker
        (missed(failed=19.9), "lost"),  # before
        (missed(opened=20.3, sent=20.4), "lost"),  # opened after
        (missed(sent=30.0, failed=31.0), "lost"),
        (missed("f2", opened=30.0, sent=41.0, failed=41.5), "untaken"),
        (missed("f2", opened=30.0, sent=41.0, failed=41.5, received=1), "lost"),
        (missed("f2", opened=30.0, sent=37.0, failed=41.5), "lost"),  # long before: it had been read
        (missed("f2", 1, opened=30.0, sent=41.0, failed=41.5), "lost"),  # the log has it: it was begun with
    ],
)
def test_what_nothing_excuses_is_lost(each: Unanswered, fate: str) -> None:
    """A kill excuses what was with that very worker, an end what nobody had begun with."""
    ledger = Ledger(sent=1, unanswered=[each])
    settle(ledger, noted(LOG, ledger.unanswered), KILLS, STOPS)
    fates = {"cut": ledger.cut, "untaken": ledger.untaken, "lost": len(ledger.lost)}
    assert fates == {**dict.fromkeys(fates, 0), fate: 1}
    assert ledger.is_balanced


def test_the_log_is_read_for_whom_it_concerns() -> None:
    """And for nobody else."""
    assert noted(LOG, [missed()]) == Noted({}, {"f1": {0}})
    assert noted(LOG, [missed(number=2)]) == Noted({"f1-2": 200}, {"f1": {0}})


def test_books_that_do_not_add_up_are_seen() -> None:
    """A request without a fate, or with two."""
    assert not Ledger(sent=1).is_balanced
    assert Ledger(sent=2, answered=1, cut=1).is_balanced
    assert not Ledger(sent=1, answered=1, cut=1).is_balanced
