"""How connections are taken, alone and as one of several: in this process, on a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from fastapi import FastAPI

from infold.rest.listening import listen
from infold.rest.server import Server, config_of
from infold.rest.worker import WorkerServer
from infold.settings import Settings

SETTINGS = Settings(port=0, drain_s=1)


@asynccontextmanager
async def serving(shared: bool, listener: socket.socket) -> AsyncIterator[Server]:
    """A server of nothing, and its end."""
    ready = asyncio.Event()
    config = config_of(FastAPI(), SETTINGS)
    if shared:
        server: Server = WorkerServer(config, listener, ready.set)
        task = asyncio.create_task(server.serve())
        await ready.wait()
    else:
        server = Server(config)
        task = asyncio.create_task(server.serve([listener]))
    yield server
    server.should_exit = True
    await task


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
        async with serving(shared, listener) as server:
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
    """One connection a turn: two servers of one loop get about half each, however many wait."""

    async def check() -> None:
        listener = listen(SETTINGS)
        second = listener.dup()
        async with serving(True, listener) as one, serving(True, second) as other:
            opening = [asyncio.open_connection(*listener.getsockname()) for _ in range(32)]
            streams = await asyncio.gather(*opening)
            await asyncio.gather(*(ask(*stream) for stream in streams))
            shares = sorted(len(each.server_state.connections) for each in (one, other))
            assert sum(shares) == 32
            assert shares[0] >= 12
            for _, writer in streams:
                writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())
