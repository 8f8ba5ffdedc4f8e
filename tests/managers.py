"""A manager over a shelf, with real sessions: what it does is watched, held back or made to fail."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infold.runtime import Cache, Device, Placement
from infold.serving import (
    Asked,
    ModelManager,
    ModelRepository,
    Servable,
    SilentObserver,
    Watch,
    Work,
    manager,
    preparing,
)
from infold.serving.following import SETTLE_S, follow
from infold.serving.loading import Loaded, load
from shelves import Shelf

CPU = Placement(Device.CPU, "asked for")
EVERY_S = 15.0
ONE = np.ones(2, np.float32)


class Watched(SilentObserver):
    """Everything that was told, and what metrics would show of it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, str]] = []
        self.shown: dict[tuple[str, int], str] = {}

    def state_changed(self, model: str, version: int, state: str, reason: str) -> None:
        self.told.append((model, version, str(state)))
        self.shown[model, version] = str(state)


class Served:
    """A manager over a shelf, with what loads through it.

    Attributes:
        loads: Model and version of each load that was begun, in order.
        sessions: Of all that were loaded.
        gates: Held back until set, by model and version.
        begun: Set once a load that is held back has begun.
        failures: Raised instead of loading, by model and version.
    """

    def __init__(self, shelf: Shelf, cache: Cache, asked: list[str] | None, marker: str) -> None:
        self.shelf = shelf
        self.observer = Watched()
        self.repository = ModelRepository(shelf.root, marker)
        self.manager = ModelManager(
            self.repository,
            CPU,
            self.observer,
            cache,
            cores=1,
            asked=None if asked is None else dict.fromkeys(asked),
        )
        self.catalogue = self.manager.catalogue
        self.loads: list[tuple[str, int]] = []
        self.sessions: list[weakref.ref[Any]] = []
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.begun = threading.Event()
        self.failures: dict[tuple[str, int], Exception] = {}

    def load(self, version: Any, *more: Any) -> Loaded:
        """In the place of `loading.load`."""
        key = version.name, version.number
        self.loads.append(key)
        if key in self.gates:
            self.begun.set()
            assert self.gates[key].wait(30)
        if key in self.failures:
            raise self.failures[key]
        loaded = load(version, *more)
        self.sessions += [weakref.ref(each) for each in (loaded.session, loaded.wide) if each is not None]
        return loaded

    def hold(self, name: str, number: int = 1) -> threading.Event:
        """A gate before loads of a version."""
        self.begun.clear()
        gate = self.gates[name, number] = threading.Event()
        return gate

    async def has_begun(self) -> None:
        """A load waits at its gate."""
        assert await asyncio.to_thread(self.begun.wait, 20)

    async def factor(self, name: str, version: int | None = None) -> float:
        """What a model multiplies by."""
        with self.catalogue.lease(name, version) as servable:
            return await multiplied(servable)

    @property
    def states(self) -> dict[tuple[str, int | None], str]:
        return {(each.model, each.version): str(each.state) for each in self.catalogue.states()}

    @property
    def reasons(self) -> list[str]:
        return [each.reason for each in self.catalogue.states() if each.reason]

    @property
    def alive(self) -> int:
        """Sessions that are still there; one may be for as long as the thread that loaded it tidies up."""
        return sum(each() is not None for each in self.sessions)


async def multiplied(servable: Servable) -> float:
    """What a servable makes of 1."""
    answer = await servable.answer(Work(lambda: Asked({"x": ONE}), lambda results: results["y"]))
    return float(answer[0])


@asynccontextmanager
async def serving(
    shelf: Shelf, cache: Cache, asked: list[str] | None = None, marker: str = ""
) -> AsyncIterator[Served]:
    """A manager that has loaded nothing yet; in the end it is closed, and no task is left."""
    before = asyncio.all_tasks()
    served = Served(shelf, cache, asked, marker)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manager, "load", served.load)
        patched.setattr(preparing, "MEASURE_S", 0.0)
        patched.setattr(preparing, "QUIET", 0.0)
        try:
            yield served
        finally:
            for gate in served.gates.values():
                gate.set()
            await served.manager.close()
    left = asyncio.all_tasks() - before
    assert not left


class Looks(Watch):
    """A watch whose sleep between two looks ends when told."""

    def __init__(self) -> None:
        super().__init__(Path())
        self._asleep, self._wake = asyncio.Event(), asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """See `Watch`: until the next look, or until what has changed is settled."""
        assert seconds in (EVERY_S, SETTLE_S)
        self._asleep.set()
        await self._wake.wait()
        self._wake.clear()

    async def look(self) -> None:
        """The manager looks once."""
        async with asyncio.timeout(20):
            await self._asleep.wait()
            self._asleep.clear()
            self._wake.set()
            await self._asleep.wait()


@asynccontextmanager
async def following(served: Served) -> AsyncIterator[Looks]:
    """The manager follows the repository, until the end."""
    looks = Looks()
    task = asyncio.create_task(follow(served.manager, served.repository, EVERY_S, looks))
    yield looks
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def until(holds: Callable[[], bool]) -> None:
    """Let others work until something holds."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0)
