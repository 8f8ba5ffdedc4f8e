"""Connections taken by two doors: what fails, what is full, what is late."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from authority import Authority
from infold.rest import worker
from infold.rest.access import handshake, second_door
from infold.rest.access.handshake import shaken_or_gone
from infold.rest.access.second_door import SecondDoor
from infold.rest.access.secured_server import SecuredServer
from infold.rest.listening import listen_everywhere, serving_line
from infold.rest.server import config_of
from infold.rest.worker import MOST_UNSHAKEN
from infold.settings import Settings


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the port that a request came by."""
    body = str(scope["server"][1]).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(authority: Authority, **more: Any) -> AsyncIterator[tuple[SecuredServer, list[int]]]:
    """A server of the app above on two ports, and its end."""
    certificate, key = authority.pair()
    settings = Settings(port=0, observe_port=0, drain_s=1, tls_cert=certificate, tls_key=key, **more)
    listeners = listen_everywhere(settings)
    ports = [each.getsockname()[1] for each in listeners]
    server = SecuredServer(config_of(app, settings), settings, listeners)
    task = asyncio.create_task(server.serve(listeners))
    try:
        yield server, ports
    finally:
        server.should_exit = True
        async with asyncio.timeout(20):
            await task
    assert [each.fileno() for each in listeners] == [-1, -1]


async def ask(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.rpartition(b"\r\n\r\n")[2]


async def until(holds: Callable[[], bool]) -> None:
    """Let others work until something holds."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0)


def run(check: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check)


def test_a_request_knows_the_port_it_came_by(tmp_path: Path) -> None:
    """By the socket that took it."""

    async def check() -> None:
        authority = Authority(tmp_path)
        async with serving(authority) as (_, ports):
            assert [await ask(port, authority.trusting()) for port in ports] == [
                b"%d" % port for port in ports
            ]

    run(check())


def test_a_handshake_that_is_not_finished_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten seconds, here fewer; nobody else waits for it, and no task is left."""
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 0.05)

    async def check() -> None:
        authority = Authority(tmp_path)
        async with serving(authority) as (server, ports):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
            assert await ask(ports[0], authority.trusting())
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()
            await until(lambda: not server._accepting)

    run(check())
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_handshakes_have_a_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those above it are closed, and whoever has a connection keeps it."""
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 1000)
    monkeypatch.setattr(handshake, "FAREWELL_S", 0.05)

    async def check() -> None:
        async with serving(Authority(tmp_path), max_connections=2) as (server, ports):
            silent = [await asyncio.open_connection("127.0.0.1", ports[0]) for _ in range(2 + MOST_UNSHAKEN)]
            while len(server._accepting) < len(silent):
                await asyncio.sleep(0)
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            assert len(server._accepting) == len(silent)
            for _, each in (*silent, (reader, writer)):
                each.close()

    run(check())


def test_who_is_above_the_limit_is_told_so_behind_the_handshake(tmp_path: Path) -> None:
    """As without TLS: a whole answer, and the end."""

    async def check() -> None:
        authority = Authority(tmp_path)
        async with serving(authority, max_connections=1) as (_, ports):
            first = await asyncio.open_connection("127.0.0.1", ports[0], ssl=authority.trusting())
            first[1].write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200" in await first[0].readuntil(b"\r\n")
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[0], ssl=authority.trusting())
            async with asyncio.timeout(20):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ") and answer.endswith(b'is 1"}')
            for each in (first[1], writer):
                each.close()

    run(check())


def test_a_service_that_goes_down_waits_for_no_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment for those that are nearly done, and no ten seconds for the others."""
    monkeypatch.setattr(handshake, "FAREWELL_S", 0.05)
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 1000)

    async def check() -> None:
        async with serving(Authority(tmp_path)) as (server, ports):
            streams = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
            await until(lambda: len(server._accepting) == 2)
        for reader, writer in streams:
            assert await reader.read() == b""
            writer.close()

    run(check())


def test_a_flood_of_handshakes_takes_no_more_than_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some above the limit are told so; the rest are closed without a word, then there is room."""
    monkeypatch.setattr(worker, "MOST_UNSHAKEN", 2)

    async def check() -> None:
        authority = Authority(tmp_path)
        async with serving(authority, max_connections=3) as (server, ports):
            silent = []
            for port in (ports[0], ports[1], ports[0], ports[1]):
                silent.append(await asyncio.open_connection("127.0.0.1", port))
                await until(lambda: len(server._accepting) == len(silent))
            assert await ask(ports[0], authority.trusting())  # the fifth of five
            await until(lambda: not server.server_state.connections)
            silent.append(await asyncio.open_connection("127.0.0.1", ports[0]))
            await until(lambda: len(server._accepting) == len(silent))
            for port in ports:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == b""
                writer.close()
            for _, writer in silent:
                writer.close()
            await until(lambda: not server._accepting)
            assert await ask(ports[1], authority.trusting())

    run(check())
    assert [record.reason for record in caplog.records] == ["connections"] * 2  # type: ignore[attr-defined]


def test_nobody_is_waited_for_where_nobody_is() -> None:
    """At once."""
    run(shaken_or_gone([]))


def test_the_second_port_gets_over_a_lack_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and tried again a little later; the loop does not spin meanwhile."""
    monkeypatch.setattr(second_door, "RETRY_S", 0.01)

    class Full:
        """A listening socket that has no descriptors for two connections."""

        def __init__(self, real: socket.socket) -> None:
            self.real, self.failures = real, 2

        def accept(self) -> object:
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return self.real.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    async def check() -> None:
        taken: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        listener: Any = Full(socket.create_server(("127.0.0.1", 0)))
        door = SecondDoor(listener, taken.set_result)
        door.open()
        _, writer = await asyncio.open_connection(*listener.getsockname())
        async with asyncio.timeout(20):
            (await taken).close()
        writer.close()
        door.close()
        door.open()  # a try that was still to come
        assert listener.fileno() == -1

    run(check())
    assert [record.message for record in caplog.records] == ["connection not taken"] * 2


def test_the_line_at_the_start_says_where_everything_is() -> None:
    """Scheme, both ports, and the docs where they are."""
    with socket.create_server(("127.0.0.1", 0)) as main, socket.create_server(("127.0.0.1", 0)) as second:
        first, other = (each.getsockname()[1] for each in (main, second))
        assert serving_line(["a"], [main]) == f"infold serves a on http://127.0.0.1:{first} (docs at /docs)"
        assert serving_line([], [main, second], "https") == (
            f"infold serves no models on https://127.0.0.1:{first} (docs at https://127.0.0.1:{other}/docs)"
        )
