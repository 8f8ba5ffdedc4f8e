"""A repository that is read from time to time; no clock."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from infold.errors import ModelNotFoundError
from infold.runtime import Cache
from infold.serving import State, manager
from managers import EVERY_S, Looks, following, serving
from shelves import Shelf


async def test_what_is_the_same_twice_is_loaded_and_what_still_changes_is_not(
    shelf: Shelf, cache: Cache
) -> None:
    """So nothing half-written is."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        weights = shelf.put("m", 2, 2) / "weights.bin"
        for written in range(3):
            weights.write_bytes(b"x" * written)
            await looks.look()
            assert (await served.factor("m"), served.loads) == (1, [("m", 1)])
        await looks.look()
        assert await served.factor("m") == 2
        for _ in range(3):
            await looks.look()
        assert served.loads == [("m", 1), ("m", 2)]
        shelf.put("new", 1, 3)
        await looks.look()
        assert "new" not in served.catalogue.held
        await looks.look()
        assert await served.factor("new") == 3


async def test_weights_in_a_folder_of_a_version_are_part_of_it(shelf: Shelf, cache: Cache) -> None:
    """While they are written it changes, too; a link that leads in a circle is not followed."""
    async with serving(shelf, cache) as served, following(served) as looks:
        folder = shelf.put("m", 1, 2) / "weights" / "first"
        folder.mkdir(parents=True)
        (folder / "circle").symlink_to("..")
        for written in range(3):
            (folder / "layer.bin").write_bytes(b"x" * written)
            await looks.look()
            assert served.loads == []
        await looks.look()
        assert await served.factor("m") == 2
        (folder / "layer.bin").unlink()
        await looks.look()
        await looks.look()
        assert served.loads == [("m", 1)] * 2


async def test_a_model_that_is_gone_for_a_moment_is_not_unloaded(shelf: Shelf, cache: Cache) -> None:
    """Whoever replaces a folder takes it away first; once it is gone twice, it is gone."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        await looks.look()
        shelf.take("m")
        await looks.look()
        assert await served.factor("m") == 1
        shelf.put("m", 1, 2)
        await looks.look()
        assert await served.factor("m") == 1
        await looks.look()
        assert await served.factor("m") == 2
        shelf.take("m")
        await looks.look()
        await looks.look()
        with pytest.raises(ModelNotFoundError):
            served.catalogue.find("m")


async def test_a_configuration_that_is_still_being_written_is_no_failure(shelf: Shelf, cache: Cache) -> None:
    """The service stays ready while somebody uploads; one that stays so is told."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        shelf.configure("new", "[batching]\nmax_rows = ")
        shelf.configure("m", "[batching")
        await looks.look()
        assert (served.states, served.catalogue.is_ready) == ({("m", 1): State.READY}, True)
        shelf.configure("new", "[batching]\nmax_rows = 3")
        await looks.look()
        assert served.states == {("m", None): State.FAILED, ("m", 1): State.READY}
        assert await served.factor("m") == 1


async def test_a_repository_that_cannot_be_listed_is_told_and_read_again(
    shelf: Shelf, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    """Following does not end by it."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        elsewhere = shelf.root.with_name("elsewhere")
        shelf.root.rename(elsewhere)
        for _ in range(2):
            await looks.look()
        assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
            "repository not listed"
        ] * 2
        assert await served.factor("m") == 1
        elsewhere.rename(shelf.root)
        shelf.put("m", 1, 2)
        await looks.look()
        await looks.look()
        assert await served.factor("m") == 2


async def test_following_outlives_an_error_that_nobody_thought_of(
    shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next look is as good as ever."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        with monkeypatch.context() as broken:
            broken.setattr(served.repository, "names", lambda: 1 / 0)
            await looks.look()
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert (record.message, record.exc_info is not None) == ("repository not followed", True)
        shelf.put("m", 1, 2)
        await looks.look()
        await looks.look()
        assert await served.factor("m") == 2


async def test_following_ends_with_the_service(shelf: Shelf, cache: Cache) -> None:
    """It loads nothing once the service drains."""
    async with serving(shelf, cache) as served:
        looks = Looks()
        with pytest.MonkeyPatch.context() as patched:
            names = {name: getattr(asyncio, name) for name in asyncio.__all__}
            patched.setattr(manager, "asyncio", SimpleNamespace(**{**names, "sleep": looks.sleep}))
            task = asyncio.create_task(served.manager.follow(EVERY_S))
            await looks.look()
            shelf.put("m")
            await looks.look()
            served.catalogue.begin_drain()
            looks._wake.set()
            await asyncio.wait_for(task, 20)
        assert served.loads == []
