"""A connection over TLS: whom its client's certificate names, and an end that waits for nobody."""

from __future__ import annotations

import asyncio
from typing import Any

from infold.rest.access.guard import CERTIFICATE
from infold.rest.access.handshake import FAREWELL_S
from infold.rest.connection import Connection

__all__ = ["SecuredConnection", "name_in"]

# As much of a certificate as a log needs; it comes from a stranger until its root is known.
LONGEST_NAME = 128


class SecuredConnection(Connection):
    """A `Connection` whose requests know the client certificate."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio: the handshake is over."""
        super().connection_made(transport)
        if certificate := transport.get_extra_info("peercert"):
            self.app_state = {**self.app_state, CERTIFICATE: name_in(certificate)}

    def shutdown(self) -> None:
        """As uvicorn; a client that does not answer the farewell does not hold up the end."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(FAREWELL_S, self._leave)

    def _leave(self) -> None:
        if not self.transport.get_write_buffer_size():  # else an answer is still on its way
            self.transport.abort()


def name_in(certificate: dict[str, Any]) -> str:
    """Whom a certificate names: its common name, else the first alternative, else its number."""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)[:LONGEST_NAME]
    for _, value in certificate.get("subjectAltName", ()):
        return str(value)[:LONGEST_NAME]
    return f"serial {certificate.get('serialNumber', 'unknown')}"[:LONGEST_NAME]
