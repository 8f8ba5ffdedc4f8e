"""ONNX files as sources: read with suspicion, taken as they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import ShapeInferencePass

from infold.errors import SourceError

__all__ = ["MAX_IR_VERSION", "MAX_OPSET", "Source", "in_memory", "load", "readable"]

# What onnxruntime 1.31 loads; onnx 1.23 itself writes newer.
MAX_OPSET = 26
MAX_IR_VERSION = 13


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An unfolded model.

    Attributes:
        path: Where it came from.
        sha256: Digest of the file, and of the external data after it.
        proto: The model; external data still outside.
        folder: Where its external data lies.
    """

    path: Path
    sha256: str
    proto: onnx.ModelProto
    folder: Path

    def ir(self) -> ir.Model:
        """The model for the fold floor."""
        return readable(self.proto, self.folder)


def readable(proto: onnx.ModelProto, folder: Path) -> ir.Model:
    """A model for the fold floor: shapes inferred, external data mapped, not read.

    Args:
        proto: The model.
        folder: Where its external data lies.
    """
    model = ir.from_proto(proto)
    for graph in model.graphs():
        ir.external_data.set_base_dir(graph, folder)
    infer = ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    with suppress(Exception):  # shapes only help; the graph itself has been checked
        infer(model)
    return model


def load(path: Path) -> Source:
    """Read and check an ONNX file.

    Raises:
        SourceError: Missing, empty, truncated, no ONNX, not a valid graph, of an unknown
            opset, or with external data outside its own folder; says which.
    """
    content = _read(path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as broken:
        raise SourceError(path, "not an ONNX file, or truncated") from broken
    if not proto.graph.node and not proto.graph.output:
        raise SourceError(path, "not an ONNX file: it holds no graph")
    digest = sha256(content)
    del content
    folder = path.resolve().parent
    for location in sorted(_check_external(path, folder, proto)):
        with (folder / location).open("rb") as data:
            for block in iter(lambda: data.read(2**22), b""):
                digest.update(block)
    _check(path, proto)
    return Source(path, digest.hexdigest(), _within_range(path, proto), folder)


def in_memory(proto: onnx.ModelProto) -> Source:
    """A model that is in memory already, weights included; a copy of it is taken.

    Raises:
        SourceError: It is not valid; its name stands for the path.
    """
    name = Path(proto.graph.name or "model")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    try:
        onnx.checker.check_model(copy)
    except (onnx.checker.ValidationError, ValueError) as invalid:
        raise SourceError(name, f"not a valid ONNX model: {_one_line(invalid)}") from invalid
    digest = sha256(copy.SerializeToString(deterministic=True)).hexdigest()
    return Source(name, digest, _within_range(name, copy), Path())


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise SourceError(path, "is a folder, not an ONNX file")
        content = path.read_bytes()
    except OSError as failure:
        detail = "no such file" if isinstance(failure, FileNotFoundError) else str(failure.strerror)
        raise SourceError(path, detail) from failure
    if not content:
        raise SourceError(path, "the file is empty")
    return content


def _check(path: Path, proto: onnx.ModelProto) -> None:
    try:
        # A path lets the checker follow external data; beyond 2 GB it must be one anyway.
        onnx.checker.check_model(str(path.resolve()))
    except onnx.checker.ValidationError as invalid:
        raise SourceError(path, f"not a valid ONNX model: {_one_line(invalid)}") from invalid
    except (RuntimeError, ValueError, OSError) as failure:
        raise SourceError(path, f"cannot be checked: {_one_line(failure)}") from failure
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= newest:
            raise SourceError(path, f"opset {opset.version} is unknown; the newest is {newest}")


def _one_line(failure: BaseException) -> str:
    return " ".join(str(failure).split())[:400]


def _within_range(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model at an opset and IR version that onnxruntime loads."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    if opset > MAX_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, MAX_OPSET)
        except Exception as failure:
            detail = f"opset {opset} is newer than onnxruntime's {MAX_OPSET} and has no way back"
            raise SourceError(path, f"{detail}: {_one_line(failure)}") from failure
    proto.ir_version = min(proto.ir_version, MAX_IR_VERSION)
    _cut_empty_outputs(proto.graph)
    return proto


def _cut_empty_outputs(graph: onnx.GraphProto) -> None:
    """Cut unnamed extra outputs of BatchNormalization: onnxruntime 1.31 dies on them unoptimized."""
    for node in graph.node:
        if node.op_type == "BatchNormalization" and not any(node.output[1:]):
            del node.output[1:]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _cut_empty_outputs(inner)


def _check_external(path: Path, folder: Path, proto: onnx.ModelProto) -> set[str]:
    """Locations of all external data, each a plain file inside the model's folder."""
    locations = set()
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        location = facts.get("location", "")
        place = f"external data of '{tensor.name}' at '{location}'"
        parts = Path(location).parts
        if not location or os.path.isabs(location) or ".." in parts or "\\" in location:
            raise SourceError(path, f"{place} leaves the model's folder")
        target = folder / location
        if not target.resolve().is_relative_to(folder):
            raise SourceError(path, f"{place} leaves the model's folder")
        try:
            found = target.lstat()
        except OSError as failure:
            raise SourceError(path, f"{place}: {failure.strerror}") from failure
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(path, f"{place} is not a plain file")
        _check_range(path, place, facts, found.st_size, tensor)
        locations.add(location)
    return locations


def _check_range(path: Path, place: str, facts: dict[str, str], size: int, tensor: onnx.TensorProto) -> None:
    try:
        offset, length = int(facts.get("offset", 0)), int(facts.get("length", 0))
    except ValueError as broken:
        raise SourceError(path, f"{place} has an offset or length that is no number") from broken
    if offset < 0 or length < 0 or offset + length > size:
        raise SourceError(path, f"{place} reaches beyond the end of the file ({size} bytes)")
    given = length if "length" in facts else size - offset
    needed = ir.TensorProtoTensor(tensor).nbytes
    if given < needed:
        raise SourceError(path, f"{place} has {given} bytes, the tensor needs {needed}")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)
