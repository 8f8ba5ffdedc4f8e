"""A connection over TLS, and whom its client's certificate names."""

from __future__ import annotations

import asyncio
from typing import Any

from infold.rest.access.guard import CERTIFICATE
from infold.rest.access.secured_transport import SecuredTransport
from infold.rest.connection import Connection

__all__ = ["SecuredConnection", "name_in"]

# As much of a certificate as a log needs; it comes from a stranger until its root is known.
LONGEST_NAME = 128


class SecuredConnection(Connection):
    """A `Connection` that writes by a `SecuredTransport`, and whose requests know the client certificate."""

    _secured: SecuredTransport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """See asyncio: the handshake is over."""
        if certificate := transport.get_extra_info("peercert"):
            self.app_state = {**self.app_state, CERTIFICATE: name_in(certificate)}
        self._secured = SecuredTransport(transport, super().pause_writing, super().resume_writing)
        self._secured.begin()
        super().connection_made(self._secured)  # type: ignore[arg-type]  # it is one in all but name

    def pause_writing(self) -> None:
        """See asyncio; the transport keeps what comes from now on."""
        self._secured.block()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._secured.unblock()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._secured.lose()
        super().connection_lost(exc)


def name_in(certificate: dict[str, Any]) -> str:
    """Whom a certificate names: its common name, else the first alternative, else its number."""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)[:LONGEST_NAME]
    for _, value in certificate.get("subjectAltName", ()):
        return str(value)[:LONGEST_NAME]
    return f"serial {certificate.get('serialNumber', 'unknown')}"[:LONGEST_NAME]
