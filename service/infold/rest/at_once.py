"""Requests that are answered before the next byte is read, without a task and without a second parse.

Most small requests look alike: their heads are the same to the byte, their bodies have come with them,
and their model takes less time than it would take to begin a task. For these the head is looked up, its
answer computed where the bytes came in, and written. All else, and all that is new, takes
the usual way; which of the two a request took cannot be told from its answer, nor from what is counted of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from infold.rest.known_heads import KnownHeads
from infold.rest.reply import Answer, Headers, Reply

__all__ = ["AtOnce", "Known", "ShortWay", "Write"]

# Takes an answer: its status, its headers and its body.
Write = Callable[[int, Headers, bytes], None]

# A long body is read another way.
MOST_BODY_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class AtOnce:
    """What can be done for requests with one head before the next byte is read.

    Attributes:
        reply: Answers a body, for which it was waited so many seconds; None where that takes longer.
        is_likely: It does not, as far as can be told beforehand.
    """

    reply: Callable[[bytes, float], Reply | None]
    is_likely: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Known:
    """What the head of a request says, for all requests that begin with it.

    Attributes:
        route: The pattern of its path, for metrics.
        path: As it came.
        answer: As `AtOnce.reply`; errors are answers.
        is_likely: See there.
    """

    route: str
    path: str
    answer: Callable[[bytes, float], Answer | None]
    is_likely: Callable[[], bool]


class Knowing(Protocol):
    """Whoever answers."""

    def known(self, scope: Scope) -> Known | None:
        """What a head says; None where it says not enough."""

    def answer_at_once(self, known: Known, body: bytes, write: Write, waited_s: float) -> bool:
        """True if a request was answered; False, with nothing done, where that takes longer."""


class ShortWay:
    """From bytes to an answer, for heads that came before.

    Args:
        edge: Answers.
        max_body_bytes: A request may have.
    """

    def __init__(self, edge: Knowing, max_body_bytes: int) -> None:
        self._edge = edge
        self._most_bytes = min(max_body_bytes, MOST_BODY_BYTES)
        self._heads: KnownHeads[Known] = KnownHeads()

    def answer(self, data: bytes, write: Write, waited_s: float) -> bool:
        """True if the data were one request, and that is answered.

        Args:
            data: What came when nothing else was on its way.
            write: Takes the answer.
            waited_s: Since the first of them came.
        """
        found = self._heads.find(data)
        return found is not None and self._edge.answer_at_once(*found, write, waited_s)

    def is_begun(self, data: bytes) -> bool:
        """The data are the beginning of a request that is likely to be answered so once it is here."""
        known = self._heads.begun(data)
        return known is not None and known.is_likely()

    def learn(self, data: bytes, scope: Scope) -> None:
        """Remember the head of a request that was parsed.

        Args:
            data: All of the request, and nothing else.
            scope: What was parsed.
        """
        length = dict(scope["headers"]).get(b"content-length", b"")
        if (
            length.isdigit()
            and int(length) <= self._most_bytes
            and (known := self._edge.known(scope)) is not None
        ):
            self._heads.learn(data, int(length), known)
