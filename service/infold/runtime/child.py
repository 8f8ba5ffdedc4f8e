"""The child process in which models run: started, asked folder by folder, ended or found dead.

It reads the name of a folder a line on its standard input, and answers a line when
all jobs in it are done. What native code prints goes to its standard error.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["Child", "DiedError", "child_at_hand", "kept_child"]

ENTRY = "from infold.runtime.probe import serve_jobs; serve_jobs()"


class DiedError(Exception):
    """The child is no more.

    Attributes:
        cause: The signal, or the exit code; None if it was ended because it took too long.
        said: The last line it wrote.
    """

    def __init__(self, cause: str | None, said: str) -> None:
        self.cause = cause
        self.said = said
        super().__init__(cause)


class Child:
    """One child process; it is started with the first folder."""

    def __init__(self) -> None:
        self._is_over = False
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`

    def work(self, folder: Path, timeout_s: float) -> None:
        """Return when all jobs of a folder are done.

        Raises:
            DiedError: It died on the way, or took longer than `timeout_s`; the next folder gets a
                new process.
        """
        process = self._started()
        if self._is_over:
            process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout_s, end)
        timer.start()
        try:
            try:
                process.stdin.write(f"{folder}\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
        finally:
            timer.cancel()
        if not answer:
            cause = _cause(process.wait())
            self._end()
            raise DiedError(None if late.is_set() else cause, self._last_line())

    def kill(self) -> None:
        """Whatever it works on comes to nothing, and whatever it is given; from another thread."""
        self._is_over = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        self._end()
        self._errors.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._errors.truncate(0)
            command = [sys.executable, "-c", ENTRY]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # what it never read
                continue

    def _last_line(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""


def _cause(returncode: int) -> str:
    if returncode < 0:
        return signal.Signals(-returncode).name
    return f"exit code {returncode}"


_kept: ContextVar[Child | None] = ContextVar("kept child", default=None)


@contextmanager
def kept_child() -> Iterator[Child]:
    """One process for all runs inside the context: starting one takes longer than small models run."""
    if (kept := _kept.get()) is not None:
        yield kept
        return
    child = Child()
    token = _kept.set(child)
    try:
        yield child
    finally:
        _kept.reset(token)
        child.close()


@contextmanager
def child_at_hand() -> Iterator[Child]:
    """The kept child, or one for this once."""
    with kept_child() as child:
        yield child
