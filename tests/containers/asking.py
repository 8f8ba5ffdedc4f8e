"""Clients that ask a service for digits all the time and check each answer, through its end if need be."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from containers.engine import inputs

__all__ = ["Asked", "asking"]

CALLERS = itertools.count(1)  # each has ids of its own, in whatever log


@dataclass
class Asked:
    """What became of all requests.

    Attributes:
        right: Ids of those with the right answer.
        versions: Of the model, that answered.
        refused: Statuses of others, where the service said that it cannot.
        unanswered: Ids of those whose connection ended without an answer.
        wrong: What nothing excuses.
    """

    right: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    refused: list[int] = field(default_factory=list)
    unanswered: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def taken_but_not_answered(self, log: str) -> set[str]:
        """Of those without an answer, what the service's log says it had begun with."""
        noted = set(re.findall(r'"request_id":"(c\d+-\d+)"', log))
        return self.unanswered & noted


@contextmanager
def asking(port: int, images: np.ndarray, reference: np.ndarray, callers: int = 4) -> Iterator[Asked]:
    """Callers ask over kept connections until the context ends, each with other rows."""
    asked, is_over, lock = Asked(), threading.Event(), threading.Lock()
    threads = [
        threading.Thread(
            target=_ask,
            args=(next(CALLERS), port, images[number:], reference[number:], asked, is_over, lock),
            daemon=True,
        )
        for number in range(callers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a caller still waits"


def _ask(
    caller: int,
    port: int,
    images: np.ndarray,
    reference: np.ndarray,
    asked: Asked,
    is_over: threading.Event,
    lock: threading.Lock,
) -> None:
    body = json.dumps(inputs(images))
    connection: http.client.HTTPConnection | None = None
    count = 0
    while not is_over.is_set():
        identity, count = f"c{caller}-{count}", count + 1
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
                connection.connect()
        except OSError:  # nobody there: nothing was taken
            connection = None
            is_over.wait(0.02)
            continue
        try:
            headers = {"x-request-id": identity, "content-type": "application/json"}
            connection.request("POST", "/v2/models/digits/infer", body, headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            connection = None
            with lock:
                asked.unanswered.add(identity)
            is_over.wait(0.02)
            continue
        with lock:
            _judge(asked, identity, status, content, reference)
        if answer.will_close:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()


def _judge(asked: Asked, identity: str, status: int, content: bytes, reference: np.ndarray) -> None:
    if status == 503:
        asked.refused.append(status)
        return
    if status != 200:
        asked.wrong.append(f"{identity}: {status} {content[:200]!r}")
        return
    told = json.loads(content)
    logits = np.array(told["outputs"][0]["data"]).reshape(reference.shape)
    if not np.allclose(logits, reference, rtol=1e-4, atol=1e-4):
        asked.wrong.append(f"{identity}: off by {np.abs(logits - reference).max()}")
        return
    asked.right.add(identity)
    asked.versions.add(told["model_version"])
