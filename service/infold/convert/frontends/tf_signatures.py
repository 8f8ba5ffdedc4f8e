"""TensorFlow 2 SavedModels: one signature, frozen for inference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from infold.convert.frontends.tf_frozen import Frozen, node_of, subgraph
from infold.convert.frontends.tf_pinning import pin
from infold.errors import SourceError

__all__ = ["Loaded", "Signature", "freeze_signature", "load", "variable_paths"]

DEFAULT_SIGNATURE = "serving_default"
DEFAULT_TAG = "serve"
# Children of every saved Keras model, which say nothing of layers.
LISTS = ("variables", "trainable_variables", "non_trainable_variables", "_all_variables", "signatures")
FLAG_NAMES = ("training", "is_training", "train", "phase_train")


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A SavedModel in memory.

    Attributes:
        path: Where it came from.
        root: What `tf.saved_model.load` gives.
    """

    path: Path
    root: Any


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """One signature of a SavedModel.

    Attributes:
        name: Its key.
        call: Takes its arguments by name, training flags left out; gives its outputs by name.
        frozen: Its graph for inference.
        flags: Arguments that switch to training, held at False.
    """

    name: str
    call: Any
    frozen: Frozen
    flags: tuple[str, ...]


def load(path: Path, tag: str | None = None) -> Loaded:
    """Load a TensorFlow 2 SavedModel.

    Raises:
        SourceError: It cannot be loaded, or has no such tag.
    """
    try:
        root = tf.saved_model.load(str(path), tags=None if tag is None else [tag])
    except Exception as failure:
        words = " ".join(str(failure).split())[:300]
        raise SourceError(path, f"cannot be loaded as a SavedModel: {words}") from failure
    return Loaded(path, root)


def freeze_signature(loaded: Loaded, name: str | None = None, flag: str | None = None) -> Signature:
    """One signature as a graph of constants, training flags held at False.

    Args:
        loaded: The SavedModel.
        name: Which signature; None where it needs no asking.
        flag: An argument that switches to training, where its name does not tell.

    Raises:
        SourceError: There is no such signature, or several and none named.
    """
    name = _chosen(loaded, name)
    function = loaded.root.signatures[name]
    specs: dict[str, Any] = function.structured_input_signature[1]
    flags = tuple(each for each, spec in specs.items() if _is_flag(each, spec, flag))
    inputs = [each for each in specs if each not in flags]
    outputs = list(function.structured_outputs)
    off = {each: tf.constant(False) for each in flags}

    def call(**tensors: Any) -> Any:
        return function(**tensors, **off)

    def inference(*tensors: Any) -> Any:
        results = call(**dict(zip(inputs, tensors, strict=True)))
        return [tf.identity(results[each]) for each in outputs]

    concrete = tf.function(inference).get_concrete_function(
        *(tf.TensorSpec(specs[each].shape, specs[each].dtype, each) for each in inputs)
    )
    handles = {id(each.handle): each.name.removesuffix(":0") for each in concrete.graph.variables}
    variables = {
        inner.op.name: handles[id(outer)] for outer, inner in concrete.graph.captures if id(outer) in handles
    }
    constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True)
    taken = [tensor.name for tensor in constant.inputs if tensor.dtype != tf.resource]
    given = [tensor.name for tensor in constant.outputs]
    # Calls of compiled functions are left by TensorFlow, and branches on a held flag.
    graph = subgraph(pin(constant.graph.as_graph_def(), {}), [*taken, *given])
    trainable = frozenset(each.name.removesuffix(":0") for each in concrete.graph.variables if each.trainable)
    frozen = Frozen(
        graph,
        dict(zip(inputs, taken, strict=True)),
        dict(zip(outputs, given, strict=True)),
        {node_of(node): variable for node, variable in variables.items()},
        trainable,
    )
    return Signature(name, call, frozen, flags)


def variable_paths(loaded: Loaded) -> dict[str, str]:
    """Where each variable lives in the user's objects (`block/bn/mean`), by its own name.

    A module that names its variables carelessly still names its attributes well.
    """
    found: dict[str, str] = {}
    seen = {id(loaded.root)}
    waiting: list[tuple[str, Any]] = [("", loaded.root)]
    for path, thing in waiting:
        for name, child in tf.train.TrackableView.children(thing).items():
            if id(child) in seen or name in LISTS:
                continue
            seen.add(id(child))
            below = f"{path}/{name}" if path else name
            if isinstance(child, tf.Variable):
                found.setdefault(child.name.removesuffix(":0"), below)
            else:
                waiting.append((below, child))
    return found


def _chosen(loaded: Loaded, name: str | None) -> str:
    names: list[str] = sorted(loaded.root.signatures)
    listed = ", ".join(names)
    if name is not None:
        if name not in names:
            raise SourceError(loaded.path, f"has no signature '{name}'; it has {listed or 'none at all'}")
        return name
    if DEFAULT_SIGNATURE in names:
        return DEFAULT_SIGNATURE
    if not names:
        raise SourceError(
            loaded.path,
            "has no signature; save it with model.export(PATH) or "
            "tf.saved_model.save(module, PATH, signatures=...)",
        )
    if len(names) > 1:
        raise SourceError(loaded.path, f"has several signatures; name one with --signature: {listed}")
    return names[0]


def _is_flag(name: str, spec: Any, flag: str | None) -> bool:
    if spec.dtype != tf.bool or spec.shape.rank not in (0, None):
        return False
    return name == flag if flag is not None else name in FLAG_NAMES
