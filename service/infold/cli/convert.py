"""`infold convert`: fold a trained model, prove it, write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from infold.cli.options import Json, Quiet, Samples, Shapes, Source, sampling, takes_source
from infold.cli.progress import progress_line
from infold.cli.tables import fold_table, steps_table

__all__ = ["command"]


@takes_source
def command(
    source: Source,
    destination: Annotated[
        Path | None, typer.Argument(metavar="[DEST.onnx]", help="Where the folded model goes.")
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the next version into this model repository instead."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the repository.")] = None,
    samples: Samples = None,
    shape: Shapes = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any norm stayed.")] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Skip the proof.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="REPORT.html", help="Also write the report as a page.")
    ] = None,
    freeze_initializers: Annotated[
        bool,
        typer.Option(
            "--freeze-initializers",
            help="Take inputs that have a default (an initializer) as constants, and drop them as inputs.",
        ),
    ] = False,
    keep_unfolded: Annotated[
        bool,
        typer.Option(
            "--keep-unfolded",
            help="With --repository: ship the unfolded model too, which the server holds answers against.",
        ),
    ] = False,
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed",
            help="With --repository: do nothing if the newest version is made from this very source.",
        ),
    ] = False,
    options: Any = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fold batch normalization into its neighbours, prove the result equal, write it.

    Beside DEST.onnx goes DEST.fold-report.json. A failed proof writes nothing.
    """
    from infold.convert import convert, convert_to_repository, html_report, verdict, write_text

    taken = sampling(samples, shape)
    if repository is not None:
        if destination is not None or name is None:
            raise typer.BadParameter("takes --name and no DEST.onnx", param_hint="--repository")
        if if_changed and (kept := _kept(source, repository, name, options, as_json, quiet)) is not None:
            raise typer.Exit(1 if strict and kept else 0)
        with progress_line(quiet) as progress:
            done = convert_to_repository(
                source,
                repository,
                name,
                taken,
                prove_it=not no_verify,
                freeze=freeze_initializers,
                options=options,
                progress=progress,
                keeps_unfolded=keep_unfolded,
            )
    else:
        if keep_unfolded:
            raise typer.BadParameter("goes with --repository", param_hint="--keep-unfolded")
        if if_changed:
            raise typer.BadParameter("goes with --repository", param_hint="--if-changed")
        if destination is None or name is not None:
            what = "--name goes with --repository" if name is not None else "missing; or give --repository"
            raise typer.BadParameter(what, param_hint="DEST.onnx")
        with progress_line(quiet) as progress:
            done = convert(
                source,
                destination,
                taken,
                prove_it=not no_verify,
                freeze=freeze_initializers,
                options=options,
                progress=progress,
            )
    if html is not None:
        sizes = (done.source_bytes, done.destination.stat().st_size)
        write_text(html, html_report(done, sizes))
    if as_json:
        print(json.dumps(done.json, indent=2))
    elif not quiet:
        lines = [f"note: {note}" for note in done.notes]
        lines += [fold_table(done.report), steps_table(done.framework), verdict(done.report, done.proof)]
        if done.serving is not None and done.serving.disabled_optimizers:
            names = ", ".join(done.serving.disabled_optimizers)
            lines.append(
                f"onnxruntime's own optimizer {names} makes this model wrong "
                f"(relative error {done.serving.without_them:.1e}): serve it with "
                f"session.disabled_optimizers in its model.toml"
            )
        lines.append(f"wrote {done.destination}")
        if keep_unfolded:
            twin = done.destination.with_name("unfolded.onnx")
            lines.append(f"wrote {twin}, its shadow: a share of the requests is run on both")
        print("\n".join(line for line in lines if line))
    if strict and done.report.kept:
        raise typer.Exit(1)


def _kept(source: str, repository: Path, name: str, options: Any, as_json: bool, quiet: bool) -> int | None:
    """How many norms the newest version kept if nothing needs to be done, which is told; else None."""
    from infold.convert import version_made_from

    made = version_made_from(source, repository, name, options)
    if made is None:
        return None
    model, report = made
    if as_json:
        print(json.dumps(report, indent=2))
    elif not quiet:
        print(f"{model} is made from this source already; nothing to do")
    return int(report["kept"])
