"""`infold key`: make a key for a caller, and list those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli.tables import aligned
from infold.errors import ConfigError

if TYPE_CHECKING:
    from infold.rest.access.keys import Key

__all__ = ["commands"]

commands = typer.Typer(name="key", help="Make API keys, and list those of a file.", no_args_is_help=True)


@commands.command("new")
def new(
    name: Annotated[str, typer.Option(help="Who will use it; the log of orders calls it so.")],
    scope: Annotated[
        list[str], typer.Option(metavar="infer|observe|admin", help="May be given several times.")
    ],
    requests_per_s: Annotated[float | None, typer.Option(help="How often it may be used.")] = None,
    burst: Annotated[int | None, typer.Option(help="How many of these at once; default: a second's.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The day it stops working, in UTC.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Add its entry here; default: print it.")
    ] = None,
) -> None:
    """Print a new key, this once: what is kept of it is its SHA-256.

    With --file, standard output is the key and nothing else.
    """
    from infold.rest.access.key_file import add_key
    from infold.rest.access.keys import digest_of, entry_text, new_secret

    secret = new_secret()
    key = _key(
        {
            "name": name,
            "sha256": digest_of(secret.encode()).hex(),
            "scopes": scope,
            "requests_per_s": requests_per_s,
            "burst": burst,
            "expires": expires,
        }
    )
    if file is None:
        print(f"{secret}\n\n{entry_text(key)}", end="")
        return
    add_key(file, key)
    print(secret)
    typer.echo(f"key '{key.name}' added to {file}; it is not shown again", err=True)


@commands.command("list")
def show(
    file: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="The file; default: INFOLD_API_KEYS.")
    ] = None,
) -> None:
    """List the keys of a file: name, scopes, quota, last day; no secrets, which it does not have."""
    import time

    from infold.rest.access.keys import parse_keys
    from infold.rest.access.small_file import read_small
    from infold.settings import Settings

    path = file or Settings.read().api_keys
    if path is None:
        raise ConfigError("--file", "is needed, or INFOLD_API_KEYS")
    now = time.time()
    rows = []
    for key in parse_keys(read_small(path), str(path)):
        quota = "-" if key.requests_per_s is None else f"{key.requests_per_s:g}/s"
        burst = "-" if key.burst is None else str(key.burst)
        ends = "-" if key.expires is None else key.expires.isoformat()
        over = " (over)" if key.ends_at <= now else ""
        rows.append([key.name, ", ".join(key.scopes), quota, burst, ends + over])
    print(aligned(["name", "scopes", "quota", "burst", "expires"], rows))


def _key(entry: dict[str, object]) -> Key:
    """What options say, checked as a file is."""
    from infold.rest.access.keys import key_from

    try:
        return key_from({name: value for name, value in entry.items() if value is not None})
    except ConfigError as failure:
        where, _, detail = failure.detail.partition(": ")
        option = where.removeprefix("key[0].").partition("[")[0].replace("_", "-")
        raise ConfigError(f"--{option.removesuffix('s') if option == 'scopes' else option}", detail) from None
