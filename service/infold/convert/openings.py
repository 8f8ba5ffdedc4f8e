"""The bodies in a graph, and what each of them needs to run on its own.

The state of a Loop, the slices of a Scan and the arguments of a function are given by the node; the
rest a body reads from the graph around it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir

from infold.convert.samples import spec_of
from infold.convert.side_by_side import Model
from infold.errors import SamplesError
from infold.fold.places import Place, bodies_of, places, step_into, step_into_function
from infold.tensors import Array, Tensors, TensorSpec

__all__ = [
    "Given",
    "Opening",
    "Scope",
    "UncutError",
    "captured_by",
    "identifier_of",
    "lead_to",
    "nodes_in",
    "openings",
    "spec_like",
    "values_of",
]

# Rounds of a Loop whose number is not known before it runs, or is larger than that.
MOST_ROUNDS = 100


class UncutError(Exception):
    """A body cannot be made a model of its own; the message says why. Never leaves this floor."""


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One graph as a model of its own, unfolded and folded, and data for it.

    Attributes:
        place: Where it was cut from; empty for the whole model.
        unfolded: One side.
        folded: The other.
        samples: Inputs by name.
        drawn: Inputs that were drawn at random.
    """

    place: Place
    unfolded: Model
    folded: Model
    samples: Tensors
    drawn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Where the data of one input come from.

    Attributes:
        spec: Its type and shape, where they are known.
        outer: The value of the graph around; None where there is none.
        take: What becomes of that on the way in.
        fixed: The data themselves, where the operator says what they are.
    """

    spec: TensorSpec | None
    outer: str | None = None
    take: Callable[[Array], Array] = lambda array: array
    fixed: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """A body that could be cut, or the call of a function.

    Attributes:
        place: Where it leads.
        sides: The body in the unfolded and in the folded model; a function as a graph.
        opsets: What its operators mean.
        given: Its inputs.
        rounds: How often it runs for one run of the graph around, told from outer values.
    """

    place: Place
    sides: tuple[onnx.GraphProto, onnx.GraphProto]
    opsets: Sequence[onnx.OperatorSetIdProto]
    given: Mapping[str, Given]
    rounds: Callable[[Tensors], int] = field(default=lambda _: 1)
    reads: frozenset[str] = frozenset()

    def wants(self, scope: Scope) -> set[str]:
        """Values of the graph around to have before it is cut."""
        captured = {name for side in self.sides for name in captured_by(side)}
        stored = {tensor.name for tensor in scope.unfolded.proto.graph.initializer}
        stored -= {value.name for value in scope.unfolded.proto.graph.input}
        arguments = {each.outer for each in self.given.values() if each.outer is not None}
        return (captured - stored) | arguments | self.reads


def lead_to(model: ir.Model, targets: Iterable[Place]) -> set[Place]:
    """The places to go through to reach these: what is around a body, and who calls a function."""
    callers: dict[Place, set[Place]] = {}
    for graph, place in places(model).items():
        for node in graph:
            if node.op_identifier() in model.functions:
                callers.setdefault((step_into_function(node.op_identifier()),), set()).add(place)
    found: set[Place] = set()
    waiting = list(targets)
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        if len(place) > 1:
            waiting.append(place[:-1])
        elif place:
            waiting += callers.get(place, ())
    return found


def openings(scope: Scope, wanted: set[Place]) -> Iterator[tuple[Place, Opening | UncutError]]:
    """The bodies and calls in a graph that lead somewhere wanted, in order; a call each time."""
    left, right = (
        {o: n for n in s.proto.graph.node for o in n.output} for s in (scope.unfolded, scope.folded)
    )
    for node in scope.unfolded.graph.graph:
        owner = next((output.name for output in node.outputs if output.name), "")
        called = step_into_function(node.op_identifier())
        if node.op_identifier() in scope.unfolded.graph.functions and (called,) in wanted:
            yield (called,), _tried(scope, partial(_call, scope, (called,), left[owner]))
        for attribute, _ in bodies_of(node):
            place = (*scope.place, step_into(node, attribute))
            if place in wanted:
                yield (
                    place,
                    _tried(scope, partial(_body, scope, place, left[owner], right.get(owner), attribute)),
                )


def _tried(scope: Scope, make: Callable[[], Opening]) -> Opening | UncutError:
    try:
        opening = make()
        known = values_of(scope.unfolded.graph.graph)
        for name in opening.wants(scope):
            kind = known[name].type if name in known else None
            if kind is not None and not isinstance(kind, ir.TensorType):
                return UncutError(f"it reads '{name}', which is no tensor")
    except UncutError as no:
        return no
    return opening


def _body(
    scope: Scope, place: Place, node: onnx.NodeProto, other: onnx.NodeProto | None, attribute: str
) -> Opening:
    ours = _graph_of(node, attribute)
    theirs = None if other is None else _graph_of(other, attribute)
    if ours is None or theirs is None or [v.name for v in ours.input] != [v.name for v in theirs.input]:
        raise UncutError("the folded model has no such body")
    proto = scope.unfolded.proto
    opset = next((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), 1)
    given, rounds, reads = _arguments(node, ours, opset)
    return Opening(place, (ours, theirs), proto.opset_import, given, rounds, frozenset(reads))


def _graph_of(node: onnx.NodeProto, attribute: str) -> onnx.GraphProto | None:
    for each in node.attribute:
        if each.name == attribute:
            return each.g
        for number, graph in enumerate(each.graphs):
            if f"{each.name}[{number}]" == attribute:
                return graph
    return None


Rounds = Callable[[Tensors], int]


def _arguments(
    node: onnx.NodeProto, body: onnx.GraphProto, opset: int
) -> tuple[dict[str, Given], Rounds, set[str]]:
    """What a body is given by its node, how often it runs, and what tells that."""
    for value in body.input:
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            raise UncutError(f"it is given '{value.name}', which is no tensor")
    specs = [_stated(value) for value in body.input]
    names = [value.name for value in body.input]
    given = {name: Given(spec) for name, spec in zip(names, specs, strict=True)}
    if node.domain not in ("", "ai.onnx"):
        return given, lambda _: 1, set()
    if node.op_type == "Loop":
        shape = tuple(1 for _ in (specs[0].shape or ())) if specs[0] else ()
        given[names[0]] = Given(specs[0], fixed=np.zeros(shape, np.int64))
        shape = tuple(1 for _ in (specs[1].shape or ())) if specs[1] else ()
        given[names[1]] = Given(specs[1], fixed=np.ones(shape, np.bool_))
        for name, spec, outer in zip(names[2:], specs[2:], node.input[2:], strict=True):
            given[name] = Given(spec, outer)
        return given, lambda values: _trips(values.get(node.input[0])), {node.input[0]} - {""}
    if node.op_type == "Scan":
        if opset < 9:
            raise UncutError(f"Scan of opset {opset} runs over a batch of its own")
        attributes = {each.name: each for each in node.attribute}
        count = attributes["num_scan_inputs"].i
        first = len(node.input) - count
        axes = list(attributes["scan_input_axes"].ints) if "scan_input_axes" in attributes else [0] * count
        turned = attributes.get("scan_input_directions")
        ends = [-1 if back else 0 for back in turned.ints] if turned is not None else [0] * count
        for number, (name, outer) in enumerate(zip(names, node.input, strict=True)):
            take = _slice(axes[number - first], ends[number - first]) if number >= first else _whole
            given[name] = Given(specs[number], outer, take)
        scanned, axis = node.input[first], axes[0]
        return given, lambda values: values[scanned].shape[axis] if scanned in values else 1, set()
    return given, lambda _: 1, set()


def _trips(count: Array | None) -> int:
    if count is None or not count.size:
        return MOST_ROUNDS
    return max(1, min(MOST_ROUNDS, int(count.reshape(-1)[0])))


def _whole(array: Array) -> Array:
    return array


def _slice(axis: int, end: int) -> Callable[[Array], Array]:
    def take(array: Array) -> Array:
        if not array.shape[axis]:
            raise IndexError
        slice_: Array = np.take(array, end, axis)
        return slice_

    return take


def _call(scope: Scope, place: Place, node: onnx.NodeProto) -> Opening:
    identifier = (node.domain, node.op_type, node.overload)
    sides, opsets = [], {each.domain: each for each in scope.unfolded.proto.opset_import}
    given: dict[str, Given] = {}
    known = values_of(scope.unfolded.graph.graph)
    for model in (scope.unfolded, scope.folded):
        function = next((f for f in model.proto.functions if identifier_of(f) == identifier), None)
        if function is None:
            raise UncutError("the folded model has no such function")
        sides.append(_as_graph(function, node))
        opsets |= {each.domain: each for each in function.opset_import}
        for name, outer in zip(function.input, node.input, strict=False):
            if outer:
                value = known.get(outer)
                given[name] = Given(None if value is None else spec_like(name, value), outer)
    return Opening(place, (sides[0], sides[1]), list(opsets.values()), given)


def identifier_of(function: onnx.FunctionProto) -> tuple[str, str, str]:
    """Domain, name and overload of a function."""
    return function.domain, function.name, function.overload


def _as_graph(function: onnx.FunctionProto, call: onnx.NodeProto) -> onnx.GraphProto:
    """The body of a function as one call of it runs it."""
    given = {each.name: each for each in (*function.attribute_proto, *call.attribute)}
    missing = {name for name, outer in zip(function.input, call.input, strict=False) if not outer}
    missing |= set(function.input[len(call.input) :])
    graph = onnx.GraphProto(name=function.name)
    graph.node.extend(function.node)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in function.input if name not in missing)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
    graph.value_info.extend(function.value_info)
    _settle(graph, given, missing)
    return graph


def _settle(graph: onnx.GraphProto, given: Mapping[str, onnx.AttributeProto], missing: set[str]) -> None:
    """Set attributes that refer to the caller's, and leave out arguments that it leaves out."""
    for node in graph.node:
        node.input[:] = ["" if name in missing else name for name in node.input]
        settled = []
        for attribute in node.attribute:
            made = onnx.AttributeProto()
            made.CopyFrom(attribute)
            if attribute.ref_attr_name:
                if attribute.ref_attr_name not in given:
                    continue
                made.CopyFrom(given[attribute.ref_attr_name])
                made.name = attribute.name
            settled.append(made)
        del node.attribute[:]
        node.attribute.extend(settled)
        for inner in _bodies(node):
            _settle(inner, given, missing)


