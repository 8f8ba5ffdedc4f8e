"""Requests as bytes, and answers read strictly: a client that hides nothing and repairs nothing."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

__all__ = [
    "TIMEOUT_S",
    "Answer",
    "Line",
    "Request",
    "Stream",
    "answers_in",
    "infer",
    "json_length",
    "predict",
]

TIMEOUT_S = 30.0


class Brief:
    """Is shown as its `repr`, also by Hypothesis, which would write out every byte."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, is_cycle: bool) -> None:
        del is_cycle
        printer.text(repr(self))


@dataclass(frozen=True, slots=True, repr=False)
class Stream(Brief):
    """Bytes for a connection of their own, be they requests or none."""

    wire: bytes

    def __repr__(self) -> str:
        return f"Stream({shortened(self.wire)})"


@dataclass(frozen=True, slots=True, repr=False)
class Request(Brief):
    """One HTTP request that is well-formed as such.

    Attributes:
        target: Path and query, as they are sent.
        body: Sent behind its length; without a length where None.
        method: Of HTTP.
        headers: Beside host and length.
    """

    target: bytes
    body: bytes | None = None
    method: bytes = b"POST"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def wire(self) -> bytes:
        """All that is sent."""
        lines = [self.method + b" " + self.target + b" HTTP/1.1", b"host: fuzz"]
        lines += [name + b": " + value for name, value in self.headers]
        if self.body is not None:
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + (self.body or b"")

    def __repr__(self) -> str:
        return f"Request({shortened(self.wire)})"


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Brief):
    """One HTTP answer."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.headers}, {shortened(self.body)})"

    @property
    def is_last(self) -> bool:
        """The server closes the connection behind it."""
        return self.headers.get(b"connection", b"").lower() == b"close"


def shortened(data: bytes) -> str:
    """The bytes for a reader, however many there are."""
    if len(data) <= 1000:
        return repr(data)
    return f"{data[:600]!r} + {len(data) - 800} more + {data[-200:]!r}"


def infer(model: str, body: bytes, *headers: tuple[bytes, bytes]) -> Request:
    """An infer request of protocol v2."""
    return Request(b"/v2/models/%s/infer" % model.encode(), body, headers=headers)


def predict(model: str, body: bytes, *headers: tuple[bytes, bytes]) -> Request:
    """A predict request of TF-Serving's dialect."""
    return Request(b"/v1/models/%s:predict" % model.encode(), body, headers=headers)


def json_length(text: bytes | int) -> tuple[bytes, bytes]:
    """The header that says how much of a body is JSON, truly or not."""
    return b"inference-header-content-length", b"%d" % text if isinstance(text, int) else text


def answers_in(data: bytes, *, is_bodiless: bool = False) -> tuple[list[Answer], bytes]:
    """All whole answers at the beginning of some bytes, and the bytes behind them.

    Args:
        data: As they came.
        is_bodiless: The answer is one to HEAD, and so without the body whose length it tells.
    """
    answers: list[Answer] = []
    while (end := data.find(b"\r\n\r\n")) >= 0:
        first, *lines = data[:end].split(b"\r\n")
        pairs = [line.partition(b": ") for line in lines]
        headers = {name.lower(): value for name, _, value in pairs}
        status = int(first.split()[1])
        length = 0 if is_bodiless or status < 200 or status in (204, 304) else int(headers[b"content-length"])
        if len(data) < end + 4 + length:
            break
        body, data = data[end + 4 : end + 4 + length], data[end + 4 + length :]
        if status >= 200:
            answers.append(Answer(status, headers, body))
    return answers, data


class Line:
    """A connection to the server that is used for one request after another.

    Args:
        address: Host and port.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def ask(self, request: Request) -> Answer:
        """The answer to a request; there is exactly one, and nothing behind it."""
        if self._socket is None:
            self._socket = self._connected()
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was read
                self._socket.sendall(request.wire)
            answer = self._read(self._socket, is_bodiless=request.method == b"HEAD")
        except BaseException:
            self.close()
            raise
        if answer.is_last:
            self.close()
        return answer

    def tell(self, stream: Stream) -> list[Answer]:
        """All answers to a stream; its connection is closed in the end."""
        with self._connected() as own:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                own.sendall(stream.wire)
            # What is answered on another connection afterwards was read afterwards.
            live = Request(b"/v2/health/live", method=b"GET")
            assert [self.ask(live).status for _ in range(2)] == [200, 200]
            rest = b""
            with contextlib.suppress(OSError):  # cut off by the server
                own.shutdown(socket.SHUT_WR)
                while part := own.recv(2**16):
                    rest += part
        answers, left = answers_in(rest)
        assert not left.strip() or left.startswith(b"HTTP/1.1 "), left[:200]
        return answers

    def _connected(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=TIMEOUT_S)

    def _read(self, source: socket.socket, *, is_bodiless: bool) -> Answer:
        data = b""
        while True:
            answers, rest = answers_in(data, is_bodiless=is_bodiless)
            if answers:
                assert len(answers) == 1 and not rest, (answers[1:], rest[:200])
                return answers[0]
            part = source.recv(2**18)
            assert part, f"closed without an answer, after {data[:200]!r}"
            data += part
