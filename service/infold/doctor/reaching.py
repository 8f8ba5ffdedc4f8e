"""Who may come in, and whether there is a port to come in by."""

from __future__ import annotations

import errno
import http.client
import json
import socket

from infold.doctor.findings import Finding, bad, ok, warn
from infold.errors import ConfigError
from infold.settings import Settings

__all__ = ["check_access", "check_ports"]

ASK_S = 2.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
MOST_BYTES = 65536


def check_access(settings: Settings) -> list[Finding]:
    """The files of keys and certificates, read as the service reads them."""
    from infold.rest.access.guard import guard_of
    from infold.rest.access.tls import certificates_of

    try:
        certificates_of(settings)
        guard_of(settings)
    except ConfigError as failure:
        return [bad("access", str(failure), "mend the file, or the setting that names it")]
    tls = "plain HTTP" if settings.tls_cert is None else "HTTPS"
    keys = "anybody may call" if settings.api_keys is None else "callers need keys"
    if settings.tls_client_ca is not None:
        keys += " and certificates"
    return [
        ok("access", f"{tls}, {keys}", tls=settings.tls_cert is not None, keys=settings.api_keys is not None)
    ]


def check_ports(settings: Settings) -> list[Finding]:
    """Each port the service would listen on is free, or what has it."""
    found = [_port(settings, settings.port, "--port (INFOLD_PORT)")]
    if settings.observe_port is not None:
        found.append(_port(settings, settings.observe_port, "--observe-port (INFOLD_OBSERVE_PORT)"))
    return found


def _port(settings: Settings, port: int, option: str) -> Finding:
    shown = f"{settings.host}:{port}"
    if port == 0:
        return ok("port", f"{shown} takes a free one", port=0)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as tried:  # bound, but never listening: nobody is kept waiting
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((settings.host, port))
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            return _taken(settings, port, shown, option)
        why = f"{shown}: cannot listen here: {failure.strerror or failure}"
        return bad("port", why, f"another {option}, or another --host (INFOLD_HOST)", port=port)
    return ok("port", f"{shown} is free", port=port)


def _taken(settings: Settings, port: int, shown: str, option: str) -> Finding:
    status, said = _asked(settings, port)
    if said.get("name") == settings.name:
        text = f"{shown}: {settings.name} {said.get('version', '')} answers there already"
        return warn(
            "port",
            text,
            f"nothing, if that is the service meant; another one needs another {option}",
            port=port,
        )
    who = "something that speaks no HTTP" if status is None else f"something that answers {status} to GET /v2"
    return bad(
        "port", f"{shown}: {who} has it", f"end that, or take another {option}", port=port, status=status
    )


def _asked(settings: Settings, port: int) -> tuple[int | None, dict[str, object]]:
    """The status that `GET /v2` is answered with, and what is told if that is JSON."""
    host = EVERYWHERE.get(settings.host, settings.host)
    try:
        connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
        if settings.tls_cert is not None:
            from infold.rest.access.client_tls import ClientTls

            own = None if settings.tls_client_ca is None else settings.tls_cert
            context = ClientTls(None, True, own, settings.tls_key).context_for_here()
            connection = http.client.HTTPSConnection(host, port, timeout=ASK_S, context=context)
        with_answer = connection
        with_answer.request("GET", "/v2")
        answer = with_answer.getresponse()
        content = answer.read(MOST_BYTES)
        connection.close()
    except (OSError, http.client.HTTPException, ConfigError):
        return None, {}
    try:
        said = json.loads(content)
    except ValueError:
        said = {}
    return answer.status, said if isinstance(said, dict) else {}
