"""`infold bench`: how much load a server bears, and what onnxruntime alone would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infold.cli.options import Json, Quiet, Shapes, sampling
from infold.cli.progress import progress_line
from infold.cli.tables import numbers_table
from infold.cli.targets import Csv, Plot, check_targets, write_report
from infold.errors import ConfigError

if TYPE_CHECKING:
    from infold.bench import Loops
    from infold.runtime import Device

__all__ = ["command"]


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="URL|REPOSITORY",
            help="A running server of Open Inference Protocol v2 (http(s)://host:port), or a model "
            "repository, which is then served for the time being, and bare onnxruntime measured too.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help="The model's name, if there are several.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Default: the one that is served.")] = None,
    loop: Annotated[
        str,
        typer.Option(
            metavar="closed|open|both",
            help="Closed: callers that wait for their answer. Open: Poisson arrivals, latency from when a "
            "request was due.",
        ),
    ] = "both",
    concurrency: Annotated[
        str, typer.Option(metavar="N,N,...", help="Callers of each closed load.")
    ] = "1,2,4,8,16,32",
    rates: Annotated[
        str,
        typer.Option(
            metavar="auto|R,R,...",
            help="Requests a second of each open load; auto: shares of the closed loop's peak.",
        ),
    ] = "auto",
    seconds: Annotated[float, typer.Option(help="Seconds of each load.")] = 3.0,
    warmup: Annotated[float, typer.Option(help="Seconds before each that do not count.")] = 0.5,
    body: Annotated[
        str,
        typer.Option(
            metavar="json|binary|FILE", help="Protocol v2, its binary extension, or a file as it is."
        ),
    ] = "json",
    content_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Of FILE; by default its name says.")
    ] = None,
    path: Annotated[
        str | None, typer.Option(metavar="/PATH", help="Where requests go; default: the model's infer path.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Inputs to send, as `infold convert` takes them.")
    ] = None,
    shape: Shapes = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows of one request; default: 1.")] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Sent with every request; may be given several times."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pem", help="Believe certificates of these; default: the system's."),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="A client certificate with its key.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Believe any certificate.")] = False,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="cpu|cuda|tensorrt|auto", help="What runs the models of a repository; default: cpu."
        ),
    ] = None,
    csv: Csv = None,
    plot: Plot = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Put load on a server: answers a second, latencies, refusals, and whether answers are right.

    Every answer is compared with one taken before the load; a wrong one makes the exit code 1.
    """
    from infold.bench import Plan, Timing, bench
    from infold.rest.access.client_tls import ClientTls

    sampled = sampling(samples, shape)
    plan = Plan(
        source,
        model,
        version,
        _loops(loop),
        tuple(int(each) for each in _numbers("--concurrency", concurrency, whole=True)),
        None if rates == "auto" else tuple(_numbers("--rates", rates)),
        Timing(seconds, warmup),
        body,
        path,
        content_type,
        sampled.file,
        sampled.shapes,
        rows,
        tuple(_header(text) for text in header or ()),
        _device(device),
        ClientTls(ca, insecure, cert),
    )
    check_targets(csv, plot)
    with progress_line(quiet) as progress:
        report = bench(plan, progress)
    write_report(report, csv, plot)
    if as_json:
        print(json.dumps(report.json(), indent=2))
    elif not quiet:
        print(numbers_table(report.header(), report.rows()))
        for note in report.notes:
            print(f"note: {note}")
        print(report.sentence())
    if report.wrong or not any(load.answers_per_s for load in report.served):
        raise typer.Exit(1)


def _loops(text: str) -> Loops:
    from infold.bench import Loops

    if text not in list(Loops):
        raise ConfigError("--loop", f"{text!r} is none of {', '.join(Loops)}")
    return Loops(text)


def _numbers(option: str, text: str, *, whole: bool = False) -> list[float]:
    try:
        return [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError:
        what = "whole numbers" if whole else "numbers"
        raise ConfigError(option, f"{text!r} is no list of {what}, as 1,2,4") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ConfigError("--header", f"{text!r} is not of the form 'Name: value'")
    return name.strip(), value.strip()


def _device(asked: str | None) -> Device:
    """What `infold serve` would take: the flag, else the environment."""
    from infold.settings import Settings

    return Settings.read(device=asked).device
