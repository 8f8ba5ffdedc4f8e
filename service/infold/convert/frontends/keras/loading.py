"""Keras files opened: told what they are before Keras sees them, so that a refusal says what to do."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import h5py
import keras

from infold.convert.frontends.exported import Request
from infold.convert.frontends.keras.wording import chain, one_line
from infold.errors import SourceError

__all__ = ["load"]

CUSTOM = "name the code that defines it: --custom-objects package.module:{}"
UNKNOWN = re.compile(r"Could not locate (?:class|function) '([^']+)'|Unknown [\w ]+: '([^']+)'")
SNAKE = re.compile(r"(?<!^)(?=[A-Z])")
# How Keras says that a layer needs its backend.
TENSORFLOW = re.compile(r"tensorflow.{0,3} backend|backend.{0,12}tensorflow", re.IGNORECASE)
LAMBDA = "__lambda__"


@dataclass(frozen=True, slots=True)
class _File:
    """What a file says of itself.

    Attributes:
        suffix: By which Keras tells formats apart.
        version: Of the Keras that wrote it; empty where it does not say.
        config: The model's configuration.
    """

    suffix: str
    version: str
    config: Any


def load(request: Request) -> Any:
    """The model in a file, for inference.

    Raises:
        SourceError: The file is damaged, of another Keras, holds code, or needs code that was
            not named; says which.
        RuntimeError: It has a layer that TensorFlow alone runs.
    """
    source = request.source
    file = _read(source)
    _refuse_inputs(source, file)
    if not request.options.unsafe:
        _refuse_code(source, file)
    custom = _custom_objects(source, file, request.options.custom_objects)
    try:
        with _suffixed(Path(source), file.suffix) as named, _on_one_device():
            return keras.saving.load_model(
                str(named), custom_objects=custom, compile=False, safe_mode=not request.options.unsafe
            )
    except Exception as failure:
        raise _explained(source, file, failure) from failure


def _read(source: str) -> _File:
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                if damaged := archive.testzip():
                    raise SourceError(source, f"a damaged archive: {damaged} does not match its checksum")
                metadata = json.loads(archive.read("metadata.json"))
                return _File(
                    ".keras", str(metadata.get("keras_version", "")), json.loads(archive.read("config.json"))
                )
        with h5py.File(source, "r") as file:
            config = file.attrs.get("model_config")
            if config is None:
                raise SourceError(
                    source,
                    "holds weights without their network; save the whole model: model.save('model.keras')",
                )
            return _File(".h5", str(file.attrs.get("keras_version", "")), json.loads(config))
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError, KeyError) as broken:
        words = " ".join(str(broken).split())
        raise SourceError(source, f"not a Keras file, or a damaged one: {words}") from broken


def _refuse_inputs(source: str, file: _File) -> None:
    """Tensors that ONNX has not; some backends would not even load such a model."""
    for layer in _objects(file.config):
        config = layer["config"]
        for kind in ("sparse", "ragged"):
            if layer["class_name"] == "InputLayer" and config.get(kind):
                raise SourceError(source, f"input '{config.get('name')}' is {kind}; ONNX has no such tensors")


def _refuse_code(source: str, file: _File) -> None:
    """Python inside a file is code of whoever wrote it."""
    for layer in _objects(file.config):
        config = layer["config"]
        name = config.get("name")
        if layer["class_name"] == "TorchModuleWrapper":
            what = f"layer '{name}' is a pickled PyTorch module"
        elif layer["class_name"] == "Lambda" and isinstance(config.get("function"), list):  # as of Keras 2
            what = f"layer '{name}' is a Lambda"
        elif any(isinstance(part, dict) and part.get("class_name") == LAMBDA for part in config.values()):
            what = f"layer '{name}' holds a Python lambda"
        elif layer["class_name"] == LAMBDA:
            what = "it holds a Python lambda"
        else:
            continue
        raise SourceError(
            source,
            f"{what}: code from inside the file would run here, with all your rights; write it as a named "
            "function or a layer class (--custom-objects), or pass --unsafe if you trust the file's author",
        )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every layer and other object in a configuration, the outermost first."""
    if isinstance(config, list):
        for part in config:
            yield from _objects(part)
    elif isinstance(config, dict):
        if "class_name" in config and isinstance(config.get("config"), dict):
            yield config
        for part in config.values():
            yield from _objects(part)


