"""Batch normalization in a frozen TensorFlow graph, by its form: fused, or written out by hand.

Nothing in a graph says "layer". A norm that is written out is found from the root of its
variance outward.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from infold.convert.frontends.tf_frozen import Frozen, node_of

__all__ = ["Live", "Search", "Use"]

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
class Live:
    """A norm that normalizes by the moments of what it is given, also in inference.

    Attributes:
        end: Tensor of its node, or of the root of its variance.
        fused: It is a fused operator in training mode.
        kind, epsilon: As in `Use`.
        gamma, beta: Tensor names; None where there is none.
    """

    end: str
    fused: bool
    kind: str
    epsilon: float
    gamma: str | None = None
    beta: str | None = None


class Search:
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
        self.live: list[Live] = []
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
        """It is computed from constants alone."""
        return node_of(tensor) in self.constant

    def _fused(self, node: Any) -> Use | None:
        scale, offset, mean, variance = node.input[1:5]
        if node.attr["is_training"].b or not (self.is_constant(mean) and self.is_constant(variance)):
            epsilon = _shortest(node.attr["epsilon"].f)
            self.live.append(Live(f"{node.name}:0", node.attr["is_training"].b, node.op, epsilon))
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
                gamma, beta = self._live_parameters(root)
                end = f"{root.name}:0"
                self.live.append(Live(end, False, "batch_normalization", epsilon, gamma, beta))
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

    def _live_parameters(self, root: Any) -> tuple[str | None, str | None]:
        """Gamma and beta of `tf.nn.batch_normalization` around a root that is no constant."""
        gamma, scale = None, root.name
        for reader in self.readers[root.name]:
            if reader.op == "Mul" and self.is_constant(self._other(reader, root.name)):
                gamma, scale = self._other(reader, root.name), reader.name
        for product in self.readers[scale]:
            for reader in self.readers[product.name]:
                if reader.op == "Sub" and self.is_constant(reader.input[0]):
                    return gamma, reader.input[0]
        return gamma, None

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
