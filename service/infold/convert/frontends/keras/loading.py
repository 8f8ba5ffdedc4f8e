"""Keras files opened: told what they are before Keras sees them, so that a refusal says what to do."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
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

from infold.convert.frontends.child import OtherBackendError
from infold.convert.frontends.exported import Request
from infold.convert.frontends.keras.wording import chain, one_line
from infold.errors import SourceError

__all__ = ["load"]

CUSTOM = "name the code that defines it: --custom-objects package.module:{}"
UNKNOWN = re.compile(r"Could not locate (?:class|function) '([^']+)'|Unknown [\w ]+: '([^']+)'")
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
        OtherBackendError: It has a layer that TensorFlow alone runs.
    """
    path = Path(request.source)
    file = _read(path)
    if not request.options.unsafe:
        _refuse_code(path, file)
    custom = _custom_objects(path, request.options.custom_objects)
    try:
        with _suffixed(path, file.suffix) as named, _on_one_device():
            return keras.saving.load_model(
                str(named), custom_objects=custom, compile=False, safe_mode=not request.options.unsafe
            )
    except Exception as failure:
        raise _explained(path, file, failure) from failure


def _read(path: Path) -> _File:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise SourceError(path, f"a damaged archive: {damaged} does not match its checksum")
                metadata = json.loads(archive.read("metadata.json"))
                return _File(
                    ".keras", str(metadata.get("keras_version", "")), json.loads(archive.read("config.json"))
                )
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            if config is None:
                raise SourceError(
                    path,
                    "holds weights without their network; save the whole model: model.save('model.keras')",
                )
            return _File(".h5", str(file.attrs.get("keras_version", "")), json.loads(config))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError) as broken:
        words = " ".join(str(broken).split())
        raise SourceError(path, f"not a Keras file, or a damaged one: {words}") from broken


def _refuse_code(path: Path, file: _File) -> None:
    """Python inside a file is code of whoever wrote it."""
    for layer in _objects(file.config):
        config = layer["config"]
        if layer["class_name"] == "Lambda" and any(_is_code(part) for part in config.values()):
            what = f"layer '{config.get('name')}' is a Lambda"
        elif layer["class_name"] == "TorchModuleWrapper":
            what = f"layer '{config.get('name')}' is a pickled PyTorch module"
        else:
            continue
        raise SourceError(
            path,
            f"{what}: the file holds Python code that would run here, with all your rights; "
            "write it as a layer class (--custom-objects), or, if you trust the file's author, pass --unsafe",
        )


def _is_code(part: Any) -> bool:
    """As Keras 3 and Keras 2 store a Python lambda."""
    if isinstance(part, dict):
        return part.get("class_name") == LAMBDA
    return isinstance(part, list) and len(part) == 3 and isinstance(part[0], str)


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


def _custom_objects(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The user's own classes and functions, by attribute and by registered name."""
    found = {}
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            value = attrgetter(attribute)(import_module(module))
        except (ImportError, AttributeError, TypeError, ValueError) as missing:
            detail = f"--custom-objects {name}: {one_line(missing)}; write package.module:Class"
            raise SourceError(path, detail) from missing
        found[attribute.rpartition(".")[2]] = value
        found[keras.saving.get_registered_name(value)] = value
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


def _explained(path: Path, file: _File, failure: Exception) -> Exception:
    text = " ".join(str(each) for each in chain(failure))
    if unknown := UNKNOWN.search(text):
        name = unknown[1] or unknown[2]
        attribute = name.rpartition(">")[2]
        return SourceError(
            path, f"{_holder(file.config, name)} not part of Keras; {CUSTOM.format(attribute)}"
        )
    words = one_line(failure)
    if file.version.startswith(("1.", "2.")):
        return SourceError(
            path,
            f"was saved by Keras {file.version} in a form that Keras 3 cannot read ({words}); load it "
            "with Keras 2 (pip install tf-keras), call model.export('FOLDER'), and convert that SavedModel",
        )
    if keras.config.backend() != "tensorflow" and re.search("tensorflow", text, re.IGNORECASE):
        return OtherBackendError("tensorflow", words)
    written = f" (saved by Keras {file.version}, read by {keras.__version__})" if file.version else ""
    return SourceError(path, f"Keras cannot load it{written}: {words}")


def _holder(config: Any, name: str) -> str:
    """Which layer needs an unknown class or function."""
    for each in _objects(config):
        inner: Mapping[str, Any] = each["config"]
        if name in (each["class_name"], each.get("registered_name")):
            return f"layer '{inner.get('name')}' is of class '{name}',"
        if "name" in inner and any(_names(part, name) for part in inner.values()):
            return f"layer '{inner['name']}' uses '{name}',"
    return f"'{name}' is"


def _names(part: Any, name: str) -> bool:
    return part == name or (
        isinstance(part, dict) and name in (part.get("config"), part.get("registered_name"))
    )
