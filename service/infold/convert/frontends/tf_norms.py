"""Batch normalizations of a frozen TensorFlow graph: fused ones, and those written out by hand.

Nothing in a graph says "layer": a norm is found by its form, from the root of its variance
outward, and named after its variables.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from infold.convert.frontends.exported import Convention, Norm
from infold.convert.frontends.tf_frozen import Frozen, node_of
from infold.fold.affine import F64
from infold.tensors import Array

__all__ = ["BatchStatistics", "Found", "Use", "fetch", "find_norms"]

FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
ADDS = ("Add", "AddV2", "BiasAdd")
DIVISIONS = ("RealDiv", "Div")
ROOTS = ("Rsqrt", "Sqrt", "Pow")
RELABELLING = (
    "Identity",
    "Reshape",
    "ExpandDims",
    "Squeeze",
    "Cast",
    "BroadcastTo",
    "StopGradient",
    "Snapshot",
)
SOURCES = ("Placeholder", "PlaceholderWithDefault")
# Parts of a name that are the exporter's, not the user's.
CALL = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?|inference|Func)$")
INNER = re.compile(r"^(batchnorm|batch_norm|cond(_\d+)?(_true|_false)?|moments|FusedBatchNorm(V\d)?(_\d+)?)$")


@dataclass(slots=True, eq=False)
class Use:
    """One place where a norm is applied.

    Attributes:
        end: Tensor that holds its result.
        axis: Of its channels.
        kind: The op, or `batch_normalization` where it is written out.
        gamma, beta, mean, variance: Tensor names; None where there is none.
        epsilon: Attribute or constant.
    """

    end: str
    axis: int
    kind: str
    epsilon: float
    variance: str
    mean: str
    gamma: str | None = None
    beta: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BatchStatistics:
    """A norm that normalizes by what it is given, also in inference.

    Attributes:
        node: Its node, in the user's words.
        fused: It is a fused operator in training mode.
    """

    node: str
    fused: bool


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """All norms of a graph.

    Attributes:
        norms: One a layer.
        uses: Index of a norm and the tensor with its result, in the order of execution.
        live: Norms over batch statistics, which are no affine.
        statistics: Variable names of moving mean and variance, a pair a norm; None where constant.
    """

    norms: tuple[Norm, ...]
    uses: tuple[tuple[int, str], ...]
    live: tuple[BatchStatistics, ...]
    statistics: tuple[tuple[str | None, str | None], ...] = field(default=())


def find_norms(frozen: Frozen) -> Found:
    """Find every batch normalization of a graph."""
    search = _Search(frozen)
    uses = search.uses()
    constants = fetch(
        frozen.graph,
        sorted({t for use in uses for t in (use.gamma, use.beta, use.mean, use.variance) if t}),
        {},
    )
    layers: dict[tuple[str, ...], int] = {}
    norms: list[Norm] = []
    calls: list[tuple[int, str]] = []
    statistics: list[tuple[str | None, str | None]] = []
    taken: set[str] = set()
    for use in uses:
        sources = {
            role: search.source(tensor)
            for role, tensor in (
                ("variance", use.variance),
                ("mean", use.mean),
                ("gamma", use.gamma),
                ("beta", use.beta),
            )
            if tensor is not None
        }
        key = tuple(f"{role}={source}" for role, source in sources.items())
        if key not in layers:
            layer = _layer(search, use, sources)
            if layer in taken:
                layer = _scope(use.end) or layer
            unique, number = layer, 1
            while unique in taken:
                number += 1
                unique = f"{layer}_{number}"
            taken.add(unique)
            layers[key] = len(norms)
            norms.append(_norm(unique, use, constants, _is_trained(frozen, sources)))
            held = [frozen.variables.get(sources[role]) for role in ("mean", "variance")]
            statistics.append((held[0], held[1]))
        calls.append((layers[key], use.end))
    return Found(tuple(norms), tuple(calls), tuple(search.live), tuple(statistics))


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


def _vector(array: Array) -> F64:
    return np.asarray(array, np.float64).reshape(-1)


def _is_trained(frozen: Frozen, sources: Mapping[str, str]) -> bool | None:
    if frozen.trainable is None:
        return None
    names = [frozen.variables.get(sources[role]) for role in ("gamma", "beta") if role in sources]
    known = [name in frozen.trainable for name in names if name is not None]
    return any(known) if known else None


# -- names ----------------------------------------------------------------------------------------


def _layer(search: _Search, use: Use, sources: Mapping[str, str]) -> str:
    """The user's own name of a norm: that of its variables' scope, else of its node's."""
    for source in sources.values():
        name = search.frozen.variables.get(source, source)
        if "/" in name and not CALL.match(name.partition("/")[0]):
            scope = _without_inner(name.split("/")[:-1])
            if scope:
                return scope
    return _scope(use.end) or node_of(use.end)


