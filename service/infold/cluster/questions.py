"""A request and its answer as they go from the ingress to a replica and back: plain values."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict

import orjson

from infold.rest.counting import Snapshot

__all__ = ["Answer", "Deployed", "Headers", "Question", "Told", "json_answer", "text_answer"]

Headers = list[tuple[bytes, bytes]]


class Question(NamedTuple):
    """A request without its body, which goes beside it so that it is not pickled.

    Attributes:
        method: In capitals.
        path: Decoded, and without what the application is mounted below.
        query: As it came.
        headers: As they came, names in lower case.
    """

    method: str
    path: str
    query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()


class Answer(NamedTuple):
    """An answer, whole.

    Attributes:
        status: Of HTTP.
        headers: All of them.
        body: All of it.
    """

    status: int
    headers: Headers
    body: bytes


class Told(TypedDict):
    """What one process tells of itself.

    Attributes:
        is_ready: It answers.
        metrics: All that it has counted.
        states: Of each model and version it knows, as `infold.serving.ModelState` in plain values.
        on_disk: Names of models that lie where it looks.
    """

    is_ready: bool
    metrics: Snapshot
    states: list[dict[str, Any]]
    on_disk: list[str]


class Deployed(Protocol):
    """The replicas of one model."""

    def ask(self, question: Question, body: bytes) -> Awaitable[Answer]:
        """One replica's answer.

        Raises:
            QueueFullError: Too many wait already.
            ModelNotReadyError: No replica answers.
        """

    def tell(self) -> Awaitable[list[Told]]:
        """What each replica that answers in time tells of itself."""


def json_answer(told: object, status: int = 200) -> Answer:
    """An answer of JSON."""
    body = orjson.dumps(told)
    return Answer(status, _headers(b"application/json", body), body)


def text_answer(body: bytes, content_type: bytes) -> Answer:
    """A 200 of another type."""
    return Answer(200, _headers(content_type, body), body)


def _headers(content_type: bytes, body: bytes) -> Headers:
    return [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
