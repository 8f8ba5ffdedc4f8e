"""What is loaded, kept and let go as a repository changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from infold.errors import LoadError, ModelNotFoundError, ModelNotReadyError, RepositoryError
from infold.runtime import Cache
from infold.serving import ModelState, State
from managers import multiplied, serving
from shelves import Shelf


async def test_at_the_start_the_wanted_versions_of_all_models_are_loaded(shelf: Shelf, cache: Cache) -> None:
    """The newest, unless the model says otherwise; what is no model is passed over."""
    for number in (1, 2, 10):
        shelf.put("one", number, number)
        shelf.put("all", number, number)
    shelf.configure("all", "versions = 'all'")
    (shelf.root / "empty").mkdir()
    (shelf.root / "one" / "11").mkdir()
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        ready = State.READY
        assert served.states == {("all", 1): ready, ("all", 2): ready, ("all", 10): ready, ("one", 10): ready}
        assert [await served.factor("one"), await served.factor("all", 2)] == [10, 2]
        assert served.catalogue.models() == ["all", "one"]
        assert served.catalogue.is_ready


async def test_a_second_look_at_what_has_not_changed_does_nothing(shelf: Shelf, cache: Cache) -> None:
    """Nor does loading by name."""
    shelf.put("m")
    shelf.spoil("bad")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        told, loads = list(served.observer.told), list(served.loads)
        await served.manager.reconcile()
        await served.manager.load("m")
        assert (served.observer.told, served.loads) == (told, loads)


async def test_a_new_version_is_loaded_before_the_old_one_goes(shelf: Shelf, cache: Cache) -> None:
    """Whoever asks meanwhile is answered by the old one."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        shelf.put("m", 2, 2)
        gate = served.hold("m", 2)
        looking = asyncio.create_task(served.manager.reconcile())
        await served.has_begun()
        assert await served.factor("m") == 1
        assert served.catalogue.is_ready
        with pytest.raises(ModelNotReadyError, match="loading"):
            served.catalogue.find("m", 2)
        gate.set()
        await looking
        assert await served.factor("m") == 2
        with pytest.raises(ModelNotFoundError):
            served.catalogue.find("m", 1)
        told = [(number, state) for _, number, state in served.observer.told]
        assert told[2:] == [(2, "loading"), (2, "ready"), (1, "draining"), (1, "unloaded")]


async def test_a_changed_version_is_loaded_beside_the_old_one(shelf: Shelf, cache: Cache) -> None:
    """Requests that the old one has are finished by it; whoever comes later gets the new one."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        with served.catalogue.lease("m") as old:
            shelf.put("m", 1, 5)
            gate = served.hold("m")
            looking = asyncio.create_task(served.manager.reconcile())
            await served.has_begun()
            assert await served.factor("m") == 1
            gate.set()
            await looking
            assert await served.factor("m") == 5
            assert old.state is State.DRAINING
            assert await multiplied(old) == 1
        assert served.states == {("m", 1): State.READY}


async def test_a_changed_configuration_is_a_change_of_all_versions(shelf: Shelf, cache: Cache) -> None:
    """What stands in it holds for all that are loaded."""
    shelf.put("m")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        shelf.configure("m", "[batching]\nmax_rows = 3")
        await served.manager.reconcile()
        assert served.catalogue.find("m").version.config.batching.max_rows == 3


async def test_a_changed_version_that_does_not_load_leaves_the_old_one(shelf: Shelf, cache: Cache) -> None:
    """Why is told; it is tried again once the file has changed again, and not before."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        path = shelf.spoil("m") / "model.onnx"
        for _ in range(3):
            await served.manager.reconcile()
        assert served.loads == [("m", 1)] * 2
        (state,) = served.catalogue.states()
        assert (state.state, str(path) in state.reason) == (State.READY, True)
        assert (await served.factor("m"), served.catalogue.is_ready) == (1, True)
        shelf.spoil("m")
        await served.manager.reconcile()
        assert served.loads == [("m", 1)] * 3
        shelf.put("m", 1, 2)
        await served.manager.reconcile()
        assert await served.factor("m") == 2
        assert served.catalogue.states() == [ModelState("m", 1, State.READY)]


