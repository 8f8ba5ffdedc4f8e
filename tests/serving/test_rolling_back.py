"""Versions that turn out bad once they are served, and how much of the traffic tries them."""

from __future__ import annotations

import asyncio

import pytest

from infold.errors import ConfigError, LoadError, ModelNotFoundError
from infold.runtime import Cache
from infold.serving import ModelRepository, State
from managers import following, multiplied, serving
from shelves import Shelf


async def test_the_version_before_takes_over_and_the_bad_one_goes(shelf: Shelf, cache: Cache) -> None:
    """It was unloaded long ago, and is loaded again first."""
    for number in (1, 2, 3):
        shelf.put("m", number, number)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        await served.manager.roll_back("m", 3)
        assert await served.factor("m") == 2
        assert served.states == {("m", 2): State.READY, ("m", 3): State.UNLOADED}
        assert served.reasons == ["rolled back"]
        await served.manager.roll_back("m", 3)  # twice is once
        assert await served.factor("m") == 2
        await served.manager.roll_back("m", 2)
        assert await served.factor("m") == 1
        assert served.manager.rejected == {"m": [2, 3]}


async def test_whoever_holds_the_bad_version_is_answered_by_it(shelf: Shelf, cache: Cache) -> None:
    """Nobody loses a request."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        with served.catalogue.lease("m") as held:
            task = asyncio.create_task(served.manager.roll_back("m", 2))
            while await served.factor("m") == 2:
                await asyncio.sleep(0.001)
            assert await multiplied(held) == 2
            assert not task.done()
        await task


async def test_the_disk_is_followed_but_the_bad_version_is_not_served_again(
    shelf: Shelf, cache: Cache
) -> None:
    """A newer one is, and after it the policy never wants what is rejected."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        await served.manager.roll_back("m", 2)
        for _ in range(3):
            await looks.look()
        assert await served.factor("m") == 1
        shelf.put("m", 3, 3)
        await looks.look()
        await looks.look()
        assert await served.factor("m") == 3


async def test_loading_by_name_forgives(shelf: Shelf, cache: Cache) -> None:
    """It says what is wanted now."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    async with serving(shelf, cache, ["m"]) as served:
        await served.manager.reconcile()
        await served.manager.roll_back("m", 2)
        await served.manager.load("m")
        assert (await served.factor("m"), served.manager.rejected) == (2, {})


@pytest.mark.parametrize(("policy", "text"), [("'latest'", "wants none"), ("[2]", "wants none")])
async def test_where_nothing_else_is_wanted_nothing_changes(
    shelf: Shelf, cache: Cache, policy: str, text: str
) -> None:
    """A model without an answer is worse than a bad one."""
    shelf.put("m", 2, 2)
    if policy == "[2]":
        shelf.put("m", 1, 1)
    shelf.configure("m", f"versions = {policy}")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        with pytest.raises(LoadError, match=text):
            await served.manager.roll_back("m", 2)
        assert (await served.factor("m"), served.manager.rejected) == (2, {})
        with pytest.raises(ModelNotFoundError):
            await served.manager.roll_back("other", 1)


async def test_where_the_one_before_does_not_load_nothing_changes(shelf: Shelf, cache: Cache) -> None:
    """And the reason is told."""
    shelf.spoil("m", 1)
    shelf.put("m", 2, 2)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        with pytest.raises(LoadError, match=r"failed to roll back 'm', version 1: "):
            await served.manager.roll_back("m", 2)
        assert await served.factor("m") == 2
        assert not served.manager.rejected.get("m")
        assert served.loads.count(("m", 2)) == 1


async def test_a_canary_gets_its_share_in_turn(shelf: Shelf, cache: Cache) -> None:
    """Every fourth request, and none by chance; who names a version gets that."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    shelf.configure("m", "versions = 'latest:2'\n[canary]\nshare = 0.25")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert [await served.factor("m") for _ in range(8)] == [1, 1, 1, 2, 1, 1, 1, 2]
        assert [await served.factor("m", 2), await served.factor("m", 1)] == [2, 1]
        assert served.catalogue.labelled("m", "canary") == 2
        assert served.catalogue.labelled("m", "stable") == 1
        await served.manager.roll_back("m", 2)
        assert {await served.factor("m") for _ in range(8)} == {1}
        for label in ("canary", "stable"):
            with pytest.raises(ModelNotFoundError):
                served.catalogue.labelled("m", label)


async def test_labels_of_the_owner_come_before_those_of_a_canary(shelf: Shelf, cache: Cache) -> None:
    """What is written down counts."""
    for number in (1, 2, 3):
        shelf.put("m", number, number)
    shelf.configure("m", "versions = 'all'\n[version_labels]\nstable = 1\n[canary]\nshare = 0.0\n")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        labels = {label: served.catalogue.labelled("m", label) for label in ("stable", "canary")}
        assert labels == {"stable": 1, "canary": 3}
        assert {await served.factor("m") for _ in range(5)} == {2}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[canary]\nshare = 0.5", "canary.share: a canary needs a version beside it"),
        ("versions = 'latest:2'\n[canary]\nshare = 1.5", "canary.share: 1.5 is not between 0 and 1"),
        ("versions = 'latest:2'\n[canary]\nweight = 0.5", "canary.weight: unknown"),
    ],
)
def test_a_canary_that_makes_no_sense_is_refused(shelf: Shelf, text: str, place: str) -> None:
    """With its place."""
    shelf.put("m")
    shelf.configure("m", text)
    with pytest.raises(ConfigError, match=place):
        ModelRepository(shelf.root).listing("m")
