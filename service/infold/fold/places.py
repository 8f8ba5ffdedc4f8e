"""Where a graph lies inside its model: the main graph, a body of a node, or a function.

Folding neither adds nor removes a graph, and a node with a body keeps the names of its outputs. So
a place names the same graph in the unfolded and in the folded model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Place", "Step", "bodies_of", "places", "spelled", "step_into", "step_into_function"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step from a graph into a body.

    Attributes:
        owner: First named output of the node that holds it; of a function its whole name.
        attribute: Attribute of that node; empty for a function.
        label: What people read.
    """

    owner: str
    attribute: str
    label: str


# From the main graph, or from a function; empty for the main graph itself.
Place = tuple[Step, ...]


def bodies_of(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Attribute and graph of every body a node holds."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for number, graph in enumerate(attribute.as_graphs()):
                yield f"{name}[{number}]", graph


def step_into(node: ir.Node, attribute: str) -> Step:
    """The step into a body of a node."""
    owner = next((output.name for output in node.outputs if output.name), "")
    return Step(owner, attribute, f"{node.op_type.lower()} '{node.name or owner}'/{attribute}")


def step_into_function(identifier: tuple[str, str, str]) -> Step:
    """The step into a function, given as domain, name and overload."""
    name = "::".join(part for part in identifier if part)
    return Step(name, "", f"function '{name}'")


def places(model: ir.Model) -> dict[ir.Graph, Place]:
    """The place of every graph of a model."""
    found: dict[ir.Graph, Place] = {model.graph: ()}
    found |= {f.graph: (step_into_function(f.identifier()),) for f in model.functions.values()}
    waiting = list(found)
    while waiting:
        graph = waiting.pop()
        for node in graph:
            for attribute, body in bodies_of(node):
                found[body] = (*found[graph], step_into(node, attribute))
                waiting.append(body)
    return found


def spelled(place: Place) -> str:
    """A place as people read it, from the outside in: `loop 'decoder'/body > if 'gate'/then_branch`."""
    return " > ".join(step.label for step in place)
