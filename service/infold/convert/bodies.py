"""Cuts the bodies of If, Loop and Scan, and model-local functions, out as models of their own.

What happens inside a body cannot be looked at from outside, and a branch that the samples do not
take does not happen at all. So each body becomes a model:

- What it is given (the state of a Loop, the slices of a Scan, the arguments of a function) and what
  it reads of the graph around it become inputs; initializers it reads are copied in, external data
  staying where it is.
- The inputs get the values that the graph around it has for them: what a branch reads, a Loop's
  initial state in its first round, the first slice of a Scan, the arguments of one call. What cannot
  be had is drawn at random, if its type and shape are known.
- Attributes that a function takes from its caller are set to what that call gives.

Both models are cut alike and get the same inputs. A body inside a body is cut from the cut one, and
so its data come from running that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
import onnx_ir as ir

from infold.convert.frontends.onnx import readable
from infold.convert.openings import (
    Given,
    Opening,
    Scope,
    UncutError,
    captured_by,
    identifier_of,
    nodes_in,
    spec_like,
    values_of,
)
from infold.convert.samples import draw_samples
from infold.convert.side_by_side import Model
from infold.errors import SamplesError
from infold.fold.constants import is_constant
from infold.fold.linear import FoldedBias, FoldedTensor
from infold.fold.places import places
from infold.tensors import Array, Signature, Tensors

__all__ = ["cut", "unrounded"]

FIRST_IR_WITH_PLAIN_INITIALIZERS = 4

# Folded weights before they are rounded, by their names, which no other value has.
Unrounded = Mapping[str, ir.TensorProtocol]


def unrounded(folded: ir.Model) -> Unrounded:
    """The folded weights of a model that are not rounded yet."""
    found: dict[str, ir.TensorProtocol] = {}
    for graph in places(folded):
        values = [*graph.initializers.values(), *(output for node in graph for output in node.outputs)]
        for value in values:
            tensor = value.const_value or _constant_of(value)
            if value.name and isinstance(tensor, FoldedTensor | FoldedBias):
                found[value.name] = tensor
    return found


def _constant_of(value: ir.Value) -> ir.TensorProtocol | None:
    node = value.producer()
    if node is None or node.op_type != "Constant" or "value" not in node.attributes:
        return None
    attribute = node.attributes["value"]
    return None if attribute.is_ref() else attribute.as_tensor()


def cut(scope: Scope, opening: Opening, values: Tensors, exact: Unrounded) -> Scope:
    """A body as a model of its own, on both sides, with data.

    Args:
        scope: The graph around it.
        opening: The body.
        values: What that graph has for the values it wants, as far as it could be had.
        exact: Folded weights before they were rounded.

    Raises:
        UncutError: Some input has no data, and none can be drawn.
    """
    known = values_of(scope.unfolded.graph.graph)
    given = dict(opening.given)
    embedded: dict[str, Array] = {}
    for name in {name for side in opening.sides for name in captured_by(side)}:
        value = known.get(name)
        if value is None:
            raise UncutError(
                f"the folded model reads '{name}' there, which the unfolded one does not compute"
            )
        if not is_constant(value):
            given[name] = Given(spec_like(name, value), name)
        elif not value.is_initializer():
            if name not in values:
                raise UncutError(f"the constant '{name}' cannot be computed")
            embedded[name] = values[name]
    samples, drawn = _data(given, values)
    left, right = (
        _model(model, graph, opening.opsets, samples, embedded)
        for model, graph in zip((scope.unfolded, scope.folded), opening.sides, strict=True)
    )
    _restore(right.graph, exact)
    return Scope(opening.place, left, right, samples, drawn)


def _data(given: Mapping[str, Given], values: Tensors) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Data for every input, and the names of those that were drawn."""
    found: dict[str, Array] = {}
    for name, each in given.items():
        if each.fixed is not None:
            found[name] = each.fixed
        elif each.outer is not None and each.outer in values:
            try:
                found[name] = each.take(values[each.outer])
            except IndexError:  # a Scan over nothing
                continue
    missing = [name for name in given if name not in found or not found[name].size]
    if not missing:
        return found, ()
    specs = []
    for name, each in given.items():
        if each.spec is None and name in missing:
            raise UncutError(f"there is no value for '{name}', and its type is not known")
        if each.spec is not None:
            specs.append(each.spec)
    fitting = {
        s.name: found[s.name].shape for s in specs if s.name not in missing and not s.mismatch(found[s.name])
    }
    try:
        made = draw_samples(Signature(tuple(specs), ()), fitting)
    except SamplesError as no:
        raise UncutError(f"there is no value for '{missing[0]}', and none can be drawn: {no}") from no
    return found | {name: made[name] for name in missing}, tuple(missing)


def _model(
    outer: Model,
    graph: onnx.GraphProto,
    opsets: Sequence[onnx.OperatorSetIdProto],
    samples: Tensors,
    embedded: Tensors,
) -> Model:
    proto = onnx.ModelProto(
        ir_version=max(outer.proto.ir_version, FIRST_IR_WITH_PLAIN_INITIALIZERS),
        producer_name=outer.proto.producer_name,
        opset_import=opsets,
        functions=_called(graph, outer.proto.functions),
        graph=graph,
    )
    reads = captured_by(graph)
    computed = {output for node in graph.node for output in node.output}
    body = proto.graph
    del body.input[:]
    for name, array in samples.items():
        kind = int(ir.DataType.from_numpy(array.dtype))
        body.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    body.initializer.extend(
        tensor
        for tensor in outer.proto.graph.initializer
        if tensor.name in reads and tensor.name not in samples
    )
    for name in (name for name in embedded if name in reads):
        body.initializer.append(ir.to_proto(ir.Tensor(embedded[name], name=name)))
    del body.output[:]
    body.output.extend({o.name: o for o in graph.output if o.name in computed}.values())
    return Model(outer.label, readable(proto, outer.folder), proto, outer.folder)


def _called(
    graph: onnx.GraphProto | onnx.FunctionProto, functions: Iterable[onnx.FunctionProto]
) -> list[onnx.FunctionProto]:
    """The functions that a graph calls, and those that they call."""
    known = {identifier_of(function): function for function in functions}
    found: dict[tuple[str, str, str], onnx.FunctionProto] = {}
    waiting = list(nodes_in(graph))
    while waiting:
        node = waiting.pop()
        name = (node.domain, node.op_type, node.overload)
        if name in known and name not in found:
            found[name] = known[name]
            waiting += nodes_in(known[name])
    return list(found.values())


def _restore(model: ir.Model, exact: Unrounded) -> None:
    """Put folded weights as they were before rounding in the place of those that were read."""
    for value in values_of(model.graph).values():
        is_leaf = value.is_initializer() or _constant_of(value) is not None
        if is_leaf and value.name and value.name in exact:
            value.const_value = exact[value.name]
