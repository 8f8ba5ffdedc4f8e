"""What a version is held against while it serves: some of its runs are done again by another model.

A run is picked while it is under way, and copied once its callers have their
answers; all else happens in the thread of `shadow_thread.py`. Where nothing is
configured there is no `Shadow`, and a run does no more than see that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from infold.errors import InfoldError
from infold.runtime import Stop
from infold.serving.calls import RunFunction, SharedRun
from infold.serving.divergence import worst
from infold.serving.events import Observer, Shadowed
from infold.serving.runners import clock
from infold.serving.sampling import Ran, Share, copied

__all__ = ["LARGEST", "Desk", "Shadow"]

log = logging.getLogger(__name__)

# A divergence that is told, at least and at most once in so long.
NOTABLE = 1e-3
SELDOM_S = 3600.0
# What counts for more than this, as infinity does, counts for this: sums and JSON know no infinity.
LARGEST = 1e6


class Desk(Protocol):
    """Where runs are handed in to be repeated."""

    @property
    def has_room(self) -> bool:
        """A run that is handed in now is likely taken."""

    def add(self, shadow: Shadow) -> None:
        """Open a shadow, and take runs for it."""

    def put(self, shadow: Shadow, ran: Ran) -> bool:
        """Take a run; False where there is no room."""

    def remove(self, shadow: Shadow) -> None:
        """Take no more for a shadow, and forget what was taken."""


class Shadow:
    """The shadow of one version; made on the event loop, and closed there.

    Args:
        name: Model and version that are held against it.
        share: Of the runs, that are picked.
        most_rows: Of a run, that are repeated; 0 for all or nothing.
        opener: Loads it, which is given to it, and gives what runs it; called in the desk's thread.
        desk: Where runs are repeated.
        observer: Told of everything, on the event loop.
        now: A clock, in seconds.

    Attributes:
        problem: Why nothing is run on it; empty as long as something is.
        is_closed: It is of no use any more.
    """

    def __init__(
        self,
        name: tuple[str, int],
        share: float,
        most_rows: int,
        opener: Callable[[Shadow], RunFunction],
        desk: Desk,
        observer: Observer,
        now: Callable[[], float] = clock,
    ) -> None:
        self.problem = ""
        self.is_closed = False
        self._name = name
        self._share = Share(share)
        self._most_rows = most_rows
        self._opener = opener
        self._desk = desk
        self._observer = observer
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()  # of runs; its next one is nobody else's, whatever thread asks
        self._run: RunFunction | None = None
        self._stop: Stop | None = None
        self._give_up: Callable[[], None] | None = None
        self._told_at: dict[str, float] = {}
        desk.add(self)

    # -- on the event loop, or in a runner --------------------------------------------------------

    def picks(self) -> bool:
        """One more run: it is to be repeated."""
        return self._run is not None and self._share.picks(next(self._numbers))

    def offer_all(self, runs: Iterable[SharedRun]) -> None:
        """Have those that were picked repeated; their callers have their answers."""
        for run in runs:
            if (ran := run.ran) is not None:
                run.ran = None
                self.offer(ran)

    def offer(self, ran: Ran) -> None:
        """Have a run repeated, if there is time and room for it; nothing of it is held but a copy."""
        if self.is_closed:
            return
        copy = copied(ran, self._most_rows) if self._desk.has_room else None
        if copy is None or not self._desk.put(self, copy):
            self.drop()

    def close(self) -> None:
        """End what is run on it, and let its session go."""
        self.is_closed = True
        self._run = None
        if (stop := self._stop) is not None:
            stop.set()
        if (give_up := self._give_up) is not None:
            give_up()
        self._desk.remove(self)

    # -- in the desk's thread ---------------------------------------------------------------------

    def open(self) -> None:
        """Load it; if that fails, the version is served without it."""
        try:
            run = self._opener(self)
        except Exception as failure:
            if self.is_closed:
                return
            why = str(failure) if isinstance(failure, InfoldError) else f"{type(failure).__name__}: {failure}"
            self._tell(self._not_opened, why)
            return
        self._run = run
        if self.is_closed:  # meanwhile
            self._run = None
            return
        self._tell(self._opened)

    def may_take_long(self, give_up: Callable[[], None]) -> None:
        """Loading takes its time now; `give_up`, called in any thread, ends that once it is closed."""
        self._give_up = give_up
        if self.is_closed:
            give_up()

    def repeat(self, ran: Ran) -> None:
        """Do a run again and compare."""
        run, stop = self._run, Stop()
        self._stop = stop
        try:
            if run is None or self.is_closed:
                return
            output, off = worst(ran.results, run(ran.tensors, ran.outputs, stop))
        except Exception as failure:
            if not self.is_closed:
                self._tell(self._failed, str(failure) or type(failure).__name__)
        else:
            self._tell(self._compared, output, min(off, LARGEST))
        finally:
            self._stop = None

    def drop(self) -> None:
        """A run that was picked is not repeated; in any thread."""
        self._tell(self._count, Shadowed.DROPPED)

    def _tell(self, what: Callable[..., None], *facts: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody counts any more
            self._loop.call_soon_threadsafe(what, *facts)

    # -- on the event loop ------------------------------------------------------------------------

    def _opened(self) -> None:
        self._count(Shadowed.OPENED)
        log.info("shadow opened", extra=self._about)

    def _not_opened(self, why: str) -> None:
        self.problem = f"not held against its shadow: {why}"
        self._count(Shadowed.FAILED)
        log.error("shadow not opened", extra=self._about | {"reason": why})

    def _failed(self, why: str) -> None:
        self._count(Shadowed.FAILED)
        if self._is_time_to_tell("failure"):
            log.warning("shadow failed", extra=self._about | {"reason": why})

    def _compared(self, output: str, off: float) -> None:
        self._count(Shadowed.RAN, off)
        if off > NOTABLE and self._is_time_to_tell("divergence"):
            log.warning("shadow diverges", extra=self._about | {"output": output, "divergence": off})

    def _count(self, outcome: Shadowed, off: float = 0.0) -> None:
        self._observer.shadowed(*self._name, outcome, off)

    def _is_time_to_tell(self, what: str) -> bool:
        now = self._now()
        if now - self._told_at.get(what, -SELDOM_S) < SELDOM_S:
            return False
        self._told_at[what] = now
        return True

    @property
    def _about(self) -> dict[str, object]:
        return {"model": self._name[0], "version": self._name[1]}
