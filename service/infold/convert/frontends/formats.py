"""What kind of file a source is: told by its content, a name decides only between equals.

Nothing is opened here that could run code: archives are listed, never unpickled.
"""

from __future__ import annotations

import re
import zipfile
from enum import StrEnum
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from infold.errors import SourceError

__all__ = ["Format", "recognise"]


class Format(StrEnum):
    """What training left on disk."""

    ONNX = "onnx"
    KERAS = "keras"
    SAVED_MODEL = "saved-model"
    GRAPH_DEF = "graph-def"
    CHECKPOINT = "checkpoint"
    PT2 = "pt2"
    TORCHSCRIPT = "torchscript"
    MODULE = "module"
    PICKLE = "pickle"


HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
PICKLE = re.compile(rb"\x80[\x02-\x05]")
FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
WEIGHTS_ONLY = (
    "holds weights without their network; name the code that builds it: "
    "infold convert package.module:factory DEST.onnx --weights {}"
)


def recognise(source: str) -> Format:
    """The format of a file, folder, checkpoint prefix or `package.module:factory`.

    Raises:
        SourceError: There is no such thing, or it is nothing infold reads.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        if path.with_name(f"{path.name}.meta").exists() or path.with_name(f"{path.name}.index").exists():
            return Format.CHECKPOINT
        if FACTORY.fullmatch(source):
            return Format.MODULE
        raise SourceError(source, "no such file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as failure:
        raise SourceError(source, failure.strerror or str(failure)) from failure
    if head.startswith(ZIP):
        return _archive(path)
    if head.startswith(HDF5):
        return Format.KERAS
    if path.suffix in (".meta", ".index"):
        return Format.CHECKPOINT
    if PICKLE.match(head):
        return Format.PICKLE
    if re.match(rb'.{8}\{"', head, re.DOTALL):
        raise SourceError(source, WEIGHTS_ONLY.format(path))
    return _protobuf(path)


def _folder(path: Path) -> Format:
    if any((path / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return Format.SAVED_MODEL
    if (path / "checkpoint").exists() or any(path.glob("*.meta")):
        return Format.CHECKPOINT
    raise SourceError(path, "is a folder, but neither a SavedModel nor a TensorFlow checkpoint")


def _archive(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as broken:
        raise SourceError(path, f"a damaged archive: {broken}") from broken
    inside = {name.partition("/")[2] for name in names} | set(names)
    if "config.json" in names and any(name.endswith("weights.h5") for name in names):
        return Format.KERAS
    if "archive_format" in inside or "serialized_exported_program.json" in inside:
        return Format.PT2
    if any(name.startswith("code/") for name in inside):
        return Format.TORCHSCRIPT
    if "data.pkl" in inside:
        return Format.PICKLE
    raise SourceError(path, "an archive that holds no model infold knows (Keras, torch.export, TorchScript)")


def _protobuf(path: Path) -> Format:
    """ONNX or a TensorFlow graph: both are protobuf without a signature."""
    if path.suffix == ".onnx":
        return Format.ONNX
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        model.Clear()
    if model.ir_version and model.graph.ByteSize():
        return Format.ONNX
    if path.suffix in (".pb", ".pbtxt"):
        return Format.GRAPH_DEF
    return Format.ONNX  # whose own reader says best what is wrong
