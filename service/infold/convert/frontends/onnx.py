"""ONNX files as sources: read with suspicion, taken as they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from infold.convert.frontends.exported import Framework
from infold.convert.wire import split
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
        proto: The model; external data still outside, the data of `weights` missing.
        folder: Where its external data lies.
        weights: Data of large initializers of the main graph, as it lies in the file.
        framework: What its framework says and computes; None for plain ONNX.
    """

    path: Path
    proto: onnx.ModelProto
    folder: Path
    _digest: Future[str]
    weights: Mapping[str, memoryview] = field(default_factory=dict)
    framework: Framework | None = None

    @property
    def sha256(self) -> str:
        """Digest of the file, and of the external data after it; waits until it is known."""
        return self._digest.result()

    def complete(self) -> onnx.ModelProto:
        """The model with all its weights, as others want it; external data still outside."""
        return _completed(self.proto, self.weights) if self.weights else self.proto

    def exported_by(self, framework: Framework, path: Path, sha256: str) -> Source:
        """This model as a framework's export of another file, all weights in its proto."""
        known: Future[str] = Future()
        known.set_result(sha256)
        return Source(path, self.complete(), self.folder, known, framework=framework)

    def ir(self) -> ir.Model:
        """The model for the fold floor: shapes inferred, external data mapped, not read.

        Raises:
            SourceError: It holds what cannot be represented, such as sparse tensors.
        """
        if self.proto.graph.sparse_initializer:
            raise SourceError(self.path, "sparse initializers are not supported")
        try:
            model = readable(self.proto, self.folder)
        except ir.serde.SerdeError as unread:
            reason: BaseException = unread  # which wraps one error in another, node in graph in model
            while reason.__cause__ is not None:
                reason = reason.__cause__
            raise SourceError(self.path, f"cannot be read: {_one_line(reason)}") from unread
        for name, data in self.weights.items():
            value = model.graph.initializers[name]
            header = value.const_value
            assert header is not None
            array = np.frombuffer(data, header.dtype.numpy()).reshape(header.shape.numpy())
            value.const_value = ir.Tensor(array, header.dtype, name=name)
        return model


def readable(proto: onnx.ModelProto, folder: Path) -> ir.Model:
    """A model for the fold floor: shapes inferred, external data mapped, not read.

    Args:
        proto: The model.
        folder: Where its external data lies.
    """
    model = ir.from_proto(_with_shapes(proto))
    for graph in model.graphs():
        ir.external_data.set_base_dir(graph, folder)
    return model


def load(path: Path) -> Source:
    """Read and check an ONNX file.

    Raises:
        SourceError: Missing, empty, truncated, no ONNX, not a valid graph, of an unknown
            opset, or with external data outside its own folder; says which.
    """
    content = _read(path)
    skeleton, weights = split(content)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(skeleton)
    except DecodeError as broken:
        raise SourceError(path, "not an ONNX file, or truncated") from broken
    if not proto.graph.node and not proto.graph.output:
        raise SourceError(path, "not an ONNX file: it holds no graph")
    folder = path.resolve().parent
    outside = [folder / location for location in sorted(_check_external(path, folder, proto))]
    digest = _in_background(content, outside)
    _check(path, proto, weights)
    if _opset(proto) > MAX_OPSET:
        proto, weights = _downgraded(path, _completed(proto, weights)), {}
    return Source(path, _runnable(proto), folder, digest, weights)


