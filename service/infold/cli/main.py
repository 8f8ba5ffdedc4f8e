"""`infold`: the verbs, and the one table from errors to exit codes.

0 done; 1 refused or failed; 2 the call itself makes no sense.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from infold import __version__
from infold.cli import bench, convert, doctor, health, inspect, key, reestimate, serve, tune, verify
from infold.errors import ConfigError, FrameworkError, InfoldError

__all__ = ["app", "main"]

app = typer.Typer(
    name="infold",
    help="Fold a trained network's batch normalization, prove it, serve it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("convert")(convert.command)
app.command("inspect")(inspect.command)
app.command("verify")(verify.command)
app.command("reestimate")(reestimate.command)
app.command("serve")(serve.command)
app.command("worker", hidden=True)(serve.worker_command)
app.command("health")(health.command)
app.command("doctor")(doctor.command)
app.add_typer(key.commands)
app.command("bench")(bench.command)
app.command("tune")(tune.command)

USAGE_ERRORS = (ConfigError,)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"infold {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand not in ("serve", "worker"):  # which drain, and end by themselves
        _leave_on_signals()


def _leave_on_signals() -> None:
    """SIGTERM and SIGHUP end the process by SystemExit: children and temporary folders go with it."""
    signals = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]

    def leave(number: int, frame: object) -> None:
        del frame
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # a second one would cut the clearing up short
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for each in signals:
            if signal.getsignal(each) is signal.SIG_DFL:  # nohup has it ignored
                signal.signal(each, leave)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        app()
    except InfoldError as failure:
        print(f"infold: {failure}", file=sys.stderr)
        if isinstance(failure, FrameworkError) and failure.log:
            print(f"what it printed last:\n{failure.log}", file=sys.stderr)
        sys.exit(2 if isinstance(failure, USAGE_ERRORS) else 1)
    except BrokenPipeError:  # the reader of our output has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
