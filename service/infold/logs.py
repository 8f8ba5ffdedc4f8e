"""Logging, configured once: JSON lines on standard error, each with the request's id."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, TextIO

import orjson

__all__ = ["AccessLog", "configure", "request_id"]

request_id: ContextVar[str] = ContextVar("request_id", default="")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the record's own facts."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        seconds = time.gmtime(record.created)
        facts: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", seconds) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if identity := request_id.get():
            facts["request_id"] = identity
        facts.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(facts, default=str).decode()


class AccessLog:
    """One line an answer, in the form of every other line, at a tenth of what `logging` costs.

    Lines of one turn of the event loop are written together.

    Args:
        name: The logger whose level and handler count.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._lines: list[bytes] = []
        self._second, self._time = 0, ""

    def line(
        self, method: str, path: str, status: int, seconds: float, sent_bytes: int, identity: str
    ) -> None:
        """Note an answer; from the event loop only."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._time = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        facts = {
            "time": f"{self._time}.{int((now - second) * 1000):03d}Z",
            "level": "info",
            "logger": self._logger.name,
            "event": "client left" if status == 499 else "request answered",
            "request_id": identity,
            "method": method,
            "path": path,
            "status": status,
            "seconds": round(seconds, 6),
            "sent_bytes": sent_bytes,
        }
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._write)
        self._lines.append(orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE))

    def _write(self) -> None:
        text = b"".join(self._lines)
        self._lines.clear()
        stream = _stream()
        if stream is not None:
            stream.write(text.decode())
            stream.flush()


def _stream() -> TextIO | None:
    """Where the root logger writes; None before `configure`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and isinstance(handler.formatter, JsonFormatter):
            stream: TextIO = handler.stream
            return stream
    return None


def configure(level: str) -> None:
    """Send every logger's records of this level and above to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    # Our own access line says more, and connection chatter is nobody's state change.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel("WARNING")
