"""Orders given at once, and the end in the midst of one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import LoadError, ModelNotFoundError, ModelNotReadyError
from infold.runtime import Cache
from infold.serving import State
from managers import Served, multiplied, serving, until
from shelves import Shelf

NAMES = "ab"
ORDERS = st.tuples(st.sampled_from(["load", "unload", "look"]), st.sampled_from(NAMES))
DISKS = st.fixed_dictionaries({name: st.sampled_from([None, 0, 2, 3]) for name in NAMES})


@given(rounds=st.lists(st.tuples(DISKS, st.lists(ORDERS, max_size=25)), min_size=1, max_size=3))
def test_orders_given_at_once_end_as_if_given_one_by_one(
    rounds: list[tuple[dict[str, int | None], list[tuple[str, str]]]],
    tmp_path_factory: pytest.TempPathFactory,
    cache: Cache,
) -> None:
    """In their order; no version is served twice, and what is not served is not there."""
    shelf = Shelf(tmp_path_factory.mktemp("orders"))

    async def check() -> None:
        async with serving(shelf, cache, []) as served:
            wanted: dict[str, int | None] = {}  # what is served, by model
            for disk, orders in rounds:
                lay_out(shelf, disk)
                done = await asyncio.gather(*(give(served, *order) for order in orders))
                for order, failure in zip(orders, done, strict=True):
                    expected = carried_out(wanted, disk, *order)
                    assert isinstance(failure, expected or type(None)), (order, failure)
                for name in NAMES:
                    assert await found(served, name) == wanted.get(name)
                ready = sum(len(held.ready) for held in served.catalogue.held.values())
                assert ready == sum(factor is not None for factor in wanted.values())
                await until(lambda ready=ready: served.alive == ready)

    gc.disable()
    try:
        asyncio.run(check())
    finally:
        gc.enable()


def lay_out(shelf: Shelf, disk: dict[str, int | None]) -> None:
    """Put what each model is now: gone, broken, or a factor."""
    for name, factor in disk.items():
        if factor is None:
            if (shelf.root / name).is_dir():
                shelf.take(name)
        elif factor == 0:
            shelf.spoil(name)
        else:
            shelf.put(name, 1, factor)


async def give(served: Served, what: str, name: str) -> Exception | None:
    """Carry out an order; what was wrong with it."""
    orders: dict[str, Callable[[], Awaitable[None]]] = {
        "load": lambda: served.manager.load(name),
        "unload": lambda: served.manager.unload(name),
        "look": served.manager.reconcile,
    }
    try:
        await orders[what]()
    except (LoadError, ModelNotFoundError) as failure:
        return failure
    return None


def carried_out(
    wanted: dict[str, int | None], disk: dict[str, int | None], what: str, name: str
) -> type[Exception] | tuple[type[Exception], ...] | None:
    """What an order comes to, in a model of the manager; what is wrong with it."""
    if what == "load":
        if factor := disk[name]:
            wanted[name] = factor
            return None
        return LoadError
    if what == "unload":
        was_served = wanted.pop(name, None)
        return None if was_served else (ModelNotFoundError, type(None))  # nobody may remember it
    for each in [name for name in wanted if disk[name] != 0]:
        wanted[each] = disk[each]
    return None


async def found(served: Served, name: str) -> float | None:
    """What a model multiplies by; None if it is not served."""
    try:
        return await served.factor(name)
    except (ModelNotFoundError, ModelNotReadyError):
        return None


@pytest.mark.parametrize("is_served", [False, True], ids=["new", "changed"])
async def test_closing_during_a_load_ends_and_leaves_nothing(
    shelf: Shelf, cache: Cache, is_served: bool
) -> None:
    """Whatever the load comes to, nobody needs it; whoever asked for it is told so."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache, []) as served:
        if is_served:
            await served.manager.load("m")
            shelf.put("m", 1, 2)
        gate = served.hold("m")
        orders = asyncio.gather(*(served.manager.load("m") for _ in range(2)), return_exceptions=True)
        await served.has_begun()
        await asyncio.wait_for(served.manager.close(), 20)
        gate.set()
        failures = [str(failure) for failure in await asyncio.wait_for(orders, 20)]
        assert failures == ["failed to load 'm', the service is going down"] * 2
        assert State.READY not in served.states.values()
        del orders
        gc.collect()
        await until(lambda: served.alive == 0)


async def test_closing_during_an_unload_waits_for_it(shelf: Shelf, cache: Cache) -> None:
    """What was accepted is answered, whoever lets go of the model."""
    shelf.put("m", 1, 2)
    async with serving(shelf, cache, []) as served:
        await served.manager.load("m")
        with served.catalogue.lease("m") as held:
            going = asyncio.create_task(served.manager.unload("m"))
            await until(lambda: held.state is State.DRAINING)
            closing = asyncio.create_task(served.manager.close())
            await asyncio.sleep(0)
            assert await asyncio.wait_for(multiplied(held), 20) == 2
            assert not closing.done()
        await asyncio.wait_for(asyncio.gather(going, closing), 20)


async def test_closing_while_what_was_replaced_is_held_waits_for_it(shelf: Shelf, cache: Cache) -> None:
    """It answers to the end."""
    shelf.put("m", 1, 1)
    async with serving(shelf, cache, []) as served:
        await served.manager.load("m")
        with served.catalogue.lease("m") as old:
            shelf.put("m", 1, 2)
            await served.manager.load("m")
            closing = asyncio.create_task(served.manager.close())
            await until(lambda: served.states == {("m", 1): State.UNLOADED})
            assert await asyncio.wait_for(multiplied(old), 20) == 1
            assert not closing.done()
        await asyncio.wait_for(closing, 20)
        assert served.catalogue.is_draining and not served.catalogue.is_ready