def _scope(tensor: str) -> str:
    parts = node_of(tensor).split("/")
    while parts and CALL.match(parts[0]):
        parts = parts[1:]
    return _without_inner(parts[:-1])


def _without_inner(parts: list[str]) -> str:
    while parts and INNER.match(parts[-1]):
        parts = parts[:-1]
    return "/".join(parts)


# -- search ---------------------------------------------------------------------------------------


class _Search:
    """Walks over one graph."""

    def __init__(self, frozen: Frozen) -> None:
        self.frozen = frozen
        self.nodes = {node.name: node for node in frozen.graph.node}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in frozen.graph.node:
            for each in node.input:
                self.readers[_plain(each)].append(node)
        self.order = _topological(self.nodes)
        self.constant = self._constants()
        self.live: list[BatchStatistics] = []
        with tf.Graph().as_default() as imported:
            tf.import_graph_def(frozen.graph, name="")
            self.shapes = {each.name: each.shape for op in imported.get_operations() for each in op.outputs}

    def _constants(self) -> set[str]:
        """Nodes computed from constants alone."""
        constant: set[str] = set()
        for name in self.order:
            node = self.nodes[name]
            if node.op in SOURCES or node.op.startswith("Random"):
                continue
            if node.op == "Const" or (node.input and all(node_of(each) in constant for each in node.input)):
                constant.add(name)
        return constant

    def uses(self) -> list[Use]:
        """All norms in the order of execution."""
        found: list[Use] = []
        for name in self.order:
            node = self.nodes[name]
            if node.op in FUSED:
                use = self._fused(node)
                found += [use] if use is not None else []
            elif node.op in ROOTS:
                found += self._written_out(node)
        place = {name: index for index, name in enumerate(self.order)}
        unique = {use.end: use for use in found}
        return sorted(unique.values(), key=lambda use: place[node_of(use.end)])

    def source(self, tensor: str) -> str:
        """Node that a constant comes from, relabelling undone."""
        name = node_of(tensor)
        while self.nodes[name].op in RELABELLING:
            name = node_of(self.nodes[name].input[0])
        return name

    def is_constant(self, tensor: str) -> bool:
        return node_of(tensor) in self.constant

    def _fused(self, node: Any) -> Use | None:
        scale, offset, mean, variance = node.input[1:5]
        if node.attr["is_training"].b or not (self.is_constant(mean) and self.is_constant(variance)):
            self.live.append(BatchStatistics(_scope(node.name) or node.name, node.attr["is_training"].b))
            return None
        first = node.attr["data_format"].s.startswith(b"NC")
        rank = self.shapes[f"{node.name}:0"].rank or 4
        return Use(
            end=f"{node.name}:0",
            axis=1 if first else rank - 1,
            kind=node.op,
            epsilon=_shortest(node.attr["epsilon"].f),
            variance=variance,
            mean=mean,
            gamma=scale if self.is_constant(scale) else None,
            beta=offset if self.is_constant(offset) else None,
        )

    def _written_out(self, root: Any) -> list[Use]:
        """Norms that divide by this root."""
        inner = self._root_of(root)
        if inner is None:
            return []
        variance, epsilon = inner
        if not self.is_constant(variance):
            if self._is_batch_moment(variance):
                self.live.append(BatchStatistics(_scope(root.name) or root.name, fused=False))
            return []
        made = self._made_of(root.name)
        uses = []
        for tensor in sorted(made):
            for reader in self.readers[tensor]:
                if reader.name in self.constant or reader.op not in ("Mul", *DIVISIONS):
                    continue
                use = self._from_factor(reader, tensor, root, made)
                if use is not None:
                    end, gamma, beta, mean = use
                    axis = self._axis(end, tensor)
                    uses.append(Use(end, axis, "batch_normalization", epsilon, variance, mean, gamma, beta))
        return uses

    def _root_of(self, root: Any) -> tuple[str, float] | None:
        """Variance and epsilon below a root: `sqrt(variance + epsilon)`."""
        if root.op == "Pow":
            power = self._number(root.input[1])
            if power is None or abs(power) != 0.5:
                return None
        below = self.nodes[node_of(root.input[0])]
        while below.op in RELABELLING and not self._is_named_statistic(below):
            below = self.nodes[node_of(below.input[0])]
        if below.op in ADDS:
            for one, other in ((0, 1), (1, 0)):
                epsilon = self._number(below.input[other])
                if epsilon is not None and epsilon >= 0 and self._number(below.input[one]) is None:
                    return below.input[one], _shortest(epsilon)
        if self._is_named_statistic(below):
            return f"{below.name}:0", 0.0
        return None

    def _is_named_statistic(self, node: Any) -> bool:
        name = self.frozen.variables.get(node.name, node.name if node.op == "Const" else "")
        return node.op == "Const" and "var" in name.rpartition("/")[2].lower()

    def _number(self, tensor: str) -> float | None:
        """The value of a constant scalar."""
        node = self.nodes[node_of(tensor)]
        while node.op in RELABELLING and node.input:
            node = self.nodes[node_of(node.input[0])]
        if node.op != "Const" or node.name in self.frozen.variables:
            return None
        array = tf.make_ndarray(node.attr["value"].tensor)
        if array.ndim or array.dtype.kind not in "fV":  # V: bfloat16
            return None
        return float(array)

    def _is_batch_moment(self, tensor: str) -> bool:
        """A variance over the batch axis; over others it is another kind of norm."""
        node = self.nodes[node_of(tensor)]
        for _ in range(8):
            if node.op == "Mean":
                axes = self.nodes[node_of(node.input[1])]
                if axes.op != "Const":
                    return False
                return 0 in tf.make_ndarray(axes.attr["value"].tensor).reshape(-1)
            if not node.input:
                return False
            node = self.nodes[node_of(node.input[0])]
        return False

    def _made_of(self, root: str) -> set[str]:
        """Constant tensors that a root went into, the root itself included."""
        made = {root}
        waiting = [root]
        while waiting:
            for reader in self.readers[waiting.pop()]:
                if reader.name in self.constant and reader.name not in made:
                    made.add(reader.name)
                    waiting.append(reader.name)
        return made

    def _from_factor(
        self, factor: Any, scale: str, root: Any, made: set[str]
    ) -> tuple[str, str | None, str | None, str] | None:
        """End, gamma, beta and mean of a norm whose data meets its scale in this node."""
        one, other = factor.input[0], factor.input[1]
        if factor.op in DIVISIONS and _plain(other) != scale:
            return None
        data = one if _plain(other) == scale else other
        gammas = self._factors(scale, root.name)
        is_inverse = root.op == "Rsqrt" or (root.op == "Pow" and (self._number(root.input[1]) or 0) < 0)
        if gammas is None or len(gammas[0]) > 1 or (factor.op in DIVISIONS) == (is_inverse != gammas[1]):
            return None
        gamma = gammas[0][0] if gammas[0] else None
        mean, gamma = self._centred(data, gamma)
        beta = None
        end = factor.name
        reader = self._only_reader(end)
        if mean is None:
            if reader is None or reader.op not in (*ADDS, "Sub"):
                return None
            shift = self._other(reader, end)
            if _plain(shift) not in made:
                return None
            mean, beta = self._shift(shift, made, negated=reader.op == "Sub")
            if mean is None:
                return None
            end = reader.name
            reader = self._only_reader(end)
        elif (
            gamma is None and reader is not None and reader.op == "Mul" and self._is_channelwise(reader, end)
        ):
            gamma = self._other(reader, end)
            end = reader.name
            reader = self._only_reader(end)
        if beta is None and reader is not None and reader.op in ADDS and self._is_channelwise(reader, end):
            beta = self._other(reader, end)
            end = reader.name
        return f"{end}:0", gamma, beta, mean

    def _factors(self, tensor: str, root: str) -> tuple[list[str], bool] | None:
        """What was multiplied with a root to make a constant, and whether the root was inverted."""
        name = node_of(tensor)
        if name == root:
            return [], False
        node = self.nodes[name]
        if node.op in RELABELLING:
            return self._factors(node.input[0], root)
        if node.op in ("Reciprocal", "Inv"):
            below = self._factors(node.input[0], root)
            return None if below is None or below[0] else ([], not below[1])
        if node.op not in ("Mul", *DIVISIONS):
            return None
        for mine, other in ((0, 1), (1, 0)):
            below = self._factors(node.input[mine], root) if self._leads(node.input[mine], root) else None
            if below is None:
                continue
            if node.op == "Mul":
                return [*below[0], node.input[other]], below[1]
            if mine == 1 and not below[0]:
                number = self._number(node.input[0])
                return ([] if number == 1.0 else [node.input[0]]), not below[1]
        return None

    def _leads(self, tensor: str, root: str) -> bool:
        waiting, seen = [node_of(tensor)], set()
        while waiting:
            name = waiting.pop()
            if name == root:
                return True
            if name not in seen:
                seen.add(name)
                waiting += [node_of(each) for each in self.nodes[name].input]
        return False

    def _centred(self, data: str, gamma: str | None) -> tuple[str | None, str | None]:
        """Mean, and gamma, of data that is `x - mean` or `gamma * (x - mean)`."""
        node = self.nodes[node_of(data)]
        if node.op == "Sub" and self.is_constant(node.input[1]) and not self.is_constant(node.input[0]):
            return node.input[1], gamma
        if node.op == "Mul" and gamma is None:
            for one, other in ((0, 1), (1, 0)):
                before = self.nodes[node_of(node.input[one])]
                if (
                    before.op == "Sub"
                    and self.is_constant(before.input[1])
                    and self.is_constant(node.input[other])
                ):
                    return before.input[1], node.input[other]
        return None, gamma

    def _shift(self, tensor: str, made: set[str], *, negated: bool) -> tuple[str | None, str | None]:
        """Mean and beta of a constant shift: `beta - mean * scale`, or `-mean * scale`."""
        node = self.nodes[node_of(tensor)]
        while node.op in RELABELLING:
            node = self.nodes[node_of(node.input[0])]
        if negated:
            return self._scaled_mean(node, made), None
        if node.op == "Sub":
            return self._scaled_mean(self.nodes[node_of(node.input[1])], made), node.input[0]
        if node.op == "Neg":
            return self._scaled_mean(self.nodes[node_of(node.input[0])], made), None
        if node.op in ADDS:  # beta + (-mean) * scale
            for one, other in ((0, 1), (1, 0)):
                mean = self._scaled_mean(self.nodes[node_of(node.input[one])], made, negative=True)
                if mean is not None:
                    return mean, node.input[other]
        return self._scaled_mean(node, made, negative=True), None

    def _scaled_mean(self, node: Any, made: set[str], *, negative: bool = False) -> str | None:
        while node.op in RELABELLING:
            node = self.nodes[node_of(node.input[0])]
        if node.op not in ("Mul", *DIVISIONS):
            return None
        for one, other in ((0, 1), (1, 0)):
            if _plain(node.input[other]) in made and _plain(node.input[one]) not in made:
                mean = self.nodes[node_of(node.input[one])]
                if not negative:
                    return str(node.input[one])
                return str(mean.input[0]) if mean.op == "Neg" else None
        return None

    def _only_reader(self, name: str) -> Any:
        readers = self.readers[name]
        if len(readers) != 1:
            return None
        return readers[0]

    def _other(self, node: Any, name: str) -> str:
        return str(node.input[1] if _plain(node.input[0]) == name else node.input[0])

    def _is_channelwise(self, node: Any, name: str) -> bool:
        """The other operand is a constant with at most one axis longer than 1."""
        other = self._other(node, name)
        shape = self.shapes[other if ":" in other else f"{other}:0"]
        if not self.is_constant(other) or shape.rank in (None, 0):
            return False
        lengths: list[int | None] = shape.as_list()
        return sum(length != 1 for length in lengths) <= 1

    def _axis(self, end: str, scale: str) -> int:
        """Channel axis of a result whose scale broadcasts along one axis."""
        rank = self.shapes[end].rank
        shape = self.shapes[f"{scale}:0"]
        lengths = shape.as_list() if shape.rank else [None]
        long = [index - len(lengths) for index, length in enumerate(lengths) if length != 1]
        axis = long[0] if long else -1
        return axis if rank is None else axis + rank


def _plain(tensor: str) -> str:
    """A tensor's name without the `:0` of first outputs."""
    return tensor.removesuffix(":0")


def _topological(nodes: Mapping[str, Any]) -> list[str]:
    """Names so that what is computed first comes first; loops are entered where they begin."""
    order: list[str] = []
    state: dict[str, int] = {}
    for start in nodes:
        waiting = [start]
        while waiting:
            name = waiting[-1]
            if state.get(name, 0) == 0:
                state[name] = 1
                waiting += [node_of(each) for each in nodes[name].input if state.get(node_of(each), 0) == 0]
            else:
                waiting.pop()
                if state[name] == 1:
                    state[name] = 2
                    order.append(name)
    return order


def _shortest(number: float) -> float:
    """The decimal number that was meant by a float32."""
    return float(str(np.float32(number)))
