"""The table of a frozen TensorFlow graph's norms: parameters, and the user's own names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from infold.convert.frontends.exported import Convention, Norm
from infold.convert.frontends.tf_forms import Live, Search, Use
from infold.convert.frontends.tf_frozen import Frozen, node_of
from infold.fold.affine import F64
from infold.tensors import Array

__all__ = ["Found", "fetch", "find_norms"]

# Parts of a name that are the exporter's, not the user's.
CALL = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?|inference|Func)$")
INNER = re.compile(r"^(batchnorm|batch_norm|cond(_\d+)?(_true|_false)?|moments|FusedBatchNorm(V\d)?(_\d+)?)$")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """All norms of a graph.

    Attributes:
        norms: One a layer.
        uses: Index of a norm and the tensor with its result, in the order of execution.
        live: Layers that normalize by batch statistics, and whether by a fused operator.
        statistics: Variable names of moving mean and variance, a pair a norm; None where constant.
    """

    norms: tuple[Norm, ...]
    uses: tuple[tuple[int, str], ...]
    live: tuple[tuple[str, bool], ...]
    statistics: tuple[tuple[str | None, str | None], ...] = field(default=())


def find_norms(frozen: Frozen) -> Found:
    """Find every batch normalization of a graph."""
    search = Search(frozen)
    uses = search.uses()
    constants = fetch(
        frozen.graph,
        sorted(_parameters(uses, search.live)),
        {},
    )
    layers: dict[tuple[str, ...], int] = {}
    norms: list[Norm] = []
    calls: list[tuple[int, str]] = []
    statistics: list[tuple[str | None, str | None]] = []
    taken: set[str] = set()
    for use in uses:
        held = {"variance": use.variance, "mean": use.mean, "gamma": use.gamma, "beta": use.beta}
        sources = _sources(search, held)
        key = tuple(f"{role}={source}" for role, source in sources.items())
        if key not in layers:
            layer = _layer(search, use.end, sources)
            if layer in taken:
                layer = _scope(use.end) or layer
            unique, number = layer, 1
            while unique in taken:
                number += 1
                unique = f"{layer}_{number}"
            taken.add(unique)
            layers[key] = len(norms)
            norms.append(_norm(unique, use, constants, _is_trained(frozen, sources)))
            kept = [frozen.variables.get(sources[role]) for role in ("mean", "variance")]
            statistics.append((kept[0], kept[1]))
        calls.append((layers[key], use.end))
    live = []
    for each in search.live:
        layer = _layer(search, each.end, _sources(search, {"gamma": each.gamma, "beta": each.beta}))
        live.append((layer, each.fused))
        if not each.fused and layer not in taken:
            taken.add(layer)
            norms.append(_live_norm(layer, each, search, constants))
            statistics.append((None, None))
    return Found(tuple(norms), tuple(calls), tuple(live), tuple(statistics))


def _parameters(uses: Iterable[Use], live: Iterable[Live]) -> set[str]:
    held = [tensor for use in uses for tensor in (use.gamma, use.beta, use.mean, use.variance)]
    held += [tensor for each in live for tensor in (each.gamma, each.beta)]
    return {tensor for tensor in held if tensor is not None}


def _sources(search: Search, parameters: Mapping[str, str | None]) -> dict[str, str]:
    """Nodes that parameters come from, by role."""
    return {role: search.source(tensor) for role, tensor in parameters.items() if tensor is not None}


def fetch(graph: Any, tensors: Iterable[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Values of tensors, computed by TensorFlow without rewriting the graph."""
    tensors = list(tensors)
    if not tensors:
        return {}
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session(graph=imported, config=config) as session:
            whole = [each if ":" in each else f"{each}:0" for each in tensors]  # else the node is meant
            return dict(zip(tensors, session.run(whole, dict(feeds)), strict=True))


def _norm(layer: str, use: Use, constants: Mapping[str, Array], trainable: bool | None) -> Norm:
    variance = _vector(constants[use.variance])
    size = variance.size

    def values(tensor: str | None, default: float) -> F64:
        vector = np.full(size, default) if tensor is None else _vector(constants[tensor])
        return np.broadcast_to(vector, (size,)).copy()

    return Norm(
        layer=layer,
        kind=use.kind,
        axis=use.axis,
        epsilon=use.epsilon,
        momentum=None,
        convention=Convention.OF_THE_OLD,
        trainable=trainable,
        gamma=values(use.gamma, 1.0),
        beta=values(use.beta, 0.0),
        mean=values(use.mean, 0.0),
        variance=variance,
    )


def _live_norm(layer: str, live: Live, search: Search, constants: Mapping[str, Array]) -> Norm:
    """A norm that keeps no statistics, as far as the graph shows it."""
    vectors = {t: _vector(constants[t]) for t in (live.gamma, live.beta) if t is not None}
    shape = search.shapes[live.end]
    counted = int(np.prod([length or 1 for length in shape.as_list()])) if shape.rank else 1
    size = max([vector.size for vector in vectors.values()] or [counted])
    gamma, beta = (vectors.get(each or "") for each in (live.gamma, live.beta))
    return Norm(
        layer=layer,
        kind=live.kind,
        axis=-1,
        epsilon=live.epsilon,
        momentum=None,
        convention=Convention.OF_THE_OLD,
        trainable=None,
        gamma=np.ones(size) if gamma is None else gamma,
        beta=np.zeros(size) if beta is None else beta,
        mean=None,
        variance=None,
    )


def _vector(array: Array) -> F64:
    return np.asarray(array, np.float64).reshape(-1)


def _is_trained(frozen: Frozen, sources: Mapping[str, str]) -> bool | None:
    if frozen.trainable is None:
        return None
    names = [frozen.variables.get(sources[role]) for role in ("gamma", "beta") if role in sources]
    known = [name in frozen.trainable for name in names if name is not None]
    return any(known) if known else None


# -- names ----------------------------------------------------------------------------------------


def _layer(search: Search, end: str, sources: Mapping[str, str]) -> str:
    """The user's own name of a norm: that of its variables' scope, else of its node's."""
    for source in sources.values():
        name = search.frozen.variables.get(source, source)
        if "/" in name and not CALL.match(name.partition("/")[0]):
            scope = _without_inner(name.split("/")[:-1])
            if scope:
                return scope
    return _scope(end) or node_of(end)


def _scope(tensor: str) -> str:
    parts = node_of(tensor).split("/")
    while parts and CALL.match(parts[0]):
        parts = parts[1:]
    return _without_inner(parts[:-1])


def _without_inner(parts: list[str]) -> str:
    while parts and INNER.match(parts[-1]):
        parts = parts[:-1]
    return "/".join(parts)