def _custom_objects(source: str, file: _File, names: tuple[str, ...]) -> dict[str, Any]:
    """The user's own classes and functions, by attribute, by registered name and as the file calls them."""
    found = {}
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            value = attrgetter(attribute)(import_module(module))
        except (ImportError, AttributeError, TypeError, ValueError) as missing:
            detail = f"--custom-objects {name}: {one_line(missing)}; write package.module:Class"
            raise SourceError(source, detail) from missing
        found[attribute.rpartition(".")[2]] = value
        found[keras.saving.get_registered_name(value)] = value
    for each in _objects(file.config):  # saved as `package>Name` by code that registered it
        registered = each.get("registered_name")
        if isinstance(registered, str) and (bare := registered.rpartition(">")[2]) in found:
            found.setdefault(registered, found[bare])
    return found


@contextmanager
def _suffixed(path: Path, suffix: str) -> Iterator[Path]:
    """The file under a name by which Keras knows its format."""
    if path.suffix in ((".h5", ".hdf5") if suffix == ".h5" else (suffix,)):
        yield path
        return
    with TemporaryDirectory(prefix="infold-keras-") as folder:
        named = Path(folder) / f"model{suffix}"
        try:
            named.symlink_to(path.resolve())
        except OSError:
            shutil.copyfile(path, named)
        yield named


@contextmanager
def _on_one_device() -> Iterator[None]:
    """Norms that gather their moments from several devices can be loaded on any backend.

    Only training knows the difference; still Keras refuses them without TensorFlow.
    """
    norm = keras.layers.BatchNormalization
    inherited = norm.from_config.__func__

    def from_config(cls: Any, config: Mapping[str, Any]) -> Any:
        return inherited(cls, {**config, "synchronized": False})

    with patch.object(norm, "from_config", classmethod(from_config)):
        yield


def _explained(source: str, file: _File, failure: Exception) -> Exception:
    text = " ".join(str(each) for each in chain(failure))
    unknown = UNKNOWN.search(text)
    if unknown and (detail := _lacking(file, unknown[1] or unknown[2])):
        return SourceError(source, detail)
    words = one_line(failure)
    if file.version.startswith(("1.", "2.")):
        return SourceError(
            source,
            f"was saved by Keras {file.version} in a form that Keras 3 cannot read ({words}); load it "
            "with Keras 2 (pip install tf-keras), call model.export('FOLDER'), and convert that SavedModel",
        )
    if keras.config.backend() != "tensorflow" and TENSORFLOW.search(text):
        return RuntimeError(words)
    written = f" (saved by Keras {file.version}, read by {keras.__version__})" if file.version else ""
    return SourceError(source, f"Keras cannot load it{written}: {words}")


def _lacking(file: _File, name: str) -> str | None:
    """Which layer needs an unknown class or function, and what to do; None if that is one of Keras."""
    if hasattr(keras.layers, name) or hasattr(keras.models, name):
        return None
    remedy = CUSTOM.format(name.rpartition(">")[2])
    for each in _objects(file.config):
        layer = each["config"].get("name")
        if name in (each["class_name"], each.get("registered_name")):
            if hasattr(keras.ops, SNAKE.sub("_", name).lower()):
                detail = "is an operation, which this format cannot give back; save the model as .keras"
                return f"'{layer}' ({name}) {detail}"
            return f"layer '{layer}' is of class '{name}', not part of Keras; {remedy}"
        if layer and any(_names(part, name) for part in each["config"].values()):
            return f"layer '{layer}' uses '{name}', not part of Keras; {remedy}"
    return f"'{name}' is not part of Keras; {remedy}"


def _names(part: Any, name: str) -> bool:
    return part == name or (
        isinstance(part, dict) and name in (part.get("config"), part.get("registered_name"))
    )
