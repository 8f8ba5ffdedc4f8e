"""The only process of a service that speaks TLS: it takes connections as one of several does."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import uvicorn

from infold.rest.access.tls import certificates_of
from infold.rest.shares import Shares, open_shares
from infold.rest.worker import WorkerServer
from infold.settings import Settings

__all__ = ["SecuredServer"]


class SecuredServer(WorkerServer):
    """Takes each connection with the certificates that hold by then.

    Args:
        config: As uvicorn wants it.
        settings: That name the certificates.
        listeners: The main port, and the second if there is one.

    Raises:
        ConfigError: A file of TLS is not what it is said to be.
    """

    def __init__(
        self, config: uvicorn.Config, settings: Settings, listeners: Sequence[socket.socket]
    ) -> None:
        descriptor = open_shares(1)
        try:
            shares = Shares(descriptor, 1)
        finally:
            os.close(descriptor)
        main, *more = listeners
        second = more[0] if more else None
        certificates = certificates_of(settings)
        super().__init__(config, main, 0, shares, lambda: None, second=second, certificates=certificates)
