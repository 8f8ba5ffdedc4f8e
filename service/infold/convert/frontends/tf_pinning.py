"""Holds a graph's training flag at one value and removes the branches that are dead then.

A pass over GraphDefs: no session, no variables read. Old conditionals (Switch and Merge)
and new ones (If with functions) go; function calls are put in place of their bodies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from infold.convert.frontends.tf_frozen import called, constant_node, node_of

__all__ = ["pin", "predicates"]

GraphDef = Any  # tensorflow.compat.v1.GraphDef
NodeDef = Any

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
SWITCHES = ("Switch", "RefSwitch")
MERGES = ("Merge", "RefMerge")
IFS = ("If", "StatelessIf")
PASSING: tuple[str, ...] = (
    "Identity",
    "RefIdentity",
    "Snapshot",
    "StopGradient",
    "Reshape",
    "Squeeze",
    "Cast",
)
PASSING += ("PlaceholderWithDefault",)
LOGIC = {
    "LogicalNot": np.logical_not,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
}


def pin(graph: GraphDef, flags: Mapping[str, bool]) -> GraphDef:
    """The graph with placeholders held at constants, and everything that decides between branches gone.

    Args:
        graph: Left as it is.
        flags: Values by placeholder name.
    """
    pinning = _Pinning(graph)
    for name, value in flags.items():
        pinning.hold(name, value)
    while pinning.choose() | pinning.inline():
        pass
    return pinning.result()


def predicates(graph: GraphDef) -> dict[str, int]:
    """Boolean placeholders that decide between branches, and how many decisions each takes."""
    nodes = {node.name: node for node in graph.node}
    found: dict[str, int] = defaultdict(int)
    for node in graph.node:
        if node.op in SWITCHES:
            waiting = [node.input[1]]
        elif node.op in IFS:
            waiting = [node.input[0]]
        else:
            continue
        seen = set()
        while waiting:
            name = node_of(waiting.pop())
            if name in seen or name not in nodes:
                continue
            seen.add(name)
            source = nodes[name]
            if source.op in ("Placeholder", "PlaceholderWithDefault"):
                if source.attr["dtype"].type == tf.bool.as_datatype_enum:
                    found[name] += 1
            elif source.op in (*PASSING, *LOGIC, *SWITCHES):
                waiting += [each for each in source.input if not each.startswith("^")]
    return dict(found)


def _port(tensor: str) -> tuple[str, int]:
    name, _, index = tensor.partition(":")
    return name, int(index or 0)


class _Pinning:
    """A graph while it is being rewritten."""

    def __init__(self, graph: GraphDef) -> None:
        self.graph = graph
        self.nodes: dict[str, NodeDef] = {}
        for node in graph.node:
            copy = tf.compat.v1.NodeDef()
            copy.CopyFrom(node)
            self.nodes[node.name] = copy
        self.functions = {each.signature.name: each for each in graph.library.function}
        self.bodies: dict[str, tuple[GraphDef, dict[str, str]]] = {}

    def result(self) -> GraphDef:
        result = type(self.graph)()
        result.versions.CopyFrom(self.graph.versions)
        result.library.CopyFrom(self.graph.library)
        result.node.extend(self.nodes.values())
        return result

    def hold(self, name: str, value: bool) -> None:
        self.nodes[name] = constant_node(name, np.array(value))

    # -- choosing between branches ----------------------------------------------------------------

    def choose(self) -> bool:
        """Decide every branch whose predicate is known; true if there was one."""
        known: dict[str, bool] = {}
        for name, node in self.nodes.items():
            if node.op in SWITCHES or node.op in IFS:
                value = self._value(node.input[node.op in SWITCHES])
                if value is not None:
                    known[name] = value
        if not known:
            return False
        moved: dict[str, str] = {}
        dead: set[str] = set()
        for name, taken in known.items():
            node = self.nodes[name]
            if node.op in IFS:
                self._make_call(node, taken)
            else:
                moved[f"{name}:{int(taken)}"] = node.input[0]
                dead.add(f"{name}:{int(not taken)}")
        gone = self._bury(dead, moved)
        gone.update(name for name in known if self.nodes[name].op in SWITCHES)
        for name in gone:
            del self.nodes[name]
        self._redirect(moved, gone)
        return True

    def _value(self, tensor: str) -> bool | None:
        """A predicate's value, where it is computed from constants alone."""
        name, index = _port(tensor)
        node = self.nodes.get(name)
        if node is None or index:
            return None
        if node.op == "Const":
            array = tf.make_ndarray(node.attr["value"].tensor)
            return bool(array.reshape(-1)[0]) if array.size == 1 else None
        data = [each for each in node.input if not each.startswith("^")]
        if node.op in PASSING:
            return self._value(data[0])
        if node.op in LOGIC:
            values = [self._value(each) for each in data]
            return None if None in values else bool(LOGIC[node.op](*values))
        return None

    def _make_call(self, node: NodeDef, taken: bool) -> None:
        branch = node.attr["then_branch" if taken else "else_branch"].func
        node.op = "StatefulPartitionedCall"
        node.attr["f"].func.CopyFrom(branch)
        for attribute in ("then_branch", "else_branch", "Tcond"):
            node.attr.pop(attribute, None)
        del node.input[0]

    def _bury(self, dead: set[str], moved: dict[str, str]) -> set[str]:
        """Names of all nodes that get a dead input; Merges with one live input left move to it."""
        consumers: dict[str, list[str]] = defaultdict(list)
        for name, node in self.nodes.items():
            for each in node.input:
                consumers[node_of(each)].append(name)
        gone: set[str] = set()

        def is_dead(tensor: str) -> bool:
            name, index = _port(tensor.removeprefix("^"))
            return name in gone or (not tensor.startswith("^") and f"{name}:{index}" in dead)

        waiting = [each for tensor in dead for each in consumers[node_of(tensor)]]
        while waiting:
            name = waiting.pop()
            node = self.nodes[name]
            if name in gone:
                continue
            data = [each for each in node.input if not each.startswith("^")]
            if node.op in MERGES:
                is_buried = all(is_dead(each) for each in data)
            else:
                is_buried = any(is_dead(each) for each in node.input)
            if is_buried:
                gone.add(name)
                waiting += consumers[name]
        for name, node in list(self.nodes.items()):
            if node.op not in MERGES or name in gone:
                continue
            data = [each for each in node.input if not each.startswith("^")]
            live = [index for index, each in enumerate(data) if not is_dead(each)]
            if len(live) == 1 and len(data) > 1:
                chosen = self._fresh(f"{name}/value_index")
                self.nodes[chosen] = constant_node(chosen, np.array(live[0], np.int32))
                moved[f"{name}:1"] = chosen
                self.nodes[name] = _identity(name, data[live[0]], node.attr["T"].type)
        return gone

    def _redirect(self, moved: Mapping[str, str], gone: set[str]) -> None:
        """Let readers of what moved read where it is now; control edges to what is gone are cut."""

        def end(tensor: str) -> str:
            name, index = _port(tensor)
            while f"{name}:{index}" in moved:
                name, index = _port(moved[f"{name}:{index}"])
            return f"{name}:{index}" if index else name

        sources = {node_of(tensor) for tensor in moved} | gone
        for node in self.nodes.values():
            if not any(node_of(each) in sources for each in node.input):
                continue
            inputs = [
                each if each.startswith("^") else end(each)
                for each in node.input
                if not (each.startswith("^") and node_of(each) in gone)
            ]
            del node.input[:]
            node.input.extend(inputs)

    # -- calls ------------------------------------------------------------------------------------

    def inline(self) -> bool:
        """Put the body in place of every call at the top level; true if there was one."""
        calls = [node for node in self.nodes.values() if self._function(node) is not None]
        if not calls:
            return False
        moved: dict[str, str] = {}
        for call in calls:
            self._expand(call, moved)
        self._redirect(moved, {call.name for call in calls} - set(self.nodes))
        return True

    def _function(self, node: NodeDef) -> str | None:
        name = str(node.attr["f"].func.name if node.op in CALLS else node.op)
        return name if name in self.functions else None

    def _body(self, name: str) -> tuple[GraphDef, dict[str, str]]:
        if name not in self.bodies:
            body = self.functions[name]
            with tf.Graph().as_default():
                inner = tf.compat.v1.GraphDef(library=called(self.graph, body.node_def))
                tf.import_graph_def(inner, name="")
                self.bodies[name] = function_def_to_graph_def(body)
        return self.bodies[name]

    def _expand(self, call: NodeDef, moved: dict[str, str]) -> None:
        name = self._function(call)
        assert name is not None
        function = self.functions[name]
        body, flat = self._body(name)
        data = [each for each in call.input if not each.startswith("^")]
        control = [each for each in call.input if each.startswith("^")]
        arguments = {arg.name: data[index] for index, arg in enumerate(function.signature.input_arg)}
        del self.nodes[call.name]
        scope = call.name
        while any(f"{scope}/{node.name}" in self.nodes for node in body.node):
            scope += "_"

        def outer(tensor: str) -> str:
            if tensor.startswith("^"):
                return f"^{scope}/{tensor[1:]}"
            if node_of(tensor) in arguments:
                return str(arguments[node_of(tensor)])
            return f"{scope}/{tensor}"

        for node in body.node:
            if node.name in arguments:
                continue
            copy = tf.compat.v1.NodeDef()
            copy.CopyFrom(node)
            copy.name = f"{scope}/{node.name}"
            # A control edge from an argument says no more than the data edge.
            inputs = [outer(each) for each in node.input if each[:1] != "^" or each[1:] not in arguments]
            del copy.input[:]
            copy.input.extend(inputs or control)
            self.nodes[copy.name] = copy
        results = [outer(flat[function.ret[each.name]]) for each in function.signature.output_arg]
        if len(results) == 1:  # its name may be the user's name of an output
            dtype = function.signature.output_arg[0].type or call.attr["Tout"].list.type[0]
            self.nodes[call.name] = _identity(call.name, results[0], dtype)
        else:
            moved.update((f"{call.name}:{index}", result) for index, result in enumerate(results))

    def _fresh(self, name: str) -> str:
        while name in self.nodes:
            name += "_"
        return name


def _identity(name: str, tensor: str, dtype: int) -> NodeDef:
    node = tf.compat.v1.NodeDef(name=name, op="Identity", input=[tensor])
    node.attr["T"].type = dtype
    return node
