"""Several processes behind one socket: started, watched, started again, ended together.

The supervisor answers no request and loads no model. It owns the listening socket
and one channel to each worker; what workers ask of each other passes through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from dataclasses import dataclass

from infold.errors import ConfigError, InfoldError, WorkerError
from infold.rest.access.start import scheme_of, tell_what_others_may
from infold.rest.channel import Answer, Channel, Drain, Failed, Gather, Hello, Joined, Message, Opened, Ready
from infold.rest.listening import listen_everywhere, serving_line
from infold.rest.peers import Exchange
from infold.rest.shares import Shares, open_shares
from infold.rest.starting import fitted, running_line
from infold.settings import Settings

__all__ = ["Pause", "supervise"]

log = logging.getLogger(__name__)

SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
EXIT_S = 10.0  # for the way from a closed channel to the end of the process


class Pause:
    """How long to wait before a worker is started again: longer each time it did not last."""

    def __init__(self) -> None:
        self._next_s = SHORTEST_PAUSE_S

    def after(self, lasted_s: float) -> float:
        """Seconds to wait after a life that lasted so long."""
        if lasted_s > LONGEST_PAUSE_S:
            self._next_s = SHORTEST_PAUSE_S
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return pause_s


@dataclass(eq=False, slots=True)
class _Place:
    """What is kept of a worker beyond the life of its process."""

    worker: int
    lives: int = 0
    process: Process | None = None
    channel: Channel | None = None
    is_ready: bool = False
    was_ready: bool = False
    is_open: bool = False
    failure: Failed | None = None


def supervise(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve with several workers until SIGTERM or SIGINT; then all drain, and none is left.

    A second signal ends everything at once, with exit code 1.

    Args:
        settings: What to serve, where and how; more than one worker.
        announce: Told one line once all workers answer, and one line before.

    Raises:
        ConfigError: The address cannot be listened on, or a worker said so of a setting.
        WorkerError: A worker could not start, or died while it drained.
    """
    settings = fitted(settings)
    tell_what_others_may(settings)
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen_everywhere(settings)]
        asyncio.run(_Supervisor(settings, listeners, announce).run())


class _Supervisor:
    def __init__(
        self, settings: Settings, listeners: list[socket.socket], announce: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._announce = announce
        self._places = [_Place(worker) for worker in range(settings.workers)]
        self._draining = asyncio.Event()
        self._grace_s = 0.0
        self._shares_fd = open_shares(settings.workers)
        self._shares = Shares(self._shares_fd, settings.workers)
        self._is_announced = False
        self._lost: WorkerError | None = None

    async def run(self) -> None:
        """Return when all workers have drained."""
        loop = asyncio.get_running_loop()
        self._exchange = Exchange(len(self._places), lambda delay, call: loop.call_later(delay, call))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain, number)
        try:
            async with asyncio.TaskGroup() as group:
                for place in self._places:
                    group.create_task(self._keep(place))
        except BaseExceptionGroup as failures:
            # One is told: the others most likely say the same.
            raise _first(failures.subgroup(InfoldError) or failures) from None
        if self._lost is not None:
            raise self._lost

    def _drain(self, number: int) -> None:
        if self._draining.is_set():  # asked a second time: whoever asks will not wait for answers
            for place in self._places:
                _kill(place.process)
            os._exit(1)
        self._grace_s = self._settings.grace_s if number == signal.SIGTERM else 0.0
        self._draining.set()
        for listener in self._listeners:
            listener.close()  # so that nobody queues where nobody answers
        for place in self._places:
            if place.channel is not None:
                place.channel.send(Drain(self._grace_s))

    async def _keep(self, place: _Place) -> None:
        """Have this worker running until the service drains."""
        pause = Pause()
        while not self._draining.is_set():
            started = time.monotonic()
            code = await self._live(place)
            cause = _cause(code)
            if self._draining.is_set():
                if code != 0 and place.is_ready:
                    self._lost = WorkerError(f"{cause} while it drained", place.worker)
                return
            if not place.was_ready:
                raise _start_error(place, cause)
            pause_s = pause.after(time.monotonic() - started)
            detail = {"reason": place.failure.detail} if place.failure else {}
            log.error(
                "worker died",
                extra={"worker": place.worker, "cause": cause, "again_in_s": pause_s} | detail,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), pause_s)

    async def _live(self, place: _Place) -> int:
        """One process from its start to its end; its exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            main, *second = (listener.fileno() for listener in self._listeners)
            shared = (main, self._shares_fd, theirs.fileno(), *second)
            # Where this process does not look for modules in the current folder, its workers do not.
            safe = () if os.getcwd() in sys.path else ("-P",)
            command = (sys.executable, *safe, "-m", "infold", "worker", *map(str, shared))
            place.process = process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, pass_fds=shared
            )
        log.info("worker started", extra={"worker": place.worker, "pid": process.pid})
        place.failure, place.is_ready, place.is_open = None, False, False
        channel = None
        try:
            place.channel = channel = await Channel.over(ours)
            settings = self._settings.model_dump(mode="json")
            earlier = self._exchange.earlier(place.worker)
            channel.send(Hello(place.worker, settings, earlier, place.lives))
            place.lives += 1
            if self._draining.is_set():
                channel.send(Drain(self._grace_s))
            async for message in channel:
                self._hear(place, channel, message)
            self._exchange.leave(place.worker)
            self._shares.leave(place.worker)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), EXIT_S)
        finally:
            self._exchange.leave(place.worker)
            self._shares.leave(place.worker)
            if channel is not None:
                channel.close()
            _kill(process)
            code = await process.wait()
            place.process = place.channel = None
        return code

    def _hear(self, place: _Place, channel: Channel, message: Message) -> None:
        match message:
            case Ready():
                place.is_ready = place.was_ready = True
                self._exchange.join(place.worker, channel.send)
                channel.send(Joined())
            case Opened():
                place.is_open = True
                log.info("worker ready", extra={"worker": place.worker})
                self._announce_once(message)
            case Failed():
                place.failure = message
            case Gather():
                self._exchange.gather(place.worker, message)
            case Answer():
                self._exchange.answered(place.worker, message)
            case _:
                log.error("message not understood", extra={"worker": place.worker})

    def _announce_once(self, opened: Opened) -> None:
        if self._is_announced or self._draining.is_set() or not all(each.is_open for each in self._places):
            return
        self._is_announced = True
        self._announce(running_line(opened.device, self._settings.workers))
        self._announce(serving_line(opened.models, self._listeners, scheme_of(self._settings)))


def _start_error(place: _Place, cause: str) -> InfoldError:
    if place.failure is None:
        return WorkerError(f"{cause} before it was ready", place.worker)
    if place.failure.place is not None:
        return ConfigError(place.failure.place, place.failure.detail)
    return WorkerError(place.failure.detail)


def _kill(process: Process | None) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _cause(returncode: int) -> str:
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"
