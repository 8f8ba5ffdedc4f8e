"""TensorFlow 2 SavedModels: one signature, frozen for inference."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from infold.convert.frontends.tf_frozen import Frozen, GraphDef, make_constant, subgraph
from infold.convert.frontends.tf_pinning import pin
from infold.errors import SourceError

__all__ = ["Loaded", "Signature", "freeze_signature", "load"]

DEFAULT_SIGNATURE = "serving_default"
DEFAULT_TAG = "serve"
# Children of every saved Keras model, which say nothing of layers.
LISTS = ("variables", "trainable_variables", "non_trainable_variables", "_all_variables", "signatures")
AUTOMATIC = re.compile(r"sequential(_\d+)?")
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
    inputs = sorted((each for each in specs if each not in flags), key=_numbers_last)
    outputs = sorted(function.structured_outputs, key=_numbers_last)

    def call(**tensors: Any) -> Any:
        return function(**tensors, **{each: tf.constant(False) for each in flags})

    def inference(*tensors: Any) -> Any:
        results = call(**dict(zip(inputs, tensors, strict=True)))
        return [tf.identity(results[each]) for each in outputs]

    concrete = tf.function(inference).get_concrete_function(
        *(tf.TensorSpec(specs[each].shape, specs[each].dtype, each) for each in inputs)
    )
    names = _variable_names(loaded, concrete)
    variables = {
        inner.op.name: names[id(outer)] for outer, inner in concrete.graph.captures if id(outer) in names
    }
    captured = {id(inner) for _, inner in concrete.graph.captures}
    taken = [tensor.name for tensor in concrete.inputs if id(tensor) not in captured]
    given = [tensor.name for tensor in concrete.outputs]
    graph = subgraph(_constants_for_variables(concrete), [*taken, *given])
    # Keras lists what is trainable; of single variables only plain modules say so.
    listed = getattr(loaded.root, "trainable_variables", concrete.graph.variables)
    trainable = frozenset(
        names[id(each.handle)] for each in listed if each.trainable and id(each.handle) in names
    )
    frozen = Frozen(
        graph,
        dict(zip(inputs, taken, strict=True)),
        dict(zip(outputs, given, strict=True)),
        variables,
        trainable,
    )
    return Signature(name, call, frozen, flags)


def _constants_for_variables(concrete: Any) -> GraphDef:
    """The graph of a function with its calls expanded and its variables constant."""
    try:
        constant = convert_variables_to_constants_v2(
            concrete, lower_control_flow=False, aggressive_inlining=True
        )
    except ValueError:  # it stumbles over updates of variables, which inference does not need
        ends = [tensor.name for tensor in concrete.outputs]
        graph = subgraph(pin(concrete.graph.as_graph_def(), {}), ends)
        values = {id(each.handle): each.numpy() for each in concrete.graph.variables}
        held = {i.op.name: values[id(o)] for o, i in concrete.graph.captures if id(o) in values}
        make_constant(graph, held)
        return graph
    # TensorFlow leaves calls of compiled functions, and branches on a flag that is held.
    return pin(constant.graph.as_graph_def(), {})


def _variable_names(loaded: Loaded, concrete: Any) -> dict[int, str]:
    """A name of its own for each variable, by the identity of its handle.

    Keras names variables after their layers. Plain modules often leave all of them called
    "Variable": then the path through the user's objects (`block/bn/mean`) is the better name.
    """
    paths = _paths(loaded)
    own = {id(each.handle): str(each.name).removesuffix(":0") for each in concrete.graph.variables}
    model = {name.partition("/")[0] for name in own.values()}
    if len(model) == 1 and AUTOMATIC.fullmatch(next(iter(model))):  # a name that nobody gave
        own = {handle: name.partition("/")[2] for handle, name in own.items()}
    counts = Counter(own.values())
    names: dict[int, str] = {}
    for index, (handle, name) in enumerate(own.items()):
        is_telling = counts[name] == 1 and "/" in name
        names[handle] = name if is_telling else paths.get(handle, f"{name}_{index}")
    return names


def _paths(loaded: Loaded) -> dict[int, str]:
    """Where each variable lives in the user's objects, by the identity of its handle."""
    found: dict[int, str] = {}
    seen = {id(loaded.root)}
    waiting: list[tuple[str, Any]] = [("", loaded.root)]
    for path, thing in waiting:
        for name, child in tf.train.TrackableView.children(thing).items():
            if id(child) in seen or name in LISTS:
                continue
            seen.add(id(child))
            below = f"{path}/{name}" if path else name
            if isinstance(child, tf.Variable):
                found[id(child.handle)] = below
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


def _numbers_last(name: str) -> tuple[str, int]:
    """Sorts `output_2` before `output_10`; a SavedModel keeps no order of its own."""
    digits = re.search(r"\d*$", name)
    assert digits is not None
    return name[: digits.start()], int(digits.group() or -1)
