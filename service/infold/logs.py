"""Logging, configured once: JSON lines on standard error, each with the request's id."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TextIO

import orjson

__all__ = ["AccessLog", "configure", "request_id", "trace_id"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
# Of the trace that a request is part of; most are part of none.
trace_id: ContextVar[str] = ContextVar("trace_id", default="")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the record's own facts.

    Args:
        common: Facts of every line.
    """

    def __init__(self, common: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.common = common or {}

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        seconds = time.gmtime(record.created)
        facts: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", seconds) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self.common,
        }
        if identity := request_id.get():
            facts["request_id"] = identity
        if trace := trace_id.get():
            facts["trace_id"] = trace
        facts.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(facts, default=str).decode()


class AccessLog:
    """One line an answer, in the form of every other line, without a record of `logging` for each.

    It is put together from parts that are ready, and lines of one turn of the event loop are
    written together.

    Args:
        name: The logger whose level and handler count.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._lines: list[str] = []
        self._second, self._time = 0, ""
        handler = _handler()
        common = getattr(handler and handler.formatter, "common", {})
        facts = {"level": "info", "logger": name, **common}
        self._common = orjson.dumps(facts).decode()[1:-1] + ","

    def line(
        self,
        method: str,
        path: str,
        status: int,
        seconds: float,
        sent_bytes: int,
        identity: str,
        trace: str = "",
    ) -> None:
        """Note an answer; from the event loop only."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._write)
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._time = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        event = "client left" if status == 499 else "request answered"
        traced = f'"trace_id":"{trace}",' if trace else ""
        # Ids and methods are plain; only a path may need escaping, and few paths come often.
        self._lines.append(
            f'{{"time":"{self._time}.{int((now - second) * 1000):03d}Z",{self._common}"event":"{event}",'
            f'"request_id":"{identity}",{traced}"method":"{method}","path":{_quoted(path)},'
            f'"status":{status},"seconds":{seconds:.6f},"sent_bytes":{sent_bytes}}}\n'
        )

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        handler = _handler()
        if handler is None:
            return
        start = size = 0
        for index, line in enumerate(lines):
            length = len(line) if line.isascii() else len(line.encode())
            if size + length > ATOMIC_BYTES and index > start:
                _send(handler.stream, lines[start:index])
                start, size = index, 0
            size += length
        _send(handler.stream, lines[start:])


# What a pipe takes in one piece; lines of several processes on one pipe are not mixed up.
ATOMIC_BYTES = 4096
LONGEST_PATH = 512


def _quoted(text: str) -> str:
    """A path as JSON; of a long one the beginning, since nobody reads more."""
    return _kept(text if len(text) <= LONGEST_PATH else f"{text[:LONGEST_PATH]}...")


@lru_cache(maxsize=256)
def _kept(text: str) -> str:
    return orjson.dumps(text).decode()


def _send(stream: TextIO, lines: list[str]) -> None:
    stream.write("".join(lines))
    stream.flush()


def _handler() -> logging.StreamHandler[TextIO] | None:
    """The one that `configure` made; None before."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and isinstance(handler.formatter, JsonFormatter):
            return handler
    return None


def configure(level: str, worker: int | None = None) -> None:
    """Send every logger's records of this level and above to standard error as JSON.

    Args:
        level: The lowest that is sent.
        worker: Told in every line, where several processes write the same log.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter({} if worker is None else {"worker": worker}))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("infold.audit").setLevel(logging.INFO)  # who changed what is told at any level
    logging.captureWarnings(True)  # or a library's warning would be a line of its own making
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    # Our own access line says more, and connection chatter is nobody's state change.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel("WARNING")
