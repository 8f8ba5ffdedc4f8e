"""A connection taken with TLS: the handshake, its end, and what a log is told when it fails."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable

from infold.rest.access.audit import address_of

__all__ = ["shake_hands", "shaken_or_gone"]

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
# How long a service that goes down waits for handshakes.
FAREWELL_S = 1.0
# The end of a connection is not uvloop's to time: see `SecuredTransport`.
NEVER_S = 1e6


async def shake_hands(
    protocol: Callable[[], asyncio.BaseProtocol], connection: socket.socket, context: ssl.SSLContext
) -> None:
    """The protocol has its connection; or the client did not manage to, and the connection is closed.

    Args:
        protocol: Makes the one that reads and writes.
        connection: Just accepted.
        context: Of the server.
    """
    try:
        client: tuple[object, ...] = connection.getpeername()
        await asyncio.get_running_loop().connect_accepted_socket(
            protocol,
            connection,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=NEVER_S,
        )
    except ssl.SSLError as failure:  # plain HTTP, an old version, a certificate that does not hold
        told = {"client": address_of(client), "reason": failure.reason or str(failure)}
        log.info("handshake failed", extra=told)
    except OSError as failure:  # gone, or silent: whoever looks whether a port is open is both
        connection.close()
        log.debug("handshake left", extra={"reason": str(failure)})


async def shaken_or_gone(accepting: Iterable[asyncio.Task[object]]) -> None:
    """Return when no handshake is under way; those that take long are broken off."""
    under_way = set(accepting)
    if under_way:
        _, late = await asyncio.wait(under_way, timeout=FAREWELL_S)
        for each in late:
            each.cancel()
