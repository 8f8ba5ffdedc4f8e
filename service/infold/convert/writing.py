"""Writes a folded model so that nothing but the folding has changed."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from infold import __version__
from infold.convert import wire
from infold.convert.frontends.onnx import Source

__all__ = ["Written", "folded_proto", "write_model"]

# A protobuf ends at 2 GB; above this, weights go to a file of their own.
INLINE_LIMIT_BYTES = 1_500_000_000

# Tensors that can be written without protobuf's help: those in memory and those computed on demand.
Plain = ir.Tensor[Any] | ir.LazyTensor


class Written:
    """A file whose digest is taken while it is written."""

    def __init__(self, file: BinaryIO, outside: Path | None) -> None:
        """Write to `file`; `outside` names the file that holds its external data."""
        self._file, self._outside = file, outside
        self._digest = sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Write these bytes."""
        self._digest.update(data)
        self._file.write(data)

    def sha256(self) -> str:
        """Digest of the file, and of the external data after it."""
        digest = self._digest.copy()
        if self._outside is not None:
            with self._outside.open("rb") as content:
                for block in iter(lambda: content.read(2**22), b""):
                    digest.update(block)
        return digest.hexdigest()


def write_model(source: Source, folded: ir.Model, outcome: str, target: Path) -> Written:
    """Write the folded model.

    Inputs, outputs and stated shapes are those of the source; what was inferred to help
    folding is left out. Weights are computed as they are written, block by block; above
    1.5 GB in all they go to `<target>.data`.

    Args:
        source: What was folded.
        folded: The result.
        outcome: Verdict for the model's metadata.
        target: The file to write.
    """
    _label(source, folded, outcome)
    weights: dict[str, Plain] = {}
    outside = None
    if _weight_bytes(folded) > INLINE_LIMIT_BYTES:
        outside = target.with_name(f"{target.name}.data")
        ir.save(folded, target, external_data=outside.name)
        proto = onnx.load(str(target), load_external_data=False)
    else:
        proto, weights = _apart(folded)
    _restore(proto, source.proto)
    with target.open("wb") as file:
        written = Written(file, outside)
        wire.write(proto, weights, written)
    return written


def folded_proto(source: Source, folded: ir.Model, outcome: str) -> onnx.ModelProto:
    """What `write_model` would write, in memory."""
    _label(source, folded, outcome)
    proto, weights = _apart(folded)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = weights[tensor.name].tobytes()
    _restore(proto, source.proto)
    return proto


def _label(source: Source, folded: ir.Model, outcome: str) -> None:
    folded.metadata_props["infold.version"] = __version__
    folded.metadata_props["infold.source_sha256"] = source.sha256
    folded.metadata_props["infold.verdict"] = outcome
    folded.producer_name = folded.producer_name or "infold"


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _apart(folded: ir.Model) -> tuple[onnx.ModelProto, dict[str, Plain]]:
    """The model without its large weights, and these; nothing stays outside."""
    ir.external_data.load_to_model(folded)
    weights: dict[str, Plain] = {}
    for name, value in folded.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, (ir.Tensor, ir.LazyTensor)) and tensor.nbytes >= wire.LARGE_BYTES:
            weights[name] = tensor
    try:
        for name, tensor in weights.items():
            folded.graph.initializers[name].const_value = _hollow(tensor)
        return ir.to_proto(folded), weights
    finally:
        for name, tensor in weights.items():
            folded.graph.initializers[name].const_value = tensor


def _hollow(tensor: Plain) -> ir.LazyTensor:
    """A tensor as it is declared, without its data."""
    nothing = ir.Tensor(np.empty(0, tensor.dtype.numpy()), tensor.dtype)
    return ir.LazyTensor(
        lambda: nothing,
        tensor.dtype,
        tensor.shape,
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
    )


def _restore(proto: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Give the folded model the interface and the stated shapes of its source."""
    _restore_interface(proto, source)
    _forget_inferred_shapes(proto, source)


def _restore_interface(proto: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Graph inputs and outputs exactly as they were, symbols included.

    Inputs that were nothing but initializers (IR 3) may be gone.
    """
    still = {value.name for value in proto.graph.input}
    inputs = [value for value in source.graph.input if value.name in still]
    for ours, theirs in ((proto.graph.input, inputs), (proto.graph.output, source.graph.output)):
        del ours[:]
        ours.extend(theirs)


def _forget_inferred_shapes(proto: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Shapes were inferred to help folding; only those the source stated are written."""
    stated = {value.name for value in source.graph.value_info}
    kept = [value for value in proto.graph.value_info if value.name in stated]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
