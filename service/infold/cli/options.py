"""Options that several verbs share: spelled once, so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infold.convert import Options, Sampling

__all__ = [
    "CustomObjects",
    "From",
    "Inputs",
    "Json",
    "Outputs",
    "Quiet",
    "Samples",
    "Shapes",
    "SignatureName",
    "Source",
    "Tag",
    "TrainingFlag",
    "Unsafe",
    "Weights",
    "sampling",
    "source_options",
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Samples = Annotated[
    Path | None,
    typer.Option("--samples", metavar="FILE.npz", help="Prove on these inputs instead of drawn ones."),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="[NAME=]1,3,224,224",
        help="Shape of a drawn input; may be given several times. An only input needs no name.",
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="The trained model: ONNX, Keras (.keras, .h5), a SavedModel, a TensorFlow 1 graph or "
        "checkpoint, PyTorch (.pt2, TorchScript), or package.module:factory with --weights.",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FORMAT",
        help="What SOURCE is: onnx, keras, saved-model, graph-def, checkpoint, pt2, torchscript, module "
        "or pickle. By default its content says.",
    ),
]
CustomObjects = Annotated[
    list[str] | None,
    typer.Option(
        "--custom-objects",
        metavar="MODULE:NAME",
        help="A Keras layer of your own; may be given several times.",
    ),
]
Unsafe = Annotated[
    bool, typer.Option("--unsafe", help="Trust SOURCE: code inside it (lambdas, pickles) may run.")
]
SignatureName = Annotated[
    str | None, typer.Option("--signature", metavar="NAME", help="Which signature of a SavedModel.")
]
Tag = Annotated[str | None, typer.Option("--tag", help="Which tag of a SavedModel; default: serve.")]
Inputs = Annotated[
    str | None, typer.Option("--inputs", metavar="A:0,B:0", help="Inputs of a TensorFlow graph.")
]
Outputs = Annotated[
    str | None, typer.Option("--outputs", metavar="A:0,B:0", help="Outputs of a TensorFlow graph.")
]
TrainingFlag = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The placeholder that switches a TensorFlow graph to training."),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="State dict (.pt or .safetensors) for package.module:factory."),
]


def sampling(samples: Path | None, shapes: list[str] | None) -> Sampling:
    """The two sampling options together.

    Raises:
        typer.BadParameter: A shape is not of the form NAME=1,2,3.
    """
    from infold.convert import Sampling

    return Sampling(samples, dict(_shape(text) for text in shapes or ()))


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, equals, lengths = text.rpartition("=")
    try:
        shape = tuple(int(length) for length in lengths.split(",") if length.strip())
    except ValueError:
        shape = (-1,)
    if (equals and not name) or not shape or any(length < 0 for length in shape):
        raise typer.BadParameter(f"{text!r} is not of the form NAME=1,3,224,224", param_hint="--shape")
    return name, shape


def source_options(
    from_: str | None,
    custom_objects: list[str] | None,
    unsafe: bool,
    signature: str | None,
    tag: str | None,
    inputs: str | None,
    outputs: str | None,
    training_flag: str | None,
    weights: Path | None,
) -> Options:
    """The options that say how to read a source.

    Raises:
        typer.BadParameter: There is no such format.
    """
    from infold.convert import Format, Options

    if from_ is not None and from_ not in list(Format):
        raise typer.BadParameter(f"{from_!r} is none of {', '.join(Format)}", param_hint="--from")
    return Options(
        Format(from_) if from_ else None,
        tuple(custom_objects or ()),
        unsafe,
        signature,
        tag,
        _names(inputs),
        _names(outputs),
        training_flag,
        weights,
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
