"""`infold doctor`: what this machine, these settings and this repository would come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from infold.cli.options import Json, Quiet

__all__ = ["command"]


def command(
    repository: Annotated[
        Path | None,
        typer.Argument(readable=False, help="The model repository; default: INFOLD_REPOSITORY, else models."),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", "--model_name", help="As of infold serve.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="As of infold serve.")] = None,
    port: Annotated[int | None, typer.Option(help="As of infold serve.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="cpu|cuda|tensorrt|auto", help="As of infold serve.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="As of infold serve.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(readable=False, help="As of infold serve.")] = None,
    opens_models: Annotated[
        bool,
        typer.Option(
            "--open/--no-open",
            help="Whether each model is opened in a child process; that takes its memory.",
        ),
    ] = True,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what the machine gives, what is wrong, and what would be served; change nothing.

    Exit 0: `infold serve` with the same settings would serve; 1: something stops it; 2: the call, or a
    setting, makes no sense.
    """
    from infold.doctor import examine
    from infold.settings import Settings

    given = {
        "repository": repository,
        "model_name": model_name,
        "host": host,
        "port": port,
        "device": device,
        "workers": workers,
        "cache_dir": cache_dir,
    }
    settings = Settings.read(**given)
    flags = [name for name, value in given.items() if value is not None]
    found = examine(settings, flags, opens_models=opens_models)
    if as_json:
        print(json.dumps(found.json(), indent=2, default=str))
    elif not quiet:
        print(found.text())
    elif not found.would_serve:
        print(found.sentence())
    raise typer.Exit(0 if found.would_serve else 1)
