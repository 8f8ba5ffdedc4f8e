"""A child process for one order: it says lines until it has done it, or is ended.

The child may be at the mercy of a file from a stranger. So nothing that it does can hold up or fill
the parent: it is given a time, and what it says a length.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Ending", "Throwaway"]

MOST_BYTES = 4 * 2**20  # of what it says; it is ended there
KEPT_BYTES = 4096  # of what it and native code write to standard error
EXIT_S, LOOK_S = 5.0, 0.005
PIECE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended that did not do what it was told.

    Attributes:
        cause: `ended by SIGSEGV`, or `ended with exit code 3`.
        is_late: It was ended because its time was over.
        said: The end of what it wrote to standard error.
    """

    cause: str
    is_late: bool
    said: str


class Throwaway:
    """A child process that has been started.

    Args:
        entry: Python that it runs; its standard input holds the order behind its length in four bytes,
            and is closed only when the child is to end; it says lines on its standard output.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, entry: str) -> None:
        # Where this process does not look for modules in the current folder, its child does not.
        safe = [] if os.getcwd() in sys.path else ["-P"]
        self._process = subprocess.Popen(
            [sys.executable, *safe, "-c", entry, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,  # Ctrl-C is not for it, and all that it starts ends with it
        )
        self._one_at_a_time = threading.Lock()
        self.pid = self._process.pid

    def work(self, order: bytes, timeout_s: float, hear: Callable[[bytes], bool]) -> Ending | None:
        """Return when the child has said its last line, or is no more; it is gone then in any case.

        Args:
            order: What it reads.
            timeout_s: It is given.
            hear: Called with each line; True once it is the last.

        Returns:
            How it ended, where it never said a last line.
        """
        talk = _Talk(memoryview(len(order).to_bytes(4, "little") + order), hear)
        is_late = False
        try:
            is_late = self._talk(talk, time.monotonic() + timeout_s)
        finally:
            code = self.end(EXIT_S if not (is_late or talk.is_done) else 0)
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
        if talk.is_done:
            return None
        return Ending(_cause(code), is_late, bytes(talk.errors).decode("utf-8", "replace").strip())

    def end(self, grace_s: float = 0) -> int:
        """The child and all that it started are no more.

        Args:
            grace_s: It is given to end by itself.

        Returns:
            Its exit code, or the signal below zero.
        """
        with self._one_at_a_time:
            if self._process.returncode is None:
                end = time.monotonic() + grace_s
                while not self._is_dead() and time.monotonic() < end:
                    time.sleep(LOOK_S)
                # Before it is waited for: then its number might be another's.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
            return self._process.wait()

    def _is_dead(self) -> bool:
        """It has ended, and still has its number."""
        if not hasattr(os, "waitid"):  # as on macOS
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _talk(self, talk: _Talk, deadline: float) -> bool:
        """Say the order and hear the answers; True where the time was over first."""
        given, answers, errors = self._process.stdin, self._process.stdout, self._process.stderr
        assert given is not None and answers is not None and errors is not None  # noqa: PT018 - no test
        os.set_blocking(given.fileno(), False)
        with selectors.DefaultSelector() as waiting:
            waiting.register(given, selectors.EVENT_WRITE, talk.give)
            waiting.register(answers, selectors.EVENT_READ, talk.take_answer)
            waiting.register(errors, selectors.EVENT_READ, talk.take_error)
            while not talk.is_over:
                left = deadline - time.monotonic()
                if left <= 0:
                    return True
                for key, _ in waiting.select(left):
                    if not key.data(key.fd):
                        waiting.unregister(key.fileobj)
        return False


@dataclass(eq=False, slots=True)
class _Talk:
    """What was said so far."""

    order: memoryview
    hear: Callable[[bytes], bool]
    line: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    heard_bytes: int = 0
    is_done: bool = False
    is_over: bool = False

    def give(self, descriptor: int) -> bool:
        """Write what fits; False once nothing is left."""
        try:
            self.order = self.order[os.write(descriptor, self.order[:PIECE_BYTES]) :]
        except BrokenPipeError:
            return False
        return len(self.order) > 0

    def take_answer(self, descriptor: int) -> bool:
        """Read lines; False once there will be no more."""
        piece = os.read(descriptor, PIECE_BYTES)
        self.heard_bytes += len(piece)
        if not piece or self.heard_bytes > MOST_BYTES:
            self.is_over = True
            return False
        *lines, rest = (bytes(self.line) + piece).split(b"\n")
        self.line = bytearray(rest)
        for line in lines:
            if self.hear(line):
                self.is_done = self.is_over = True
                return False
        return True

    def take_error(self, descriptor: int) -> bool:
        """Keep the end of it."""
        piece = os.read(descriptor, PIECE_BYTES)
        self.errors += piece
        del self.errors[:-KEPT_BYTES]
        return bool(piece)


def _cause(code: int) -> str:
    if code < 0:
        names = {each.value: each.name for each in signal.Signals}
        return f"ended by {names.get(-code, f'signal {-code}')}"
    return f"ended with exit code {code}"
