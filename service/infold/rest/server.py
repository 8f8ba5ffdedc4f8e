"""uvicorn, started our way: the socket first, signals that drain, exit code 0."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from infold.errors import InfoldError
from infold.rest.access.start import scheme_of, tell_what_others_may
from infold.rest.at_once import ShortWay
from infold.rest.bounds import Bounds
from infold.rest.connection import Connection
from infold.rest.edge import Edge
from infold.rest.late import LateApp
from infold.rest.listening import BACKLOG, listen_everywhere, second_port_of, serving_line
from infold.rest.service import Service, edge_of
from infold.rest.starting import fitted, running_line
from infold.runtime import choose_device
from infold.settings import Settings

__all__ = ["Server", "begin_to_leave", "config_of", "described_late", "leave", "serve", "start"]

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 65  # longer than the proxies in front, or they meet closed connections


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever serves."""
        yield


def config_of(app: ASGIApp, settings: Settings, bounds: Bounds | None = None) -> uvicorn.Config:
    """How uvicorn is run, alone or as one of several workers.

    Args:
        app: What is served.
        settings: Of the service.
        bounds: Of this process; by default those that follow from the settings.
    """
    bounds = bounds or Bounds.of(settings)
    short_way = ShortWay(app, bounds.max_body_bytes) if isinstance(app, Edge) else None
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=type("BoundedConnection", (_kind(settings),), {"bounds": bounds, "short_way": short_way}),
        ws="none",  # nothing here speaks it, and it would come in without being asked for a key
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )


def _kind(settings: Settings) -> type[Connection]:
    """What connections are."""
    if settings.tls_cert is None:
        return Connection
    from infold.rest.access.secured import SecuredConnection

    return SecuredConnection


def _server(config: uvicorn.Config, settings: Settings, listeners: Sequence[socket.socket]) -> Server:
    """One that lets the loop take connections; with TLS, one that takes each with what holds by then."""
    if settings.tls_cert is None:
        return Server(config)
    from infold.rest.access.secured_server import SecuredServer

    return SecuredServer(config, settings, listeners)


async def start(service: Service) -> None:
    """Every model is loaded, or nothing is left open.

    Args:
        service: That is to answer.

    Raises:
        SessionError, RepositoryError, ConfigError: As `Service.start`.
    """
    service.bounds.fit()
    try:
        await service.start()
    except InfoldError:
        await service.close()
        raise
    # What is loaded stays, and requests leave no cycles: looking for them so often is for nothing.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def begin_to_leave(server: Server, service: Service, grace_s: float) -> None:
    """Turn not ready, so that load balancers look elsewhere, and end once they have had time to.

    Args:
        server: Takes connections until then.
        service: Answers until then.
        grace_s: That time.
    """
    service.begin_drain()

    def end() -> None:
        server.should_exit = True

    if grace_s:
        asyncio.get_running_loop().call_later(grace_s, end)
    else:
        end()


async def leave(service: Service) -> None:
    """What was accepted is answered and everything unloaded.

    A model that is still being loaded is not waited for: its thread cannot be stopped, and might
    take minutes beyond `drain_s`. So the process ends here, with exit code 0.
    """
    await service.close()
    if service.manager.is_loading:
        log.info("load abandoned")
        os._exit(0)


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve in this process until SIGTERM or SIGINT, then answer what was accepted and return.

    A second signal ends the process at once, with exit code 1.

    Args:
        settings: What to serve, where and how.
        announce: Told one line once requests are answered, and one line before.

    Raises:
        ConfigError: The address cannot be listened on, or a setting of who may come in makes no sense.
        DeviceError, SessionError, RepositoryError: As `choose_device` and `start`.
    """
    settings = fitted(settings)
    tell_what_others_may(settings)
    placement = choose_device(settings.device, settings.gpu_id, settings.gpu_memory_bytes)
    announce(running_line(f"{placement.device} ({placement.why})", settings.workers))
    service = Service(settings, placement)
    behind = described_late(service)
    listeners = listen_everywhere(settings)
    service.bounds.second_port = second_port_of(listeners)
    config = config_of(edge_of(service, behind, listeners), settings, service.bounds)
    server = _server(config, settings, listeners)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(server, service, behind, listeners, announce))


def described_late(service: Service) -> LateApp:
    """What FastAPI serves of a service, imported once the service has begun."""

    def make() -> ASGIApp:
        from infold.rest.app import described_app

        app = described_app(service)
        gc.freeze()
        return app.behind_the_edge

    return LateApp(make)


async def _run(
    server: Server,
    service: Service,
    behind: LateApp,
    listeners: list[socket.socket],
    announce: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    is_told = False

    def drain(number: int) -> None:
        nonlocal is_told
        if service.models.is_draining:  # asked a second time: whoever asks will not wait for answers
            os._exit(1)
        is_told = True
        grace_s = service.settings.grace_s if number == signal.SIGTERM else 0.0
        begin_to_leave(server, service, grace_s)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain, number)
    try:
        await start(service)
    except InfoldError:
        for listener in listeners:
            listener.close()
        if is_told:  # before there was anything to serve
            return
        raise
    announce(serving_line(service.models.models(), listeners, scheme_of(service.settings)))
    behind.begin()
    await server.serve(listeners)
    await leave(service)
