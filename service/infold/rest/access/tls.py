"""Certificates: the context that connections are taken with, made anew when a file of it is replaced."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infold.errors import ConfigError
from infold.rest.access.small_file import read_small
from infold.rest.access.watched import Watched

if TYPE_CHECKING:
    from infold.settings import Settings

__all__ = ["Certificates", "TlsFiles", "certificates_of", "tls_files"]

log = logging.getLogger(__name__)

PROTOCOLS = ["http/1.1"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files.

    Attributes:
        certificate: The service's own, with those between it and its root.
        key: Its private key; may be the same file.
        client_ca: Roots of the client certificates that are asked for; None asks for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [self.certificate, self.key, *([self.client_ca] if self.client_ca else [])]


def tls_files(settings: Settings) -> TlsFiles | None:
    """The files that the settings name; None where the service speaks plain HTTP.

    Raises:
        ConfigError: Some are named, and the certificate is not: that would be less than was asked for.
    """
    if settings.tls_cert is None:
        for name in ("tls_key", "tls_client_ca"):
            if getattr(settings, name) is not None:
                raise ConfigError(f"INFOLD_{name.upper()}", "is of no use without INFOLD_TLS_CERT")
        return None
    return TlsFiles(settings.tls_cert, settings.tls_key or settings.tls_cert, settings.tls_client_ca)


def certificates_of(settings: Settings) -> Certificates | None:
    """What TLS needs, loaded; None where the service speaks plain HTTP.

    Raises:
        ConfigError: As `tls_files`, or a file is not what it is said to be.
    """
    files = tls_files(settings)
    return None if files is None else Certificates(files)


class Certificates:
    """Contexts for connections, from files that may be replaced.

    Args:
        files: To load.
        watched: Says when they may have changed.

    Raises:
        ConfigError: One of them is not what it is said to be; names it.
    """

    def __init__(self, files: TlsFiles, watched: Watched | None = None) -> None:
        self._files = files
        self._watched = watched or Watched(files.paths)
        self._watched.may_have_changed()  # before they are read, so that no change is missed
        self._contents: list[bytes] = []
        self._problem: str | None = None
        self._load()

    def context(self, *, is_second: bool = False) -> ssl.SSLContext:
        """The context for a connection that is taken now.

        Args:
            is_second: It came by the second port, where a client certificate may be missing: probes
                have none, and what else may be seen there is asked of the request.
        """
        if self._watched.may_have_changed():
            self._load_again()
        return self._lenient if is_second else self._strict

    def _load(self) -> bool:
        contents = [read_small(path) for path in self._files.paths]
        if contents == self._contents:
            return False
        strict, lenient = context_of(self._files, ssl.CERT_REQUIRED), None
        if self._files.client_ca is not None:
            lenient = context_of(self._files, ssl.CERT_OPTIONAL)
        self._strict, self._lenient = strict, lenient or strict
        self._contents = contents
        return True

    def _load_again(self) -> None:
        """Take the files as they are now; what is broken changes nothing."""
        try:
            if self._load():
                log.info("certificates replaced", extra={"certificate": str(self._files.certificate)})
            elif self._problem is not None:
                log.info("certificates are as they were")
            self._problem = None
        except ConfigError as failure:
            if str(failure) != self._problem:  # told once, not once a second
                log.error("certificates not replaced, the old ones hold", extra={"reason": str(failure)})
            self._problem = str(failure)


def context_of(files: TlsFiles, clients: ssl.VerifyMode) -> ssl.SSLContext:
    """A fresh context for a server: TLS 1.2 and above, HTTP/1.1.

    Args:
        files: To load.
        clients: Whether a client certificate must be there, where any are asked for.

    Raises:
        ConfigError: One of them is not what it is said to be; names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # which a client could ask for without end
    context.set_alpn_protocols(PROTOCOLS)
    try:
        context.load_cert_chain(files.certificate, files.key, _no_passphrase)
    except _PassphraseWantedError:
        raise ConfigError(str(files.key), "is encrypted; a key without a passphrase is needed") from None
    except (ssl.SSLError, OSError) as failure:
        raise _what_is_wrong(files, failure) from failure
    if files.client_ca is not None:
        context.verify_mode = clients
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as failure:
            raise ConfigError(str(files.client_ca), f"holds no certificates: {_reason(failure)}") from failure
    return context


class _PassphraseWantedError(Exception):
    pass


def _no_passphrase() -> str:
    raise _PassphraseWantedError  # or OpenSSL would ask for it on the terminal


def _what_is_wrong(files: TlsFiles, failure: OSError) -> ConfigError:
    """Which of two files is at fault, of which OpenSSL says little."""
    if getattr(failure, "reason", None) == "KEY_VALUES_MISMATCH":
        return ConfigError(str(files.key), f"is not the key of the certificate in {files.certificate}")
    if b"-----BEGIN CERTIFICATE-----" not in read_small(files.certificate):
        return ConfigError(str(files.certificate), "holds no certificate in PEM")
    if b"PRIVATE KEY-----" not in read_small(files.key):
        return ConfigError(str(files.key), "holds no private key in PEM")
    return ConfigError(str(files.certificate), f"cannot be used with {files.key}: {_reason(failure)}")


def _reason(failure: OSError) -> str:
    return getattr(failure, "reason", None) or failure.strerror or str(failure)
