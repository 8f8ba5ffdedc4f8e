"""Options that several verbs share: spelled once, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infold.convert import Sampling

__all__ = ["Json", "Quiet", "Samples", "Shapes", "sampling"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Samples = Annotated[
    Path | None,
    typer.Option("--samples", metavar="FILE.npz", help="Prove on these inputs instead of drawn ones."),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape", metavar="NAME=1,3,224,224", help="Shape of a drawn input; may be given several times."
    ),
]


def sampling(samples: Path | None, shapes: list[str] | None) -> Sampling:
    """The two sampling options together.

    Raises:
        typer.BadParameter: A shape is not of the form NAME=1,2,3.
    """
    from infold.convert import Sampling

    return Sampling(samples, dict(_shape(text) for text in shapes or ()))


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, lengths = text.rpartition("=")
    try:
        shape = tuple(int(length) for length in lengths.split(",") if length.strip())
    except ValueError:
        shape = (-1,)
    if not name or any(length < 0 for length in shape):
        raise typer.BadParameter(f"{text!r} is not of the form NAME=1,3,224,224", param_hint="--shape")
    return name, shape
