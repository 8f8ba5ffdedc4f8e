"""Signals that end a bench come at moments of our choosing, so that nothing is left behind."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["signals_held", "signals_leave"]


@contextmanager
def signals_held() -> Iterator[None]:
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


@contextmanager
def signals_leave(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """SIGTERM and SIGHUP end the loop, and then the process as they do elsewhere.

    A handler that raises would do so inside some callback of the loop, and get lost there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def leave(number: int) -> None:
        asked.append(number)
        for task in asyncio.all_tasks(loop):
            task.cancel()

    numbers = [signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            loop.add_signal_handler(number, leave, number)
    try:
        yield
    except asyncio.CancelledError:
        if asked:
            sys.exit(128 + asked[0])
        raise
    finally:
        for number in numbers:
            if before[number] is not signal.SIG_IGN:
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])