def _stated(value: onnx.ValueInfoProto) -> TensorSpec | None:
    try:
        return spec_of(value)
    except (SamplesError, KeyError):
        return None


def spec_like(name: str, value: ir.Value) -> TensorSpec | None:
    """The spec of an input that takes the place of a value."""
    if value.dtype is None:
        return None
    if value.shape is None:
        return TensorSpec(name, value.dtype.numpy(), None)
    dims = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return TensorSpec(name, value.dtype.numpy(), dims)


def values_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """Everything a graph has a name for, bodies in it left out."""
    values = [*graph.inputs, *graph.initializers.values(), *(o for node in graph for o in node.outputs)]
    return {value.name: value for value in values if value.name}


def captured_by(graph: onnx.GraphProto) -> dict[str, None]:
    """Names that a graph and the bodies in it read of what is around it, in order."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {tensor.values.name for tensor in graph.sparse_initializer}
    own |= {output for node in graph.node for output in node.output}
    read: dict[str, None] = {}
    for node in graph.node:
        read |= dict.fromkeys(node.input)
        for inner in _bodies(node):
            read |= captured_by(inner)
    read |= dict.fromkeys(value.name for value in graph.output)
    return {name: None for name in read if name and name not in own}


def nodes_in(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for inner in _bodies(node):
            yield from nodes_in(inner)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
