"""`infold serve`: load a model repository and answer over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command", "worker_command"]


def command(
    repository: Annotated[Path | None, typer.Argument(help="The model repository; default: models.")] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name",
            "--model_name",
            help="What the model is called of a folder that holds just one; default: as the folder.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one; default: 8080.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="cpu|cuda|tensorrt|auto", help="What runs the models; default: cpu.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer; each loads every model; default: 1.")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where optimized graphs are kept; default: ~/.cache/infold.")
    ] = None,
    model_control: Annotated[
        str | None,
        typer.Option(metavar="none|poll|explicit", help="What is served; default: none."),
    ] = None,
    load_model: Annotated[
        list[str] | None, typer.Option(help="With explicit, a model to load at the start; '*' is all.")
    ] = None,
    api_keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Keys of callers (infold key new); default: all may call."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="Serve HTTPS with this certificate.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="Its private key; default: in the same file.")
    ] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="Take only clients with a certificate of these.")
    ] = None,
    observe_port: Annotated[
        int | None, typer.Option(help="Metrics and docs on a port of their own; 0 takes a free one.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="debug|info|warning|error", help="Default: info.")
    ] = None,
) -> None:
    """Serve every model of a repository over HTTP until SIGTERM or SIGINT.

    Every setting can also come from the environment, as INFOLD_<NAME>; a flag beats it.
    """
    from infold import logs
    from infold.settings import Settings

    settings = Settings.read(
        repository=repository,
        model_name=model_name,
        host=host,
        port=port,
        device=device,
        workers=workers,
        cache_dir=cache_dir,
        model_control=model_control,
        load_models=load_model or None,
        api_keys=api_keys,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        observe_port=observe_port,
        log_level=log_level,
    )
    logs.configure(settings.log_level)
    if settings.workers == 1:
        from infold.rest.server import serve as run
    else:
        from infold.rest.supervisor import supervise as run
    run(settings, announce=lambda line: print(line, flush=True))


def worker_command(
    listener: int, shares: int, channel: int, second: Annotated[int | None, typer.Argument()] = None
) -> None:
    """One process of a service of several; started by `infold serve` alone.

    Args:
        listener: Descriptor of the listening socket.
        shares: Descriptor of the memory in which workers show how busy they are.
        channel: Descriptor of the channel to the supervisor.
        second: Descriptor of the second port's listening socket.
    """
    from infold.rest.worker import work

    raise typer.Exit(work(listener, shares, channel, second))
