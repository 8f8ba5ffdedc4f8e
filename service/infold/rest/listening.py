"""The socket that the service listens on, and how it is shown."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from infold.errors import ConfigError
from infold.settings import Settings

__all__ = ["BACKLOG", "listen", "listen_everywhere", "second_port_of", "serving_line"]

BACKLOG = 2048


def listen(settings: Settings) -> socket.socket:
    """The address taken, connections queueing.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    return _listen(settings.host, settings.port)


def listen_everywhere(settings: Settings) -> list[socket.socket]:
    """As `listen`; behind it the second port, if there is one.

    Raises:
        ConfigError: One of the addresses cannot be listened on.
    """
    main = listen(settings)
    if settings.observe_port is None:
        return [main]
    try:
        return [main, _listen(settings.host, settings.observe_port)]
    except ConfigError:
        main.close()
        raise


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as failure:
        place = f"{host}:{port}"
        raise ConfigError(place, f"cannot listen here: {failure.strerror or failure}") from failure


def second_port_of(listeners: Sequence[socket.socket]) -> int | None:
    """The port for metrics and docs, of sockets as `listen_everywhere` returns them; None without one."""
    if len(listeners) == 1:
        return None
    port: int = listeners[1].getsockname()[1]
    return port


def serving_line(models: Sequence[str], listeners: Sequence[socket.socket], scheme: str = "http") -> str:
    """The line that tells that requests are answered, and where."""
    urls = [f"{scheme}://{_shown(listener)}" for listener in listeners]
    names = ", ".join(models) or "no models"
    docs = "/docs" if len(urls) == 1 else f"{urls[1]}/docs"
    return f"infold serves {names} on {urls[0]} (docs at {docs})"


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
