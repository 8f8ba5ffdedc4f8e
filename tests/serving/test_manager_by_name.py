"""Models that are loaded and unloaded by name."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from infold.errors import ConfigError, LoadError, ModelNotFoundError, ModelNotReadyError
from infold.runtime import Cache
from infold.serving import ModelRepository, ModelState, State
from infold.serving.repository import Listing
from managers import multiplied, serving, until
from shelves import Shelf


async def test_by_name_nothing_is_loaded_but_what_was_asked_for(shelf: Shelf, cache: Cache) -> None:
    """At the start and later; all of it can be asked for at once."""
    for name in ("a", "b", "c"):
        shelf.put(name)
    async with serving(shelf, cache, ["b"]) as served:
        await served.manager.reconcile()
        assert served.catalogue.models() == ["b"]
        await served.manager.load("a")
        assert served.catalogue.models() == ["a", "b"]
        assert served.manager.asked == {"a": None, "b": None}
        assert await served.manager.models_on_disk() == ["a", "b", "c"]
    async with serving(shelf, cache, []) as served:
        await served.manager.reconcile()
        assert (served.catalogue.models(), served.catalogue.is_ready) == ([], True)
    async with serving(shelf, cache, ["*"]) as served:
        await served.manager.ask_for_all()
        await served.manager.reconcile()
        assert served.catalogue.models() == ["a", "b", "c"]


async def test_a_model_asked_for_at_the_start_that_is_not_there_is_told(shelf: Shelf, cache: Cache) -> None:
    """It cannot be passed over: somebody wants it."""
    async with serving(shelf, cache, ["gone"]) as served:
        await served.manager.reconcile()
        assert served.catalogue.states() == [
            ModelState("gone", None, State.FAILED, f"{shelf.root / 'gone'}: there is no version in it")
        ]
        assert not served.catalogue.is_ready


async def test_load_takes_what_lies_there_now(shelf: Shelf, cache: Cache) -> None:
    """A changed version is loaded again, a newer one takes its place."""
    async with serving(shelf, cache, []) as served:
        for number, factor in ((1, 1), (1, 2), (2, 3)):
            shelf.put("m", number, factor)
            await served.manager.load("m")
            assert await served.factor("m") == factor
        assert served.states == {("m", 1): State.UNLOADED, ("m", 2): State.READY}


async def test_load_tries_again_what_failed(shelf: Shelf, cache: Cache) -> None:
    """Though nothing of it has changed: it may have been something else."""
    shelf.put("m", 1, 2)
    async with serving(shelf, cache, []) as served:
        served.failures["m", 1] = MemoryError()
        for _ in range(2):
            with pytest.raises(LoadError, match=r"failed to load 'm', version 1: .*MemoryError"):
                await served.manager.load("m")
        served.failures.clear()
        await served.manager.load("m")
        assert (await served.factor("m"), len(served.loads)) == (2, 3)
        shelf.put("m", 1, 3)
        served.failures["m", 1] = MemoryError()
        with pytest.raises(LoadError):
            await served.manager.load("m")
        assert await served.factor("m") == 2
        served.failures.clear()
        await served.manager.load("m")
        assert (await served.factor("m"), served.reasons) == (3, [])


async def test_what_cannot_be_loaded_changes_nothing(shelf: Shelf, cache: Cache) -> None:
    """Not what is served, and not what a worker that starts later is told to load."""
    shelf.put("m", 1, 2)
    shelf.spoil("bad")
    shelf.put("odd")
    shelf.configure("odd", "versions = [7]")
    async with serving(shelf, cache, []) as served:
        await served.manager.load("m")
        for name in ("gone", "..", "", "bad", "odd", "m/1"):
            with pytest.raises(LoadError, match="failed to load"):
                await served.manager.load(name)
        shelf.configure("m", "versions = [7]")
        with pytest.raises(LoadError, match=r"'m', .*versions.*7"):
            await served.manager.load("m")
        shelf.configure("m", "nonsense")
        with pytest.raises(LoadError, match=r"'m', .*model.toml: not valid TOML"):
            await served.manager.load("m")
        assert await served.factor("m") == 2
        assert served.manager.asked == {"m": None}


async def test_one_version_of_two_that_does_not_load_is_told(shelf: Shelf, cache: Cache) -> None:
    """The other is served, so the model counts as asked for."""
    shelf.put("m", 1, 1)
    shelf.spoil("m", 2)
    shelf.configure("m", "versions = 'all'")
    async with serving(shelf, cache, []) as served:
        with pytest.raises(LoadError, match="version 2"):
            await served.manager.load("m")
        assert (await served.factor("m"), served.manager.asked) == (1, {"m": None})


async def test_unload_waits_for_whoever_holds_it(shelf: Shelf, cache: Cache) -> None:
    """Nobody else gets it meanwhile."""
    shelf.put("m", 1, 2)
    async with serving(shelf, cache, []) as served:
        await served.manager.load("m")
        with served.catalogue.lease("m") as held:
            going = asyncio.create_task(served.manager.unload("m"))
            await until(lambda: held.state is State.DRAINING)
            with pytest.raises(ModelNotReadyError, match="draining"):
                served.catalogue.find("m")
            assert await multiplied(held) == 2
            assert not going.done()
        await going
        for version in (None, 1):
            with pytest.raises(ModelNotFoundError):
                served.catalogue.find("m", version)
        assert served.catalogue.models() == []
        assert served.catalogue.is_ready
        assert served.manager.asked == {}
        assert served.states == {("m", 1): State.UNLOADED}


async def test_unload_waits_for_whoever_holds_what_was_replaced(shelf: Shelf, cache: Cache) -> None:
    """It is the same model to whoever asked."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache, []) as served:
        await served.manager.load("m")
        with served.catalogue.lease("m") as old:
            shelf.put("m", 1, 2)
            await served.manager.load("m")
            going = asyncio.create_task(served.manager.unload("m"))
            await until(lambda: served.states == {("m", 1): State.UNLOADED})
            assert not going.done()
            assert await multiplied(old) == 1
        await going


