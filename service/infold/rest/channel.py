"""What the supervisor and its workers tell each other: typed messages, one JSON line each.

The codec is pure: bytes in, messages out. `Channel` is the thin shell around a
socket. Light on purpose: the supervisor imports this and no web framework.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping

import msgspec

from infold.errors import ConfigError, InfoldError

__all__ = [
    "Answer",
    "Ask",
    "Channel",
    "Drain",
    "Failed",
    "Gather",
    "Gathered",
    "Hello",
    "Joined",
    "Lines",
    "Message",
    "Opened",
    "Ready",
    "encode",
]

READ_BYTES = 2**16


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """To a new worker: who it is and what it serves.

    Attributes:
        worker: Its number, from 0.
        settings: All settings, as JSON.
        earlier: What its predecessor answered last, by topic, and on shared topics anyone.
        predecessors: How many were there before it, in its place.
    """

    worker: int
    settings: Mapping[str, object]
    earlier: Mapping[str, object]
    predecessors: int = 0


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """To a worker: turn not ready, and later answer what was accepted, then end.

    Attributes:
        grace_s: How much later.
    """

    grace_s: float = 0.0


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """To a worker: answer this with the same id."""

    id: int
    topic: str
    payload: object = None


class Gathered(msgspec.Struct, frozen=True, tag="gathered"):
    """To a worker: what all workers said, in their order; None for one that said nothing."""

    id: int
    answers: list[object]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From a worker: it has loaded what it serves, and waits until it has joined the others."""


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """From a worker that has joined: it takes connections from now on.

    Attributes:
        device: The device that runs the models, and why.
        models: Names of what it serves.
    """

    device: str
    models: list[str]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From a worker: it cannot start, and ends.

    Attributes:
        detail: What is wrong.
        place: The setting that is at fault; None if it is no setting.
    """

    detail: str
    place: str | None = None

    @classmethod
    def of(cls, failure: InfoldError) -> Failed:
        """What is left of an error on its way to another process."""
        if isinstance(failure, ConfigError):
            return cls(failure.detail, failure.place)
        return cls(str(failure))


class Gather(msgspec.Struct, frozen=True, tag="gather"):
    """From a worker: ask all workers, this one too, and answer `Gathered` with the same id.

    Attributes:
        kept: True puts the last answer in the place of one that does not come.
        shared: True hands the last answer of any worker to each that starts later, and asks it what
            it has missed.
    """

    id: int
    topic: str
    payload: object
    timeout_s: float
    kept: bool = False
    shared: bool = False


class Joined(msgspec.Struct, frozen=True, tag="joined"):
    """To a worker that is ready: whatever it has missed stands before this."""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """From a worker: the answer to an `Ask`."""

    id: int
    answer: object = None


Message = Hello | Drain | Ask | Gathered | Ready | Joined | Opened | Failed | Gather | Answer

_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """A message as one line."""
    return msgspec.json.encode(message) + b"\n"


class Lines:
    """Bytes as they come, cut into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with this data.

        Raises:
            msgspec.ValidationError, msgspec.DecodeError: A line is no message; a mistake of ours.
        """
        *whole, last = data.split(b"\n")
        if not whole:
            self._rest += last
            return []
        lines = [bytes(self._rest) + whole[0], *whole[1:]]
        self._rest = bytearray(last)
        return [_decoder.decode(line) for line in lines]


class Channel:
    """Messages over a stream socket, both ways.

    Iterating over it gives messages until the other side is gone; it is iterated over once.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._messages = self._read()

    @classmethod
    async def over(cls, connected: socket.socket) -> Channel:
        """A channel on one end of a socket pair, which it owns from now on."""
        return cls(*await asyncio.open_unix_connection(sock=connected))

    def send(self, message: Message) -> None:
        """Send at once; into the void if the other side is gone."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def flush(self) -> None:
        """Return when what was sent is on its way, or nobody is left to read it."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._messages

    async def _read(self) -> AsyncIterator[Message]:
        lines = Lines()
        while data := await self._read_some():
            for message in lines.feed(data):
                yield message

    async def _read_some(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Let the socket go."""
        self._writer.close()
