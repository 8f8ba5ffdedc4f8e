"""uvicorn, started our way: the socket first, signals that drain, exit code 0."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from infold.errors import ConfigError, InfoldError
from infold.rest.app import Service, create_app
from infold.runtime import choose_device
from infold.settings import Settings

__all__ = ["serve"]

KEEP_ALIVE_S = 65  # longer than the proxies in front, or they meet closed connections
BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted and return.

    A second signal ends the process at once, with exit code 1.

    Args:
        settings: What to serve, where and how.
        announce: Told one line once requests are answered, and one line before.

    Raises:
        ConfigError: The address cannot be listened on.
        DeviceError, SessionError, RepositoryError: As `create_app` and its start.
    """
    placement = choose_device(settings.device)
    announce(f"infold runs models on {placement.device} ({placement.why})")
    app = create_app(settings, placement)
    service: Service = app.state.service
    listener = _listen(settings)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(_Server(config), service, listener, announce))


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as failure:
        place = f"{settings.host}:{settings.port}"
        raise ConfigError(place, f"cannot listen here: {failure.strerror or failure}") from failure


async def _run(
    server: uvicorn.Server, service: Service, listener: socket.socket, announce: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()

    def drain() -> None:
        if server.should_exit:  # asked a second time: whoever asks will not wait for answers
            os._exit(1)
        service.models.begin_drain()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    try:
        await service.start()
    except InfoldError:
        listener.close()
        await service.models.close()
        raise
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(service.models.models()) or "no models"
    announce(f"infold serves {names} on http://{shown}:{port} (docs at /docs)")
    gc.freeze()  # what is loaded stays; looking through it again and again costs a few percent
    await server.serve([listener])
    await service.models.close()
