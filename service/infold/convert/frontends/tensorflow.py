"""TensorFlow models: SavedModels of both generations, frozen graphs and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

from infold.convert.frontends.exported import Answer, Call, Exported, Norm, Request
from infold.convert.frontends.formats import Format
from infold.convert.frontends.tf_export import convert
from infold.convert.frontends.tf_frozen import Frozen
from infold.convert.frontends.tf_graphs import (
    Graph,
    freeze,
    read_checkpoint,
    read_graph_def,
    read_saved_model,
    saved_model_proto,
)
from infold.convert.frontends.tf_interface import find_flags, find_inputs, find_outputs
from infold.convert.frontends.tf_norms import Found, fetch, find_norms
from infold.convert.frontends.tf_pinning import pin
from infold.convert.frontends.tf_signatures import freeze_signature, load
from infold.convert.frontends.tf_updates import momenta
from infold.convert.samples import draw_samples, signature_of
from infold.errors import SamplesError, SourceError
from infold.tensors import Array, Tensors

__all__ = ["open_model"]

FRAMEWORK = f"tensorflow {tf.__version__}, tf2onnx {tf2onnx.__version__}"


def open_model(request: Request) -> Exported:
    """Export a TensorFlow model for inference, every norm left in the graph.

    Raises:
        SourceError: The source cannot be used; says what to do.
    """
    if request.format is Format.SAVED_MODEL:
        path = Path(request.source)
        if _is_object_based(saved_model_proto(path)):
            return _open_signature(request, path)
        return _open_graph(request, read_saved_model(path, request.options))
    if request.format is Format.CHECKPOINT:
        return _open_graph(request, read_checkpoint(request.source))
    if Path(request.source).name in ("saved_model.pb", "saved_model.pbtxt"):
        folder = Path(request.source).parent
        return open_model(replace(request, source=str(folder), format=Format.SAVED_MODEL))
    return _open_graph(request, read_graph_def(request.source))


def _is_object_based(found: Any) -> bool:
    """TensorFlow 2 saves the objects too, and one graph only."""
    return len(found.meta_graphs) == 1 and bool(found.meta_graphs[0].HasField("object_graph_def"))


# -- TensorFlow 2 ---------------------------------------------------------------------------------


def _open_signature(request: Request, path: Path) -> Exported:
    loaded = load(path, request.options.tag)
    signature = freeze_signature(loaded, request.options.signature, request.options.training_flag)
    frozen = signature.frozen
    found = find_norms(frozen)
    _require_inference(request.source, found)
    notes = [
        f"argument '{flag}' of signature '{signature.name}' was held at False: exported for inference"
        for flag in signature.flags
    ]

    def run(samples: Tensors) -> Answer:
        given = {name: tf.constant(array) for name, array in samples.items()}
        results = signature.call(**given)
        outputs = {name: np.asarray(results[name]) for name in frozen.outputs}
        return Answer(outputs, _calls(frozen, found, samples))

    proto = convert(frozen, path)
    return Exported(FRAMEWORK, proto, found.norms, run, (*notes, *_notes(found, proto)))


# -- TensorFlow 1 ---------------------------------------------------------------------------------


def _open_graph(request: Request, given: Graph) -> Exported:
    options = request.options
    flags = find_flags(given, options.training_flag)
    off = dict.fromkeys(flags, False)
    pinned = pin(given.graph, off)
    outputs = find_outputs(given, pinned, options)
    _require_present(given, pinned, outputs.values())
    inputs = find_inputs(given, pinned, outputs.values(), options)
    inputs, outputs = _distinct(inputs, outputs)
    frozen = freeze(given, pinned, inputs, outputs)
    found = find_norms(frozen)
    _require_inference(given.source, found)
    norms = _with_momentum(found, momenta(given.graph, flags))
    notes = [
        f"placeholder '{flag}' was held at False and what it switches on in training was left out"
        for flag in flags
    ]
    proto = convert(frozen, given.source)

    def run(samples: Tensors) -> Answer:
        feeds = {inputs[name]: array for name, array in samples.items()}
        return Answer(_original(given, feeds, off, outputs), _calls(frozen, found, samples))

    def run_pinned(samples: Tensors) -> Answer:
        values = fetch(frozen.graph, frozen.outputs.values(), _fed(frozen, samples))
        results = {name: values[tensor] for name, tensor in frozen.outputs.items()}
        return Answer(results, _calls(frozen, found, samples))

    is_broken = request.format is Format.GRAPH_DEF and flags and not _runs(run, proto, request)
    if is_broken:
        notes.append(
            "TensorFlow itself cannot run this graph because of its training branch; "
            "the proof is against the graph without that branch"
        )
    return Exported(
        FRAMEWORK, proto, norms, run_pinned if is_broken else run, (*notes, *_notes(found, proto))
    )


def _original(
    given: Graph, feeds: Mapping[str, Array], flags: Mapping[str, bool], outputs: Mapping[str, str]
) -> dict[str, Array]:
    """What the user's own graph computes, its flags fed with False."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        given.open(session)
        fed = {**feeds, **{f"{name}:0": value for name, value in flags.items()}}
        values = session.run(list(outputs.values()), fed)
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}


