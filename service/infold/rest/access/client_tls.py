"""The other end of TLS, for our own clients: whom to believe, and what to show."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from infold.errors import ConfigError

__all__ = ["ClientTls", "is_here"]


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a client of ours goes about TLS.

    Attributes:
        ca: Whose certificates it believes, PEM; None believes those that the system does.
        is_trusting: Believes anybody.
        certificate: Its own, PEM, with its key in the same file or in `key`.
    """

    ca: Path | None = None
    is_trusting: bool = False
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A context for connections to a server.

        Raises:
            ConfigError: A file is not what it is said to be.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (ssl.SSLError, OSError) as failure:
            raise ConfigError(str(self.ca), f"holds no certificates: {_reason(failure)}") from failure
        if self.is_trusting:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key, "")
            except (ssl.SSLError, OSError) as failure:
                detail = f"is no certificate with its key: {_reason(failure)}"
                raise ConfigError(str(self.certificate), detail) from failure
        return context

    def context_for_here(self) -> ssl.SSLContext:
        """As `context`, for a server on this machine, whose certificate names the machine's other names.

        Without a `ca` nobody is asked who they are: the address says that.
        """
        if self.ca is None:
            return ClientTls(None, True, self.certificate, self.key).context()
        context = self.context()
        context.check_hostname = False
        return context


def is_here(host: str) -> bool:
    """A host is this machine, by an address that leads nowhere else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(failure: OSError) -> str:
    return getattr(failure, "reason", None) or failure.strerror or str(failure)
