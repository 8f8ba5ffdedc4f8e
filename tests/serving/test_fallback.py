"""An older version in the place of newer ones that do not load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import LoadError, ModelNotReadyError
from infold.runtime import Cache
from infold.serving import Load, State, Unload, plan
from infold.serving.versions import fallbacks, wanted
from managers import following, serving
from shelves import Shelf

versions = st.sets(st.integers(1, 6))
policies = st.sampled_from(["latest", "latest:2", "all", (1, 3), (4,)])


async def test_a_start_over_a_bad_version_serves_the_one_before(shelf: Shelf, cache: Cache) -> None:
    """As the service did before it was started anew; and it tells why."""
    shelf.put("m", 1, 1)
    shelf.put("m", 2, 2)
    shelf.spoil("m", 3)
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert (await served.factor("m"), served.catalogue.is_ready) == (2, True)
        assert served.states == {("m", 2): State.READY, ("m", 3): State.FAILED}
        assert len(served.reasons) == 1


async def test_it_gives_way_once_a_newer_one_loads(shelf: Shelf, cache: Cache) -> None:
    """And is tried only once while nothing changes."""
    shelf.put("m", 1, 1)
    shelf.spoil("m", 2)
    shelf.spoil("m", 3)
    async with serving(shelf, cache) as served, following(served) as looks:
        for _ in range(3):
            await looks.look()
        assert served.loads == [("m", 3), ("m", 2), ("m", 1)]
        assert await served.factor("m") == 1
        shelf.put("m", 3, 3)
        await looks.look()
        await looks.look()
        assert await served.factor("m") == 3
        assert served.states == {
            ("m", 1): State.UNLOADED,
            ("m", 2): State.UNLOADED,
            ("m", 3): State.READY,
        }


async def test_a_list_of_versions_has_no_substitutes(shelf: Shelf, cache: Cache) -> None:
    """Its owner named them."""
    shelf.put("m", 1, 1)
    shelf.spoil("m", 2)
    shelf.configure("m", "versions = [2]")
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert served.loads == [("m", 2)]
        with pytest.raises(ModelNotReadyError):
            served.catalogue.find("m")


async def test_a_load_by_name_that_ends_with_an_older_version_is_told(shelf: Shelf, cache: Cache) -> None:
    """The order has failed, and yet whoever starts later serves what this one does."""
    shelf.put("m", 1, 1)
    shelf.spoil("m", 2)
    async with serving(shelf, cache, []) as served:
        with pytest.raises(LoadError, match="version 2"):
            await served.manager.load("m")
        assert await served.factor("m") == 1
        assert served.manager.asked == {"m": None}


@given(versions, st.dictionaries(st.integers(1, 6), st.sampled_from(State)), policies, versions, versions)
def test_a_model_answers_if_any_version_may_and_can(
    found: set[int],
    held: dict[int, State],
    policy: str | tuple[int, ...],
    bad: set[int],
    rejected: set[int],
) -> None:
    """Whatever happened before, the plan comes to rest with an answer, and never with a rejected one."""
    held = {n: state for n, state in held.items() if state not in (State.LOADING, State.DRAINING)}
    held = {n: State.FAILED if n in bad and state is State.READY else state for n, state in held.items()}
    for _ in range(50):
        match plan(found, held, policy, (), rejected):
            case Load(version):
                assert version in found
                assert version not in rejected
                held[version] = State.FAILED if version in bad else State.READY
            case Unload(version):
                held[version] = State.UNLOADED
            case None:
                break
    else:
        pytest.fail("the plan does not come to rest")
    serving = {version for version, state in held.items() if state is State.READY}
    may = {*wanted(found, policy, rejected), *fallbacks(found, policy, rejected)}
    can = {version for version in may if held.get(version) not in (None, State.FAILED)}
    assert bool(serving) or not can
    if serving & set(wanted(found, policy, rejected)):
        assert serving <= set(wanted(found, policy, rejected))
    if not wanted(found, policy, rejected):
        assert not serving


async def test_of_two_that_are_wanted_the_one_that_fails_leaves_its_place(shelf: Shelf, cache: Cache) -> None:
    """To the one that had it; and after a start anew to the same, so that a canary stays one."""
    shelf.configure("m", "versions = 'latest:2'")
    for number in (1, 2):
        shelf.put("m", number, number)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        shelf.spoil("m", 3)
        for _ in range(3):
            await looks.look()
        assert served.states == {("m", 1): State.READY, ("m", 2): State.READY, ("m", 3): State.FAILED}
        assert served.loads == [("m", 2), ("m", 1), ("m", 3)]
    async with serving(shelf, cache) as again:
        await again.manager.reconcile()
        assert again.states == {("m", 1): State.READY, ("m", 2): State.READY, ("m", 3): State.FAILED}
