"""A rewrite as a value, and the one place that edits a graph.

A rule describes what it wants; nothing is touched until the driver applies it.
Two promises hold for every patch:

- A value that keeps its name keeps its meaning. Values that now carry something
  else get new names, so folded and unfolded may be compared name by name.
- New constants get new names. A weight with other readers is thereby copied,
  never changed under them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from infold.fold.places import places

__all__ = ["PREVIOUS", "Amendment", "Editor", "NewConstant", "NewNode", "Patch", "Replacement"]

SUFFIX = "/folded"


@dataclass(frozen=True, slots=True, eq=False)
class NewConstant:
    """A constant to add; `like` is the name that its own is made from."""

    tensor: ir.TensorProtocol
    like: str


@dataclass(frozen=True, slots=True)
class _Previous:
    """Stands for the output of the new node before this one."""


PREVIOUS = _Previous()

Operand = ir.Value | NewConstant | _Previous | None


@dataclass(frozen=True, slots=True, eq=False)
class NewNode:
    """A node to add: like an `ir.Node`, but not yet a reader of anything.

    `output_like` is a value of the same type and shape as its output; by default that
    is the output of the nodes it replaces.
    """

    op_type: str
    inputs: tuple[Operand, ...]
    name: str | None
    attributes: tuple[ir.Attr, ...] = ()
    output_like: ir.Value | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """Nodes in data-flow order whose last output is computed by `new` from now on.

    `renamed` says that this output carries something else, and must lose its name.
    """

    old: tuple[ir.Node, ...]
    new: tuple[NewNode, ...]
    renamed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Amendment:
    """A node that stays, with another constant: an input by its index, or an attribute."""

    node: ir.Node
    change: tuple[int, NewConstant] | ir.Attr


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One lawful rewrite.

    Attributes:
        replacements: Nodes to compute anew; each takes over the output of the old ones.
        bypass: Nodes of a site in data-flow order, taken out of the flow: whoever
            read the last one's output reads the first one's data input.
        data_index: Which input of the first bypassed node is its data.
        keeps_source: The data input keeps its name and meaning (the affine went
            downstream); otherwise it takes the name of the site's output.
        renamed: Values that carry something else from now on.
        amendments: Nodes on the way whose constants change.
    """

    replacements: tuple[Replacement, ...]
    bypass: tuple[ir.Node, ...] = ()
    data_index: int = 0
    keeps_source: bool = False
    renamed: tuple[ir.Value, ...] = ()
    amendments: tuple[Amendment, ...] = ()