def _runs(run: Callable[[Tensors], Answer], proto: onnx.ModelProto, request: Request) -> bool:
    """TensorFlow runs the original; it refuses some frozen graphs for their dead branches."""
    try:
        run(draw_samples(signature_of(proto), request.shapes))
    except SamplesError:
        return True  # whoever has samples will see
    except (ValueError, tf.errors.OpError):
        return False
    return True


def _require_present(given: Graph, pinned: Any, tensors: Iterable[str]) -> None:
    """Outputs that only training computes are gone once the flag is pinned."""
    left = {node.name for node in pinned.node}
    for tensor in tensors:
        if tensor.partition(":")[0] not in left:
            raise SourceError(
                given.source, f"output '{tensor}' is computed in training only; name another with --outputs"
            )


def _distinct(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """ONNX has one name for one value: an output called like an input gets another."""
    renamed = {f"{name}_output" if name in inputs else name: each for name, each in outputs.items()}
    return dict(inputs), renamed


def _with_momentum(found: Found, kept: Mapping[str, float]) -> tuple[Norm, ...]:
    norms = []
    for norm, (mean, variance) in zip(found.norms, found.statistics, strict=True):
        momentum = kept.get(mean or "", kept.get(variance or ""))
        norms.append(norm if momentum is None else replace(norm, momentum=momentum))
    return tuple(norms)


# -- both -----------------------------------------------------------------------------------------


def _calls(frozen: Frozen, found: Found, samples: Tensors) -> tuple[Call, ...]:
    values = fetch(frozen.graph, {end for _, end in found.uses}, _fed(frozen, samples))
    return tuple(Call(norm, values[end]) for norm, end in found.uses)


def _fed(frozen: Frozen, samples: Tensors) -> dict[str, Array]:
    return {frozen.inputs[name]: array for name, array in samples.items()}


def _require_inference(source: str, found: Found) -> None:
    names = [layer for layer, is_fused in found.live if is_fused]
    if names:
        raise SourceError(
            source,
            f"is a graph for training: {', '.join(names[:3])} normalizes by batch statistics "
            "(is_training=True); build it with is_training=False, or a flag, and save it again",
        )


def _notes(found: Found, proto: onnx.ModelProto) -> list[str]:
    live = [
        f"{layer} normalizes by the statistics of each batch, also in inference, and cannot be folded; "
        "save the model with training=False"
        for layer, _ in found.live
    ]
    fixed = [
        f"input '{spec.name}' has a fixed batch of {spec.shape[0]}: the exported model takes no other; "
        "save the model with None as its first dimension for an open batch"
        for spec in signature_of(proto).inputs
        if spec.shape and isinstance(spec.shape[0], int)
    ]
    return [*live, *fixed]
