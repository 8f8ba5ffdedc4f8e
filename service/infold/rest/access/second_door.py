"""The second port beside the first, where this process takes connections itself."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

__all__ = ["SecondDoor"]

log = logging.getLogger(__name__)

RETRY_S = 1.0


class SecondDoor:
    """Takes connections from a listening socket, one a turn.

    Where several processes share it, whoever comes first has the next: they are few.

    Args:
        listener: Listening.
        take: What is done with a connection.
    """

    def __init__(self, listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._take = take

    def open(self) -> None:
        """Take connections from now on."""
        if self._listener.fileno() >= 0:  # it may have been closed while nothing was taken
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Take no more."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):  # another process has it, or it is gone
            return
        except OSError as failure:  # no descriptor is left, most likely
            log.error("connection not taken", extra={"reason": failure.strerror})
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener)
            loop.call_later(RETRY_S, self.open)
            return
        self._take(connection)
