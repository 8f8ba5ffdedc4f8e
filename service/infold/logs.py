"""Logging, configured once: JSON lines on standard error, each with the request's id."""

from __future__ import annotations

import logging
import sys
import time
from contextvars import ContextVar
from typing import Any

import orjson

__all__ = ["configure", "request_id"]

request_id: ContextVar[str] = ContextVar("request_id", default="")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the record's own facts.

    Args:
        common: Facts of every line.
    """

    def __init__(self, common: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._common = common or {}

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        seconds = time.gmtime(record.created)
        facts: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", seconds) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._common,
        }
        if identity := request_id.get():
            facts["request_id"] = identity
        facts.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(facts, default=str).decode()


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
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    # Our own access line says more, and connection chatter is nobody's state change.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel("WARNING")