async def test_what_was_unloaded_can_be_loaded_again(shelf: Shelf, cache: Cache) -> None:
    """As it lies there then."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache, []) as served:
        for factor in (1, 2, 2):
            shelf.put("m", 1, factor)
            await served.manager.load("m")
            assert await served.factor("m") == factor
            await served.manager.unload("m")
        await served.manager.unload("m")  # as often as one likes


async def test_unload_of_what_nobody_knows_says_so(shelf: Shelf, cache: Cache) -> None:
    """It lies there, but was never loaded; or it does not even lie there."""
    shelf.put("m")
    async with serving(shelf, cache, []) as served:
        for name in ("m", "gone"):
            with pytest.raises(ModelNotFoundError):
                await served.manager.unload(name)


async def test_unload_of_what_failed_takes_it_off_the_service(shelf: Shelf, cache: Cache) -> None:
    """Which is ready again; metrics tell no failure any more."""
    shelf.spoil("m")
    async with serving(shelf, cache, []) as served:
        with pytest.raises(LoadError):
            await served.manager.load("m")
        assert not served.catalogue.is_ready
        await served.manager.unload("m")
        assert served.catalogue.is_ready
        assert served.observer.shown == {("m", 1): State.UNLOADED}
        assert State.FAILED not in served.states.values()
        with pytest.raises(ModelNotFoundError):
            served.catalogue.find("m")


async def test_unloading_leaves_no_session(shelf: Shelf, cache: Cache) -> None:
    """Even where the collector does not look: what is loaded at the start is out of its sight."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache, []) as served:
        gc.disable()
        try:
            await served.manager.load("m")
            await served.factor("m")
            shelf.put("m", 1, 2)
            await served.manager.load("m")
            await served.factor("m")
            assert len(served.sessions) >= 2
            await served.manager.unload("m")
            await until(lambda: served.alive == 0)
        finally:
            gc.enable()


class Overriding(ModelRepository):
    """Remembers what it was asked; an override is the versions that are wanted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[tuple[str, str | None]] = []

    def listing(self, name: str, override: str | None = None) -> Listing:
        """See `ModelRepository`."""
        self.asked.append((name, override))
        if override == "nonsense":
            raise ConfigError("config", "makes no sense")
        found = super().listing(name)
        return found if override is None else Listing(found.versions, override)


async def test_what_overrides_the_configuration_reaches_the_listing(shelf: Shelf, cache: Cache) -> None:
    """It is kept for whoever starts later, until the model is loaded without or not any more."""
    for number in (1, 2):
        shelf.put("m", number, number)
    fake = Overriding(shelf.root)
    async with serving(shelf, cache, []) as served:
        served.manager._repository = fake
        await served.manager.load("m", "all")
        assert (fake.asked, served.manager.asked) == ([("m", "all")], {"m": "all"})
        assert [await served.factor("m", number) for number in (1, 2)] == [1, 2]
        with pytest.raises(LoadError, match="config: makes no sense"):
            await served.manager.load("m", "nonsense")
        assert served.manager.asked == {"m": "all"}
        await served.manager.reconcile()
        assert fake.asked[-1] == ("m", "all")
        await served.manager.load("m")
        assert served.manager.asked == {"m": None}
        assert served.states == {("m", 1): State.UNLOADED, ("m", 2): State.READY}
        await served.manager.unload("m")
        assert served.manager.asked == {}
