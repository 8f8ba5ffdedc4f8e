"""Options that several verbs share: spelled once, so that they mean the same everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from infold.convert import Options, Sampling

__all__ = ["Json", "Quiet", "Samples", "Shapes", "Source", "sampling", "source_options", "takes_source"]

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
    from_: From = None,
    weights: Weights = None,
    custom_objects: CustomObjects = None,
    signature: SignatureName = None,
    tag: Tag = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    training_flag: TrainingFlag = None,
    unsafe: Unsafe = False,
) -> Options:
    """The options that say how to read a source; `takes_source` gives them to a verb.

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


def takes_source(command: Callable[..., None]) -> Callable[..., None]:
    """A verb with the options of `source_options` in place of its parameter `options`."""
    own = inspect.signature(command, eval_str=True).parameters
    more = inspect.signature(source_options, eval_str=False).parameters
    hints = get_type_hints(source_options, {"Options": object, **globals()}, include_extras=True)

    @wraps(command)
    def verb(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in more}
        command(**given, options=source_options(**chosen))

    shared = [each.replace(annotation=hints[name]) for name, each in more.items()]
    parts = [[each] if name != "options" else shared for name, each in own.items()]
    merged = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in parts for each in part]
    verb.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]  # typer reads it
    verb.__annotations__ = {each.name: each.annotation for each in merged}
    return verb


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
