"""`infold serve` in a process of its own, which is gone when the load is over."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infold.errors import ServerError

__all__ = ["Served", "served"]

STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    url: str
    process: int


@contextmanager
def served(repository: Path, device: str) -> Iterator[Served]:
    """Serve a repository on a free port of this machine as long as the context lasts.

    One line a request would be most of its log, so it logs from warnings on.

    Raises:
        ServerError: It does not come up; says what it said last.
    """
    command = [sys.executable, "-m", "infold", "serve", str(repository)]
    command += ["--host", "127.0.0.1", "--port", "0", "--device", device, "--log-level", "warning"]
    process = None
    with tempfile.TemporaryFile() as said:
        try:
            with _signals_held():
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r" on (http://\S+)", line):
                    yield Served(found[1], process.pid)
                    break
            else:
                raise ServerError(str(repository), f"infold serve does not start: {_last_line(said)}")
        finally:
            if process is not None:
                _stop(process)


@contextmanager
def _signals_held() -> Iterator[None]:
    """A signal that comes meanwhile is raised at the end.

    Otherwise it could strike after the process is there and before anybody knows its name.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            before[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for caught in came[:1]:
        signal.raise_signal(caught)


def _stop(process: subprocess.Popen[str]) -> None:
    """End it, asked or not: at this point nobody waits for an answer."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("infold: ") if lines else "it said nothing"
