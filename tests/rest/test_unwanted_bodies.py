"""What is left of a request that was answered before all of it had come: over a real socket, in-process."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from fastapi import FastAPI

from infold.rest.listening import listen
from infold.rest.server import Server, config_of
from infold.settings import Settings

SETTINGS = Settings(port=0, drain_s=1, header_timeout_s=60)
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
NEXT = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(keep_alive_s: float) -> AsyncIterator[Stream]:
    """A connection to a server of nothing, which closes what is idle for so long."""
    config = config_of(FastAPI(), SETTINGS)
    config.timeout_keep_alive = keep_alive_s
    listener = listen(SETTINGS)
    address = listener.getsockname()
    server = Server(config)
    task = asyncio.create_task(server.serve([listener]))
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        server.should_exit = True
        await task


async def status(reader: asyncio.StreamReader) -> int:
    """Of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    return int(head.split()[1])


async def until_closed(reader: asyncio.StreamReader) -> None:
    """Return once the server has closed the connection."""
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            assert await reader.read() == b""


@pytest.mark.parametrize("rest", [b"", b"x", bytes(100_000)], ids=["none", "some", "all"])
def test_a_connection_is_closed_once_nothing_new_begins_on_it(rest: bytes) -> None:
    """Whether the rest of the body comes or not."""

    async def check() -> None:
        async with connected(0.5) as (reader, writer):
            writer.write(REQUEST)
            assert await status(reader) == 404
            writer.write(rest)
            await until_closed(reader)

    run(check())


def test_a_next_request_that_has_begun_has_the_time_that_any_has() -> None:
    """However long ago the one before it was answered."""

    async def check() -> None:
        async with connected(0.5) as (reader, writer):
            writer.write(REQUEST)
            assert await status(reader) == 404
            writer.write(bytes(100_000) + NEXT[:-2])
            await asyncio.sleep(1)
            writer.write(NEXT[-2:])
            assert await status(reader) == 404

    run(check())


def test_a_rest_that_comes_drop_by_drop_does_not_keep_a_connection() -> None:
    """It is thrown away, but not for ever."""

    async def check() -> None:
        async with connected(0.5) as (reader, writer):
            writer.write(REQUEST)
            assert await status(reader) == 404
            with suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            await until_closed(reader)

    run(check())


def test_the_next_request_behind_such_a_rest_is_answered() -> None:
    """And so is the one behind it, later than the rest may take."""

    async def check() -> None:
        async with connected(2) as (reader, writer):
            writer.write(REQUEST)
            assert await status(reader) == 404
            writer.write(bytes(100_000) + NEXT)
            assert await status(reader) == 404
            for _ in range(3):
                await asyncio.sleep(1)
                writer.write(NEXT)
                assert await status(reader) == 404

    run(check())


def run(check: Coroutine[Any, Any, None]) -> None:
    """On the loop that serves."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check)
