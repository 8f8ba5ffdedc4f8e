"""The child in which a version is tried: it reads an order, does all that a load does, and tells the outcome.

It is started by `serving/trial.py` and thrown away. What native code prints goes to its standard error.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
from typing import Any, TextIO

from infold.errors import InfoldError
from infold.runtime import Cache, Device
from infold.runtime.confinement import bound_memory, confine, end_with
from infold.runtime.model_files import check_files
from infold.serving.golden import check_golden
from infold.serving.loading import opened
from infold.serving.preparing import Findings, checked_weights, prepare
from infold.serving.presenting import presented
from infold.serving.telling import words_of
from infold.serving.trial import Order

__all__ = ["main"]


def main() -> None:
    """Entry of the child; its one argument is the number of the process that started it."""
    confine(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # native code prints there as it likes
    order: Order = pickle.loads(_read_order())
    end_with(sys.stdin.buffer)
    root = logging.getLogger()
    root.handlers[:] = [_Told(answers)]
    root.setLevel(logging.INFO)
    for told_by_the_server in ("loading", "presenting"):  # the plan, and which hints have no effect
        logging.getLogger(f"infold.serving.{told_by_the_server}").setLevel(logging.WARNING)
    try:
        _say(answers, {"found": _tried(order, answers).as_json()})
    except InfoldError as failure:
        _say(answers, {"error": words_of(failure)})
    except Exception as failure:  # of whatever kind: it is this version's
        _say(answers, {"error": [type(failure).__name__, "", str(failure)]})
    os._exit(0)  # without the ends of native libraries, which may hang


def _read_order() -> bytes:
    return sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "little"))


def _tried(order: Order, answers: TextIO) -> Findings:
    """Do what the server will do, in the same order."""
    version, cache = order.version, Cache(order.folder, order.label, or_temporary=False)
    check_files(version.path, root=version.root)
    # What CUDA sets aside in this process says nothing of the model.
    is_bounded = order.memory_bytes > 0 or order.narrow.placement.device is Device.CPU
    if is_bounded:
        bound_memory(order.memory_bytes, version.path.stat().st_size)
    files = [version.path, *(version.path.parent / name for name in checked_weights(version))]
    if is_bounded:
        _say(answers, {"bound": bound_memory(order.memory_bytes, sum(each.stat().st_size for each in files))})
    found = prepare(version, order.narrow, order.cores, cache)
    loaded = opened(version, found, order.narrow, order.cores, cache)
    check_golden(version, presented(version, loaded))
    return found


def _say(answers: TextIO, told: dict[str, Any]) -> None:
    answers.write(json.dumps(told, default=str) + "\n")
    answers.flush()


class _Told(logging.Handler):
    """Hands records to whoever started this process."""

    def __init__(self, answers: TextIO) -> None:
        super().__init__(logging.INFO)
        self._answers = answers
        self._usual = frozenset(logging.makeLogRecord({}).__dict__)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        extra = {key: value for key, value in record.__dict__.items() if key not in self._usual}
        _say(self._answers, {"log": [record.name, record.levelno, record.getMessage(), extra]})