class Editor:
    """Applies patches to one model and keeps its names unique.

    ONNX wants the names of values unique across a graph and all its subgraphs.
    """

    def __init__(self, model: ir.Model, suffix: str = SUFFIX) -> None:
        self._suffix = suffix
        self._bodies = {function.graph for function in model.functions.values()}
        self._taken: set[str | None] = {None, ""}
        self._origin: dict[tuple[ir.Graph, str], str] = {}
        for graph in places(model):
            self._taken.update(value.name for value in graph.inputs)
            self._taken.update(graph.initializers)
            self._taken.update(output.name for node in graph for output in node.outputs)

    def apply(self, patch: Patch) -> None:
        """Edit the graph as the patch says and drop constants that nobody reads any more."""
        old = [*(node for each in patch.replacements for node in each.old), *patch.bypass]
        old += [each.node for each in patch.amendments]
        orphans = dict.fromkeys(each for node in old for each in node.inputs if each is not None)
        for replacement in patch.replacements:
            self._replace(replacement)
        for amendment in patch.amendments:
            self._amend(amendment)
        if patch.bypass:
            graph = patch.bypass[0].graph
            assert graph is not None
            for value in patch.renamed:
                self._rename(graph, value, self.fresh(value.name))
            self._bypass(patch)
        drop_unread(orphans)

    def fresh(self, like: str | None) -> str:
        """A name that is not in use yet, made from another."""
        stem = (like or "value").removesuffix(self._suffix) + self._suffix
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}.{count}"
        self._taken.add(name)
        return name

    def origin(self, graph: ir.Graph, name: str) -> str:
        """The name that the value now called so in this graph had before any patch."""
        while (graph, name) in self._origin:
            name = self._origin[graph, name]
        return name

    def _rename(self, graph: ir.Graph, value: ir.Value, name: str | None) -> None:
        if name and value.name and name != value.name:
            self._origin[graph, name] = value.name
        value.name = name

    def _replace(self, replacement: Replacement) -> None:
        last = replacement.old[-1]
        graph, output = last.graph, last.outputs[0]
        assert graph is not None
        built: list[ir.Node] = []
        for new in replacement.new:
            inputs = [self._operand(operand, built, graph, last) for operand in new.inputs]
            if built:
                like = replacement.new[len(built) - 1].output_like or output
                built[-1].outputs[0].name = self.fresh(like.name)
                built[-1].outputs[0].type = like.type
                built[-1].outputs[0].shape = like.shape
            built.append(
                ir.Node(
                    "",
                    new.op_type,
                    inputs,
                    new.attributes,
                    name=new.name,
                    metadata_props=dict(new.metadata),
                )
            )
        ir.convenience.replace_nodes_and_values(
            graph, last, list(reversed(replacement.old)), built, [output], [built[-1].outputs[0]]
        )
        if replacement.renamed:
            self._rename(graph, built[-1].outputs[0], self.fresh(output.name))

    def _amend(self, amendment: Amendment) -> None:
        node, change = amendment.node, amendment.change
        if isinstance(change, ir.Attr):
            node.attributes.add(change)
            return
        index, constant = change
        assert node.graph is not None
        node.resize_inputs(max(len(node.inputs), index + 1))
        node.replace_input_with(index, self._add_constant(constant, node.graph, node))

    def _operand(
        self, operand: Operand, built: list[ir.Node], graph: ir.Graph, before: ir.Node
    ) -> ir.Value | None:
        if isinstance(operand, NewConstant):
            return self._add_constant(operand, graph, before)
        if isinstance(operand, _Previous):
            return built[-1].outputs[0]
        return operand

    def _add_constant(self, constant: NewConstant, graph: ir.Graph, before: ir.Node) -> ir.Value:
        name = self.fresh(constant.like)
        constant.tensor.name = name
        if graph in self._bodies:  # the body of a function has no initializers
            node = ir.Node("", "Constant", (), [ir.AttrTensor("value", constant.tensor)])
            node.outputs[0].name = name
            graph.insert_before(before, node)
            return node.outputs[0]
        value = ir.Value(
            name=name,
            type=ir.TensorType(constant.tensor.dtype),
            shape=ir.Shape(constant.tensor.shape.numpy()),
            const_value=constant.tensor,
        )
        graph.register_initializer(value)
        return value

    def _bypass(self, patch: Patch) -> None:
        first, last = patch.bypass[0], patch.bypass[-1]
        graph, source, output = last.graph, first.inputs[patch.data_index], last.outputs[0]
        assert graph is not None
        assert source is not None
        name, kind, shape = output.name, output.type, output.shape
        output.name = self.fresh(name)
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(list(reversed(patch.bypass)), safe=True)
        if not patch.keeps_source:
            self._rename(graph, source, name)
            source.type = kind or source.type
            source.shape = shape or source.shape


def drop_unread(values: Iterable[ir.Value]) -> None:
    """Remove initializers, and nodes that compute constants, that nobody reads any more."""
    for value in values:
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        node = value.producer()
        if value.is_initializer():
            assert value.graph is not None
            assert value.name is not None
            value.graph.initializers.pop(value.name)
        elif node is not None and node.graph is not None and not _is_read(node):
            feeding = dict.fromkeys(each for each in node.inputs if each is not None)
            node.graph.remove(node, safe=True)
            drop_unread(feeding)


def _is_read(node: ir.Node) -> bool:
    return any(output.uses() or output.is_graph_output() for output in node.outputs)
