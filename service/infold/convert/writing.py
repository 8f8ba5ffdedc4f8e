"""Writes a folded model so that nothing but the folding has changed."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from infold import __version__
from infold.convert.frontends.onnx import Source

__all__ = ["write_model"]

# A protobuf ends at 2 GB; above this, weights go to a file of their own.
INLINE_LIMIT_BYTES = 1_500_000_000


def write_model(source: Source, folded: ir.Model, outcome: str, target: Path | None) -> onnx.ModelProto:
    """Write the folded model, and return it with external data still outside.

    Inputs, outputs and stated shapes are those of the source; what was inferred to help
    folding is left out. Weights above 1.5 GB in all go to `<target>.data`, block by block.

    Args:
        source: What was folded.
        folded: The result.
        outcome: Verdict for the model's metadata.
        target: The file to write; None writes nothing.
    """
    folded.metadata_props["infold.version"] = __version__
    folded.metadata_props["infold.source_sha256"] = source.sha256
    folded.metadata_props["infold.verdict"] = outcome
    folded.producer_name = folded.producer_name or "infold"
    if target is not None and _weight_bytes(folded) > INLINE_LIMIT_BYTES:
        ir.save(folded, target, external_data=f"{target.name}.data")
        proto = onnx.load(str(target), load_external_data=False)
    else:
        ir.external_data.load_to_model(folded)
        proto = ir.to_proto(folded)
    _restore_interface(proto, source.proto)
    _forget_inferred_shapes(proto, source.proto)
    if target is not None:
        target.write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


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