async def test_a_new_version_that_does_not_load_leaves_the_old_one(shelf: Shelf, cache: Cache) -> None:
    """Until a newer one does; and nobody need know of the bad one once it is gone."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        shelf.spoil("m", 2)
        await served.manager.reconcile()
        assert await served.factor("m") == 1
        assert served.states == {("m", 1): State.READY, ("m", 2): State.FAILED}
        with pytest.raises(ModelNotReadyError, match="failed"):
            served.catalogue.find("m", 2)
        shelf.take("m", 2)
        await served.manager.reconcile()
        assert served.observer.shown == {("m", 1): State.READY, ("m", 2): State.UNLOADED}
        shelf.put("m", 3, 3)
        await served.manager.reconcile()
        assert await served.factor("m") == 3
        assert State.FAILED not in served.states.values()


async def test_what_fails_at_first_is_served_once_it_is_mended(shelf: Shelf, cache: Cache) -> None:
    """Until then the service is not ready."""
    shelf.spoil("m")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert not served.catalogue.is_ready
        with pytest.raises(ModelNotReadyError):
            served.catalogue.find("m")
        shelf.put("m", 1, 4)
        await served.manager.reconcile()
        assert (await served.factor("m"), served.catalogue.is_ready) == (4, True)


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), MemoryError(), RuntimeError("what")])
async def test_whatever_goes_wrong_with_one_version_is_its_own(
    shelf: Shelf, cache: Cache, failure: Exception
) -> None:
    """Errors that nobody thought of, too: the others are loaded, and it is tried again."""
    for name in ("a", "b", "c"):
        shelf.put(name, 1, 2)
    async with serving(shelf, cache) as served:
        served.failures["b", 1] = failure
        await served.manager.reconcile()
        assert [served.states[name, 1] for name in ("a", "b", "c")] == ["ready", "failed", "ready"]
        assert type(failure).__name__ in served.reasons[0]
        with pytest.raises(LoadError, match=type(failure).__name__):
            await served.manager.load("b")
        served.failures.clear()
        await served.manager.load("b")
        assert await served.factor("b") == 2
        served.failures["b", 1] = failure
        shelf.put("b", 1, 3)
        await served.manager.reconcile()
        assert await served.factor("b") == 2
        assert type(failure).__name__ in served.reasons[0]


async def test_a_configuration_that_makes_no_sense_leaves_the_others_alone(
    shelf: Shelf, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, once; what its model served is served on."""
    shelf.put("a", 1, 1)
    shelf.put("b", 1, 1)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        path = shelf.configure("a", "verions = 'all'")
        shelf.put("b", 1, 2)
        shelf.put("new", 1, 3)
        shelf.configure("new", "[batching]\nmax_rows = 0")
        for _ in range(2):
            await served.manager.reconcile()
        assert [await served.factor("a"), await served.factor("b")] == [1, 2]
        assert served.states["a", None] == served.states["new", None] == State.FAILED
        assert served.reasons[0].startswith(f"{path}: verions: unknown")
        assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
            "model not read"
        ] * 2
        with pytest.raises(ModelNotReadyError):
            served.catalogue.find("new")
        shelf.configure("a", "")
        shelf.take("new")
        await served.manager.reconcile()
        assert served.states == {("a", 1): State.READY, ("b", 1): State.READY}
        assert served.catalogue.models() == ["a", "b"]


async def test_a_model_that_is_gone_is_unloaded(shelf: Shelf, cache: Cache) -> None:
    """Nobody knows it any more, and no session of it is left."""
    shelf.put("m")
    shelf.put("stays")
    shelf.spoil("bad")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        shelf.take("m")
        shelf.take("bad")
        await served.manager.reconcile()
        assert served.states == {("stays", 1): State.READY}
        assert served.catalogue.is_ready
        assert served.observer.shown["bad", 1] == State.UNLOADED
        for name in ("m", "bad"):
            with pytest.raises(ModelNotFoundError):
                served.catalogue.find(name)


async def test_what_cannot_be_listed_says_so(shelf: Shelf, cache: Cache) -> None:
    """What is served is served on."""
    shelf.put("m", 1, 2)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        shelf.root.rename(shelf.root.with_name("elsewhere"))
        with pytest.raises(RepositoryError, match="no such model repository"):
            await served.manager.reconcile()
        with pytest.raises(RepositoryError):
            await served.manager.models_on_disk()
        assert await served.factor("m") == 2


async def test_a_disk_that_fails_is_told_and_not_taken_for_an_empty_one(
    shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one model, or of all; what is served is served on."""
    shelf.put("m", 1, 2)
    shelf.put("n", 1, 3)
    iterdir, broken = Path.iterdir, {shelf.root / "m"}

    def failing(path: Path) -> Iterator[Path]:
        if path in broken:
            raise OSError(116, "Stale file handle")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", failing)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert served.states == {("m", None): State.FAILED, ("n", 1): State.READY}
        assert served.reasons == [f"{shelf.root / 'm'}: Stale file handle"]
        assert await served.manager.models_on_disk() == ["n"]
        broken.clear()
        await served.manager.reconcile()
        assert await served.factor("m") == 2
        broken |= {shelf.root / "m" / "1", shelf.root / "n"}
        await served.manager.reconcile()
        assert [await served.factor("m"), await served.factor("n")] == [2, 3]
        broken.add(shelf.root)
        with pytest.raises(RepositoryError, match="Stale file handle"):
            await served.manager.reconcile()


async def test_a_folder_that_goes_while_it_is_read_is_gone(
    shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a version of it."""
    shelf.put("m")
    shelf.put("n", 1, 3)
    shelf.put("n", 2, 4)
    iterdir = Path.iterdir

    def vanishing(path: Path) -> Iterator[Path]:
        if path in (shelf.root / "m", shelf.root / "n" / "2"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", vanishing)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert served.states == {("n", 1): State.READY}
        assert await served.manager.models_on_disk() == ["n"]


async def test_a_label_is_a_version(shelf: Shelf, cache: Cache) -> None:
    """As the newest version that answers has it; whether that one is served is another question."""
    for number in (1, 2):
        shelf.put("m", number, number)
    shelf.configure("m", "versions = 'all'\n[version_labels]\nstable = 1\nnext = 2\nlost = 9")
    async with serving(shelf, cache) as served:
        with pytest.raises(ModelNotFoundError):
            served.catalogue.labelled("m", "stable")
        await served.manager.reconcile()
        labelled = served.catalogue.labelled
        assert [labelled("m", label) for label in ("stable", "next", "lost")] == [1, 2, 9]
        with pytest.raises(ModelNotFoundError, match="'m' version 9"):
            served.catalogue.find("m", 9)
        for name, label in (("m", "unheard of"), ("gone", "stable")):
            with pytest.raises(ModelNotFoundError):
                labelled(name, label)
        shelf.configure("m", "versions = 'all'\n[version_labels]\nstable = 2")
        await served.manager.reconcile()
        assert labelled("m", "stable") == 2
        shelf.take("m")
        await served.manager.reconcile()
        with pytest.raises(ModelNotFoundError):
            labelled("m", "stable")