def in_memory(proto: onnx.ModelProto) -> Source:
    """A model that is in memory already, weights included; a copy of it is taken.

    Raises:
        SourceError: It is not valid; its name stands for the path.
    """
    name = Path(proto.graph.name or "model")
    content = proto.SerializeToString(deterministic=True)
    skeleton, weights = split(content)
    copy = onnx.ModelProto.FromString(skeleton)
    try:
        onnx.checker.check_model(_emptied(copy, weights))
    except (onnx.checker.ValidationError, ValueError) as invalid:
        raise SourceError(name, f"not a valid ONNX model: {_one_line(invalid)}") from invalid
    digest = _in_background(content)
    if _opset(copy) > MAX_OPSET:
        copy, weights = _downgraded(name, _completed(copy, weights)), {}
    return Source(name, _runnable(copy), Path(), digest, weights)


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all shapes that can be inferred; the data of large weights is not asked for."""
    with suppress(Exception):  # shapes only help; the graph itself has been checked
        return onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    return proto


def _completed(proto: onnx.ModelProto, weights: Mapping[str, memoryview]) -> onnx.ModelProto:
    complete = onnx.ModelProto()
    complete.CopyFrom(proto)
    for tensor in complete.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = bytes(weights[tensor.name])
    return complete


def _in_background(content: bytes, files: Collection[Path] = ()) -> Future[str]:
    """The digest of these bytes and then these files, taken while something else is being done."""

    def digested() -> str:
        digest = sha256(content)
        for file in files:
            with file.open("rb") as data:
                for block in iter(lambda: data.read(2**22), b""):
                    digest.update(block)
        return digest.hexdigest()

    pool = ThreadPoolExecutor(1, "infold-digest")
    try:
        return pool.submit(digested)
    finally:
        pool.shutdown(wait=False)


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


def _check(path: Path, proto: onnx.ModelProto, weights: Collection[str]) -> None:
    """Refuse what is no valid model; `weights` names initializers whose data is known to be sound."""
    try:
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(proto)):
            onnx.checker.check_model(str(path.resolve()))  # only a path lets it follow external data
        else:
            onnx.checker.check_model(_emptied(proto, weights))
    except onnx.checker.ValidationError as invalid:
        raise SourceError(path, f"not a valid ONNX model: {_one_line(invalid)}") from invalid
    except (RuntimeError, ValueError, OSError) as failure:
        raise SourceError(path, f"cannot be checked: {_one_line(failure)}") from failure
    for tensor in _tensors(proto):
        if tensor.HasField("raw_data") and tensor.data_location != onnx.TensorProto.EXTERNAL:
            _check_size(path, tensor)
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= newest:
            raise SourceError(path, f"opset {opset.version} is unknown; the newest is {newest}")


def _check_size(path: Path, tensor: onnx.TensorProto) -> None:
    """Refuse more data than the shape asks for; the checker only refuses less."""
    try:
        given, needed = len(tensor.raw_data), ir.TensorProtoTensor(tensor).nbytes
    except (TypeError, ValueError) as unknown:
        raise SourceError(path, f"'{tensor.name}' has unknown data type {tensor.data_type}") from unknown
    if given != needed:
        raise SourceError(path, f"'{tensor.name}' has {given} bytes, its shape needs {needed}")


def _emptied(proto: onnx.ModelProto, weights: Collection[str]) -> onnx.ModelProto:
    """A model that the checker does not miss the named weights in: they are tensors of length 0."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.dims[:] = [0]
    return copy


def _one_line(failure: BaseException) -> str:
    return " ".join(str(failure).split())[:400]


def _opset(proto: onnx.ModelProto) -> int:
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)


def _downgraded(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model at an opset that onnxruntime loads."""
    try:
        return onnx.version_converter.convert_version(proto, MAX_OPSET)
    except Exception as failure:
        detail = f"opset {_opset(proto)} is newer than onnxruntime's {MAX_OPSET} and has no way back"
        raise SourceError(path, f"{detail}: {_one_line(failure)}") from failure


def _runnable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, changed so that onnxruntime does not choke on it."""
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
    for tensor in _tensors_of(proto.graph):
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


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor, those of sparse ones and of functions included."""
    yield from _tensors_of(proto.graph)
    for function in proto.functions:
        yield from _tensors_in(function.node)


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_in(graph.node)


def _tensors_in(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors_of(inner)
