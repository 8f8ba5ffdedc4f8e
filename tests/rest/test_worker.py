"""How connections are taken, alone and as one of several: in this process, on a real socket."""

import asyncio
import mmap
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from fastapi import FastAPI

from infold.rest.listening import listen
from infold.rest.server import Server, config_of
from infold.rest.shares import Shares, open_shares
from infold.rest.worker import WorkerServer
from infold.settings import Settings

SETTINGS = Settings(port=0, drain_s=1)


@asynccontextmanager
async def serving(
    listener: socket.socket, worker: int = 0, shares: Shares | None = None, settings: Settings = SETTINGS
) -> AsyncIterator[Server]:
    """A server of nothing, and its end."""
    ready = asyncio.Event()
    config = config_of(FastAPI(), settings)
    if shares is not None:
        server: Server = WorkerServer(config, listener, worker, shares, ready.set)
        task = asyncio.create_task(server.serve())
        await ready.wait()
    else:
        server = Server(config)
        task = asyncio.create_task(server.serve([listener]))
    try:
        yield server
    finally:
        server.should_exit = True
        await task


def shares_of(workers: int) -> Shares:
    descriptor = open_shares(workers)
    try:
        return Shares(descriptor, workers)
    finally:
        os.close(descriptor)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The head of an answer on a kept connection."""
    writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    return head


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_accepted_connections_send_at_once(shared: bool) -> None:
    """TCP_NODELAY is set on each, or every small answer would wait for an acknowledgement."""

    async def check() -> None:
        listener = listen(SETTINGS)
        async with serving(listener, 0, shares_of(2) if shared else None) as server:
            streams = [await asyncio.open_connection(*listener.getsockname()) for _ in range(3)]
            for stream in streams:
                assert b"404" in await ask(*stream)
            sockets = [each.transport.get_extra_info("socket") for each in server.server_state.connections]
            assert [s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for s in sockets] == [1, 1, 1]
            for _, writer in streams:
                writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())


def test_one_of_two_takes_no_more_than_its_share_of_a_burst() -> None:
    """One connection a turn, and whoever holds fewer comes first."""

    async def check() -> None:
        listener = listen(SETTINGS)
        second = listener.dup()
        shares = shares_of(2)
        async with serving(listener, 0, shares) as one, serving(second, 1, shares) as other:
            opening = [asyncio.open_connection(*listener.getsockname()) for _ in range(32)]
            streams = await asyncio.gather(*opening)
            await asyncio.gather(*(ask(*stream) for stream in streams))
            found = sorted(len(each.server_state.connections) for each in (one, other))
            assert sum(found) == 32
            assert found[0] >= 15
            for _, writer in streams:
                writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())


def test_one_that_is_full_leaves_connections_to_whoever_has_room() -> None:
    """However long that takes; where nobody has any, they are turned away."""

    async def check() -> None:
        listener = listen(SETTINGS)
        shares = shares_of(2)
        shares.hold(1, 0)  # it is there, and busy with something else
        async with serving(listener, 0, shares, Settings(port=0, drain_s=1, max_connections=1)):
            first = await asyncio.open_connection(*listener.getsockname())
            assert b"404" in await ask(*first)
            second = await asyncio.open_connection(*listener.getsockname())
            try:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(second[0].readuntil(b"\r\n"), 0.5)
                shares.hold(1, 1)
                assert b"503" in await second[0].readuntil(b"\r\n")
            finally:
                for _, writer in (first, second):
                    writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())


def test_a_connection_on_its_way_in_counts_once() -> None:
    """Or the others, who see one too many, would take the next one although they are full."""

    async def check() -> None:
        listener = listen(SETTINGS)
        descriptor = open_shares(2)
        seen_by_all = memoryview(mmap.mmap(descriptor, 8)).cast("i")
        shares = Shares(descriptor, 2)
        os.close(descriptor)
        async with serving(listener, 0, shares) as server:
            shown, held = set(), []
            for count in range(1, 6):
                held.append(asyncio.ensure_future(asyncio.open_connection(*listener.getsockname())))
                while len(server.server_state.connections) < count or not held[-1].done():
                    await server.on_tick(1)
                    shown.add((count, seen_by_all[0]))
                    await asyncio.sleep(0)
                for _ in range(5):  # until its task has ended
                    await server.on_tick(1)
                    shown.add((count, seen_by_all[0]))
                    await asyncio.sleep(0)
            assert shown == {(count, known) for count in range(1, 6) for known in (count - 1, count)}
            for each in held:
                each.result()[1].close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())


def test_a_turn_is_that_of_whoever_holds_fewest_of_those_there() -> None:
    """Who is gone holds none, and is waited for by none; at a tie anybody may."""
    shares = shares_of(3)
    shares.hold(0, 4)
    assert shares.is_turn_of(0)
    shares.hold(1, 3)
    assert [shares.is_turn_of(worker) for worker in (0, 1)] == [False, True]
    shares.hold(0, 3)
    assert shares.is_turn_of(0) and shares.is_turn_of(1)
    shares.hold(0, 9)
    shares.leave(1)
    assert shares.is_turn_of(0)
