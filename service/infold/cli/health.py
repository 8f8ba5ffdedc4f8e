"""`infold health`: is the service here ready? For container health checks, without curl."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["command"]


def command(
    host: Annotated[str | None, typer.Option(help="Where the service listens; default: INFOLD_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; default: INFOLD_PORT, else 8080.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 2.0,
) -> None:
    """Exit 0 if the service on this machine is ready to answer, 1 if not."""
    import http.client

    from infold.settings import Settings

    settings = Settings.read(host=host, port=port)
    # A service that listens everywhere is asked on the loopback.
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(address, settings.port, timeout=timeout_s)
    try:
        connection.request("GET", "/v2/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as failure:
        print(f"not ready: {address}:{settings.port}: {failure}")
        raise typer.Exit(1) from failure
    finally:
        connection.close()
    print("ready" if status == 200 else f"not ready: status {status}")
    raise typer.Exit(0 if status == 200 else 1)
