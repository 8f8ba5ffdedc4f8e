"""The socket that the service listens on, and how it is shown."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from infold.errors import ConfigError
from infold.settings import Settings

__all__ = ["BACKLOG", "listen", "serving_line"]

BACKLOG = 2048


def listen(settings: Settings) -> socket.socket:
    """The address taken, connections queueing.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as failure:
        place = f"{settings.host}:{settings.port}"
        raise ConfigError(place, f"cannot listen here: {failure.strerror or failure}") from failure


def serving_line(models: Sequence[str], listener: socket.socket) -> str:
    """The line that tells that requests are answered, and where."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(models) or "no models"
    return f"infold serves {names} on http://{shown}:{port} (docs at /docs)"
