"""A repository that is read from time to time; no clock."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from infold.errors import ModelNotFoundError
from infold.runtime import Cache
from infold.serving import State, Watch, follow
from infold.serving import following as following_module
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
        task = asyncio.create_task(follow(served.manager, served.repository, EVERY_S, looks))
        await looks.look()
        shelf.put("m")
        await looks.look()
        served.catalogue.begin_drain()
        looks._wake.set()
        await asyncio.wait_for(task, 20)
        assert served.loads == []


async def test_an_empty_folder_in_its_place_is_a_volume_that_has_gone(
    shelf: Shelf, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    """What is loaded is served on, and the log says so once; what comes back is followed again."""
    shelf.put("a", 1, 1)
    shelf.put("b", 1, 2)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        await looks.look()
        elsewhere = shelf.root.with_name("elsewhere")
        shelf.root.rename(elsewhere)
        shelf.root.mkdir()
        for _ in range(4):
            await looks.look()
        assert (await served.factor("a"), await served.factor("b")) == (1, 2)
        assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == ["repository is gone"]
        shelf.root.rmdir()
        elsewhere.rename(shelf.root)
        shelf.take("b")
        for _ in range(3):
            await looks.look()
        assert served.catalogue.models() == ["a"]


async def test_a_version_without_its_marker_is_not_looked_at(shelf: Shelf, cache: Cache) -> None:
    """However long it lies there unchanged."""
    shelf.put("m", 1, 1)
    (shelf.root / "m" / "1" / "READY").touch()
    async with serving(shelf, cache, marker="READY") as served, following(served) as looks:
        await served.manager.reconcile()
        folder = shelf.put("m", 2, 2)
        for _ in range(3):
            await looks.look()
        assert (await served.factor("m"), served.loads) == (1, [("m", 1)])
        (folder / "READY").touch()
        await looks.look()
        await looks.look()
        assert await served.factor("m") == 2


async def test_what_changes_is_looked_at_before_its_time(shelf: Shelf, cache: Cache) -> None:
    """The system tells of it; from one timed look to the next it would be a day."""
    async with serving(shelf, cache) as served:
        watch = Watch(shelf.root)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(following_module, "SETTLE_S", 0.05)
            tasks = [
                asyncio.create_task(watch.run()),
                asyncio.create_task(follow(served.manager, served.repository, 86400.0, watch)),
            ]
            await asyncio.sleep(0.3)  # until events are listened to
            shelf.put("m", 1, 2)
            async with asyncio.timeout(20):
                while "m" not in served.catalogue.models():
                    await asyncio.sleep(0.01)
                while not served.catalogue.is_ready:
                    await asyncio.sleep(0.01)
            assert await served.factor("m") == 2
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_a_folder_that_cannot_be_watched_is_read_by_time_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may come later."""
    watch = Watch(tmp_path / "gone")
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(20):
        while not caplog.records:
            await asyncio.sleep(0.01)
    assert caplog.records[0].message == "repository not watched"
    await watch.sleep(0.001)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
