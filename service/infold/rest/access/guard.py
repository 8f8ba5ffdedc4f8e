"""The first thing that is asked of a request, before any of its body is read: may it come in?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from socket import socket
from typing import TYPE_CHECKING

from infold.errors import CertificateMissingError, OtherPortError, ScopeMissingError
from infold.rest.access.keyring import Keyring
from infold.rest.access.presented import secret_of
from infold.rest.access.scopes import KeyScope, Rule, routed_path, rule_of

if TYPE_CHECKING:
    from starlette.types import Scope

    from infold.settings import Settings

__all__ = ["CERTIFICATE", "KEY_NAME", "MAIN_PORT", "Guard", "Ports", "guard_of"]

# Left in a request's scope: the name of its key, and where tensors go, for what comes by the other port.
KEY_NAME = "infold.key"
MAIN_PORT = "infold.main_port"
# In the state of a connection: whom its client certificate names.
CERTIFICATE = "infold.certificate"

LONGEST_KEPT = 512


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the service listens, if it does so twice.

    Attributes:
        main: Everything that is not only looked at.
        second: Metrics, statistics, the index and docs.
    """

    main: int
    second: int

    @classmethod
    def of(cls, listeners: Sequence[socket], settings: Settings) -> Ports | None:
        """Those of listening sockets, or as the settings have them; None where there is one."""
        if settings.observe_port is None:
            return None
        if not listeners:
            return cls(settings.port, settings.observe_port)
        main, second = (each.getsockname()[1] for each in listeners)
        return cls(main, second)


class Guard:
    """Lets a request pass, or says why not.

    Args:
        keyring: Keys that hold; None lets everybody in.
        ports: Where what is served; None where there is one port.
        asks_certificates: The main port takes nobody without a client certificate, so the second
            shows nothing but health to those who have none.
    """

    def __init__(
        self, keyring: Keyring | None, ports: Ports | None = None, *, asks_certificates: bool = False
    ) -> None:
        self._keyring = keyring
        self._ports = ports
        self._asks_certificates = asks_certificates
        self._kept = lru_cache(maxsize=256)(rule_of)  # few paths come often

    def check(self, scope: Scope) -> None:
        """Return if the request may come in.

        Raises:
            KeyRefusedError, ScopeMissingError, QuotaExceededError: Its key does not let it.
            CertificateMissingError, OtherPortError: The port does not.
        """
        method, path = scope["method"], routed_path(scope)
        rule = self._kept(method, path) if len(path) <= LONGEST_KEPT else rule_of(method, path)
        if rule is not None and rule.scope is KeyScope.OPEN:
            return
        if self._ports is not None and self._asks_certificates:
            self._check_certificate(scope, self._ports)
        if self._keyring is not None:
            self._check_key(scope, rule, self._keyring)
        if self._ports is not None and rule is not None:
            self._check_port(scope, rule, self._ports)

    def _check_key(self, scope: Scope, rule: Rule | None, keyring: Keyring) -> None:
        held = keyring.find(secret_of(scope["headers"]))
        key = held.key
        scope[KEY_NAME] = key.name
        if rule is not None and rule.scope not in key.scopes:
            raise ScopeMissingError(key.name, rule.scope, key.scopes)
        keyring.spend(held)

    def _check_certificate(self, scope: Scope, ports: Ports) -> None:
        if _port_of(scope) == ports.second and not scope.get("state", {}).get(CERTIFICATE):
            raise CertificateMissingError

    def _check_port(self, scope: Scope, rule: Rule, ports: Ports) -> None:
        is_second = _port_of(scope) == ports.second
        if is_second:
            scope[MAIN_PORT] = ports.main
        if rule.is_on_both or is_second == (rule.scope is KeyScope.OBSERVE):
            return
        raise OtherPortError(scope["path"], ports.main if is_second else ports.second)


def guard_of(settings: Settings, listeners: Sequence[socket] = ()) -> Guard | None:
    """What the settings ask for; None where everybody may do everything, as far as they say.

    Raises:
        ConfigError: The file of keys cannot be read, or makes no sense.
    """
    ports = Ports.of(listeners, settings)
    if settings.api_keys is None and ports is None:
        return None
    keyring = None if settings.api_keys is None else Keyring(settings.api_keys, settings.workers)
    return Guard(keyring, ports, asks_certificates=settings.tls_client_ca is not None)


def _port_of(scope: Scope) -> int | None:
    """The port whose socket took the connection; nothing a client says changes it."""
    server = scope.get("server")
    return server[1] if server else None
