"""`infold health`: is the service here ready? For container health checks, without curl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import ssl

    from infold.settings import Settings

__all__ = ["command"]


def command(
    host: Annotated[str | None, typer.Option(help="Where the service listens; default: INFOLD_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; default: INFOLD_PORT, else 8080.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 2.0,
    tls: Annotated[
        bool | None, typer.Option("--tls/--no-tls", help="Ask over TLS; default: with INFOLD_TLS_CERT.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pem",
            help="Believe certificates of these; default: on the loopback any, elsewhere the system's.",
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pem", help="A client certificate with its key; default: the service's own."
        ),
    ] = None,
) -> None:
    """Exit 0 if the service on this machine is ready to answer, 1 if not.

    A service that asks for client certificates is asked on its second port, if it has one.
    """
    import http.client

    from infold.settings import Settings

    settings = Settings.read(host=host, port=port)
    # A service that listens everywhere is asked on the loopback.
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    asked = settings.port
    if port is None and settings.tls_client_ca is not None and settings.observe_port:
        asked = settings.observe_port
    is_secured = settings.tls_cert is not None or ca is not None or cert is not None
    connection = http.client.HTTPConnection(address, asked, timeout=timeout_s)
    if is_secured if tls is None else tls:
        context = _context(address, settings, ca, cert)
        connection = http.client.HTTPSConnection(address, asked, timeout=timeout_s, context=context)
    try:
        connection.request("GET", "/v2/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as failure:
        print(f"not ready: {address}:{asked}: {failure}")
        raise typer.Exit(1) from failure
    finally:
        connection.close()
    print("ready" if status == 200 else f"not ready: status {status}")
    raise typer.Exit(0 if status == 200 else 1)


def _context(address: str, settings: Settings, ca: Path | None, cert: Path | None) -> ssl.SSLContext:
    from infold.rest.access.client_tls import ClientTls, is_here

    own = ClientTls(ca, False, cert)
    if cert is None and settings.tls_client_ca is not None:
        own = ClientTls(ca, False, settings.tls_cert, settings.tls_key)
    return own.context_for_here() if is_here(address) else own.context()
