"""A source, whatever it was trained with: opened to unfolded ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.frontends.exported import Options, Request
from infold.convert.frontends.formats import Format, recognise
from infold.convert.frontends.isolated import Progress, run_frontend
from infold.convert.frontends.onnx import Source
from infold.errors import ConfigError, SourceError

__all__ = ["Source", "digest_of", "open_source"]


@contextmanager
def open_source(
    source: Path | str,
    options: Options | None = None,
    samples: Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    progress: Progress | None = None,
) -> Iterator[Source]:
    """Read a source; a framework's file is exported in a child process first.

    Args:
        source: A file, a folder, a checkpoint prefix or `package.module:factory`.
        options: What the source does not say itself.
        samples: The user's own inputs.
        shapes: Of inputs, for exporters that need to see one.
        progress: Told now and then what is being done.

    Yields:
        The unfolded model. What it refers to on disk is gone when the context ends.

    Raises:
        SourceError: It cannot be read; says what to do.
        ConfigError: An option that this format does not know.
    """
    options = options or Options()
    text = str(source)
    found = options.format or recognise(text)
    _require_known(found, options)
    if found is Format.ONNX:
        yield onnx_frontend.load(Path(source))
        return
    if options.format is not None and found is not Format.MODULE:
        _require_existing(text)
    with TemporaryDirectory(prefix="infold-export-") as name:
        folder = Path(name)
        request = Request(text, found, options, samples, shapes or {})
        framework = run_frontend(request, folder, progress)
        exported = onnx_frontend.load(folder / "model.onnx")
        yield exported.exported_by(framework, Path(source), digest_of(text, options))


# Options that only some formats know: attribute, the flag's name, and of what it is.
PARTICULAR = (
    ("weights", "--weights", "package.module:factory", (Format.MODULE,)),
    ("custom_objects", "--custom-objects", "a Keras file", (Format.KERAS,)),
    ("signature", "--signature", "a SavedModel", (Format.SAVED_MODEL,)),
    ("tag", "--tag", "a SavedModel", (Format.SAVED_MODEL,)),
    ("inputs", "--inputs", "a TensorFlow graph", (Format.GRAPH_DEF, Format.CHECKPOINT, Format.SAVED_MODEL)),
    ("outputs", "--outputs", "a TensorFlow graph", (Format.GRAPH_DEF, Format.CHECKPOINT, Format.SAVED_MODEL)),
    (
        "training_flag",
        "--training-flag",
        "a TensorFlow graph",
        (Format.GRAPH_DEF, Format.CHECKPOINT, Format.SAVED_MODEL),
    ),
)


def _require_known(found: Format, options: Options) -> None:
    """Refuse what would be passed over: whoever gives weights believes they were loaded."""
    for attribute, flag, what, formats in PARTICULAR:
        if getattr(options, attribute) and found not in formats:
            raise ConfigError(flag, f"is for {what}, and the source is {found}")


def _require_existing(source: str) -> None:
    path = Path(source)
    if not path.exists() and not path.with_name(f"{path.name}.index").exists():
        raise SourceError(source, "no such file")


def digest_of(source: str, options: Options) -> str:
    """Of every file that makes up the source, in the order of their names."""
    path = Path(source)
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
    elif path.exists():
        files = [path]
    else:  # a checkpoint prefix, or code: of that only the weights are known
        files = sorted(path.parent.glob(f"{path.name}.*"))
    files += [options.weights] if options.weights is not None else []
    digest = sha256()
    for each in files:
        with each.open("rb") as content:
            for block in iter(lambda: content.read(2**22), b""):
                digest.update(block)
    return digest.hexdigest()
