"""Callers that check every answer against a session of their own, and go on where one proxy ends."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Image = NDArray[np.float32]
Header = dict[str, str]
# Another replica or another proxy may have an answer.
AGAIN = (502, 503)


class Reference:
    """What digits answers, from onnxruntime alone."""

    def __init__(self, path: str, count: int = 32) -> None:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.images = np.random.default_rng(8).random((count, 1, 8, 8), np.float32)
        self.logits = np.concatenate([session.run(None, {"image": each[None]})[0] for each in self.images])


@dataclass(frozen=True)
class Ask:
    """A request, and whether an answer to it is right."""

    path: str
    body: bytes
    headers: Header
    is_right: Callable[[Header, bytes], bool]


def close(found: object, wanted: NDArray[np.float32]) -> bool:
    """Equal but for the order of sums, which a batch may change."""
    return np.allclose(np.asarray(found, np.float32).reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-4)


def json_ask(image: Image, logits: Image) -> Ask:
    """Protocol v2 as JSON."""
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": image.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    return Ask(
        "/v2/models/digits/infer",
        body,
        {"Content-Type": "application/json"},
        lambda _, answer: close(json.loads(answer)["outputs"][0]["data"], logits),
    )


def binary_ask(image: Image, logits: Image) -> Ask:
    """Protocol v2 with its binary extension, both ways."""
    return _binary("digits", ("image", "logits"), image[None], logits)


def wide_ask(numbers: NDArray[np.float32]) -> Ask:
    """The model that turns the sign of as many numbers as it is given."""
    return _binary("wide", ("x", "y"), numbers[None], -numbers)


def _binary(model: str, names: tuple[str, str], given: Image, wanted: NDArray[np.float32]) -> Ask:
    raw, (one, other) = given.tobytes(), names
    about = {"name": one, "datatype": "FP32", "shape": list(given.shape)}
    text = json.dumps(
        {
            "inputs": [{**about, "parameters": {"binary_data_size": len(raw)}}],
            "outputs": [{"name": other, "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(text)),
    }

    def is_right(got: Header, answer: bytes) -> bool:
        start = int(got["inference-header-content-length"])
        return close(np.frombuffer(answer[start:], np.float32), wanted)

    return Ask(f"/v2/models/{model}/infer", text + raw, headers, is_right)


def predict_ask(image: Image, logits: Image) -> Ask:
    """TF-Serving's predict."""
    return Ask(
        "/v1/models/digits:predict",
        json.dumps({"instances": [image.tolist()]}).encode(),
        {"Content-Type": "application/json"},
        lambda _, answer: close(json.loads(answer)["predictions"], logits),
    )


def scaled_ask(*factors: float) -> Ask:
    """The tiny model, which answers with one of these factors."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}
    wanted = [[factor, 2 * factor] for factor in factors]
    return Ask(
        "/v2/models/scaled/infer",
        json.dumps({"inputs": [tensor]}).encode(),
        {"Content-Type": "application/json"},
        lambda _, answer: json.loads(answer)["outputs"][0]["data"] in wanted,
    )


def slow_ask(count: int, **headers: str) -> Ask:
    """The model that counts as far as it is told."""
    tensor = {"name": "n", "datatype": "INT64", "shape": [1], "data": [count]}
    return Ask(
        "/v2/models/slow/infer",
        json.dumps({"inputs": [tensor]}).encode(),
        {"Content-Type": "application/json", **headers},
        lambda _, answer: json.loads(answer)["outputs"][0]["data"] == [count],
    )


def all_asks(reference: Reference) -> list[Ask]:
    """Every way to ask digits, for every image."""
    pairs = list(zip(reference.images, reference.logits, strict=True))
    return [make(*pair) for pair in pairs for make in (json_ask, binary_ask, predict_ask)]


def send(port: int, ask: Ask, method: str = "POST", timeout_s: float = 30) -> tuple[int, Header, bytes]:
    """Status, headers and body of one answer, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, ask.path, ask.body or None, ask.headers)
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def get(port: int, path: str) -> tuple[int, Header, bytes]:
    """Of what has no body."""
    return send(port, Ask(path, b"", {}, lambda *_: True), "GET")


@dataclass
class Ledger:
    """What callers met."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    again: Counter[str] = field(default_factory=Counter)
    last_again: float = 0.0

    def rate(self, began: Ledger, seconds: float) -> float:
        """Right answers a second since then."""
        return (self.right - began.right) / seconds


class Crowd:
    """Callers that ask one proxy, each the next time it answered, and another proxy once that is gone.

    Args:
        ports: Of proxies, in the order they are tried.
        asks: That are sent in turn.
        count: Of callers.
    """

    def __init__(self, ports: Sequence[int], asks: Sequence[Ask], count: int) -> None:
        self.ports = list(ports)
        self._asks = itertools.cycle(asks)
        self.ledger = Ledger()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._go) for _ in range(count)]

    def _go(self) -> None:
        at = 0
        while not self._over.is_set():
            with self._lock:
                ask = next(self._asks)
            while not self._over.is_set():
                why = self._once(self.ports[at % len(self.ports)], ask)
                if why is None:
                    break
                with self._lock:
                    self.ledger.again[why] += 1
                    self.ledger.last_again = time.monotonic()
                at += not why.isdigit()
                self._over.wait(0.05)

    def _once(self, port: int, ask: Ask) -> str | None:
        """None, or why it is to be asked again."""
        try:
            status, headers, body = send(port, ask)
        except (OSError, http.client.HTTPException) as failure:
            return type(failure).__name__
        if status in AGAIN:
            if "error" not in json.loads(body) or "retry-after" not in headers:
                self._wrong(f"{status} {headers} {body[:200]!r}")
            return str(status)
        if status != 200 or not ask.is_right(headers, body):
            self._wrong(f"{status} {ask.path} {body[:200]!r}")
        else:
            with self._lock:
                self.ledger.right += 1
        return None

    def _wrong(self, what: str) -> None:
        with self._lock:
            self.ledger.wrong.append(what)

    def answered(self, count: int, timeout_s: float = 60) -> float:
        """Wait for so many more right answers; the seconds that took."""
        began, before = time.monotonic(), self.ledger.right
        while self.ledger.right < before + count:
            assert time.monotonic() - began < timeout_s, self.ledger
            time.sleep(0.02)
        return time.monotonic() - began


@contextmanager
def crowd(ports: Sequence[int], asks: Sequence[Ask], count: int = 4) -> Iterator[Crowd]:
    """Callers, for as long as the block takes; afterwards nothing was wrong."""
    found = Crowd(ports, asks, count)
    for each in found._threads:
        each.start()
    try:
        yield found
    finally:
        found._over.set()
        for each in found._threads:
            each.join()
    assert found.ledger.wrong == []
