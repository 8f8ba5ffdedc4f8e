"""TensorFlow 1 graphs: read from frozen files, checkpoints and SavedModels, pinned and frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from infold.convert.frontends.exported import Options
from infold.convert.frontends.tf_frozen import Frozen, make_constant, node_of, subgraph
from infold.errors import SourceError

__all__ = [
    "Graph",
    "freeze",
    "known_tensors",
    "read_checkpoint",
    "read_graph_def",
    "read_saved_model",
    "saved_model_proto",
]

VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable")
NO_META = (
    "holds weights without their graph (no .meta file): save the graph too, with "
    "tf.compat.v1.train.Saver or, from TensorFlow 2, model.export(FOLDER) or tf.saved_model.save"
)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A TensorFlow 1 graph as found.

    Attributes:
        source: What the user named.
        graph: The whole GraphDef, defaults of attributes filled in.
        prefix: Of the checkpoint that holds its variables; None for a frozen graph.
        inputs, outputs: Tensor names by the names of a signature; empty without one.
        trainable: Variables that training changes; None where that is not known.
        open: Puts the original graph and its variables' values into an empty session.
    """

    source: str
    graph: Any
    prefix: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    trainable: frozenset[str] | None = None
    open: Callable[[Any], None] = lambda _session: None


# -- reading --------------------------------------------------------------------------------------


def read_graph_def(source: str) -> Graph:
    """Read a frozen graph, binary or text.

    Raises:
        SourceError: It is truncated, or no graph.
    """
    graph = tf.compat.v1.GraphDef()
    content = Path(source).read_bytes()
    try:
        if source.endswith(".pbtxt"):
            text_format.Parse(content, graph)
        else:
            graph.ParseFromString(content)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as broken:
        raise SourceError(source, "no TensorFlow graph, or truncated") from broken
    if not graph.node:
        raise SourceError(source, "holds no TensorFlow graph")
    return Graph(source, _with_defaults(graph), open=lambda _: tf.import_graph_def(graph, name=""))


def read_checkpoint(source: str) -> Graph:
    """Read a graph and find its variables, from a `.meta` file, a prefix or a folder.

    Raises:
        SourceError: The graph or a file of weights is missing, or it is no graph.
    """
    prefix = _prefix(source)
    meta = Path(f"{prefix}.meta")
    if not meta.exists():
        raise SourceError(source, NO_META)
    found = tf.compat.v1.MetaGraphDef()
    try:
        found.ParseFromString(meta.read_bytes())
    except DecodeError as broken:
        raise SourceError(source, f"{meta.name} is no TensorFlow graph, or truncated") from broken
    if not found.graph_def.node:
        raise SourceError(source, f"{meta.name} holds no TensorFlow graph")
    _require_shards(source, prefix)
    return _of_meta_graph(source, found, prefix)


def _prefix(source: str) -> str:
    path = Path(source)
    if not path.is_dir():
        for suffix in (".meta", ".index"):
            source = source.removesuffix(suffix)
        return source.partition(".data-")[0]
    latest = tf.train.latest_checkpoint(source)
    if latest is not None:
        return str(latest)
    state = tf.train.get_checkpoint_state(source)
    if state is not None:  # a folder that was moved still holds its old absolute path
        moved = path / Path(state.model_checkpoint_path).name
        if moved.with_name(f"{moved.name}.meta").exists():
            return str(moved)
        missing = Path(state.model_checkpoint_path).name
        raise SourceError(source, f"its file 'checkpoint' names {missing}, which is not there")
    metas = sorted(path.glob("*.meta"))
    if len(metas) != 1:
        listed = ", ".join(each.name for each in metas)
        raise SourceError(source, f"holds several checkpoints; name one of {listed}")
    return str(metas[0]).removesuffix(".meta")


def _require_shards(source: str, prefix: str) -> None:
    path = Path(prefix)
    shards = sorted(path.parent.glob(f"{path.name}.data-*-of-*"))
    if path.exists() and not shards:  # the old format: one file, no index
        return
    if not path.with_name(f"{path.name}.index").exists():
        raise SourceError(source, f"{path.name}.index is missing; copy it beside the .meta file")
    count = int(shards[0].name.rpartition("-of-")[2]) if shards else 1
    for index in range(count):
        shard = path.with_name(f"{path.name}.data-{index:05d}-of-{count:05d}")
        if not shard.exists():
            raise SourceError(source, f"{shard.name} is missing; copy it beside the .meta file")


def saved_model_proto(path: Path) -> Any:
    """A SavedModel's own description of itself.

    Raises:
        SourceError: There is none, or it is damaged.
    """
    found = saved_model_pb2.SavedModel()
    try:
        if (path / "saved_model.pb").exists():
            found.ParseFromString((path / "saved_model.pb").read_bytes())
        else:
            text_format.Parse((path / "saved_model.pbtxt").read_bytes(), found)
    except FileNotFoundError as missing:
        raise SourceError(path, "holds no saved_model.pb") from missing
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as broken:
        raise SourceError(path, "saved_model.pb is damaged or truncated") from broken
    if not found.meta_graphs:
        raise SourceError(path, "saved_model.pb holds no graph: empty or truncated")
    return found


def read_saved_model(path: Path, options: Options) -> Graph:
    """Read one graph of a TensorFlow 1 SavedModel.

    Raises:
        SourceError: No such tag or signature, or several and none named.
    """
    found = saved_model_proto(path)
    meta = _tagged(path, found, options.tag)
    prefix = str(path / "variables" / "variables")
    graph = _of_meta_graph(str(path), meta, prefix)
    tags = list(meta.meta_info_def.tags)
    signatures = {key: each for key, each in meta.signature_def.items() if each.outputs}
    chosen = _chosen(path, signatures, options)

    def open_it(session: Any) -> None:
        tf.compat.v1.saved_model.loader.load(session, tags, str(path))

    if chosen is None:
        return replace(graph, open=open_it)
    inputs = {key: info.name for key, info in sorted(chosen.inputs.items())}
    outputs = {key: info.name for key, info in sorted(chosen.outputs.items())}
    return replace(graph, inputs=inputs, outputs=outputs, open=open_it)


def _tagged(path: Path, found: Any, tag: str | None) -> Any:
    tags = [sorted(each.meta_info_def.tags) for each in found.meta_graphs]
    listed = "; ".join(",".join(each) or "(none)" for each in tags)
    if tag is None:
        if len(tags) == 1:
            return found.meta_graphs[0]
        if ["serve"] in tags:
            return found.meta_graphs[tags.index(["serve"])]
        raise SourceError(path, f"holds several graphs; name one with --tag: {listed}")
    wanted = sorted(each for each in tag.split(",") if each)
    if wanted not in tags:
        raise SourceError(path, f"has no graph tagged '{tag}'; it has {listed}")
    return found.meta_graphs[tags.index(wanted)]


def _chosen(path: Path, signatures: Mapping[str, Any], options: Options) -> Any:
    listed = ", ".join(sorted(signatures))
    if options.signature is not None:
        if options.signature not in signatures:
            raise SourceError(path, f"has no signature '{options.signature}'; it has {listed or 'none'}")
        return signatures[options.signature]
    if options.inputs or options.outputs or not signatures:
        return None
    if "serving_default" in signatures:
        return signatures["serving_default"]
    if len(signatures) > 1:
        raise SourceError(path, f"has several signatures; name one with --signature: {listed}")
    return next(iter(signatures.values()))


def _of_meta_graph(source: str, meta: Any, prefix: str) -> Graph:
    trainable = None
    if "trainable_variables" in meta.collection_def:
        values = meta.collection_def["trainable_variables"].bytes_list.value
        names = (variable_pb2.VariableDef.FromString(value).variable_name for value in values)
        trainable = frozenset(node_of(name) for name in names)

    def open_it(session: Any) -> None:
        tf.import_graph_def(meta.graph_def, name="")
        tf.compat.v1.train.Saver(saver_def=meta.saver_def).restore(session, prefix)

    return Graph(source, _with_defaults(meta.graph_def), prefix, trainable=trainable, open=open_it)


def _with_defaults(graph: Any) -> Any:
    """The graph with attributes that were left at their defaults filled in, and without devices.

    TensorFlow would do so on import; but it refuses frozen graphs whose dead branches are broken.
    """
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            node.device = ""
            definition = op_def_registry.get(node.op)
            for attribute in definition.attr if definition is not None else ():
                if attribute.HasField("default_value") and attribute.name not in node.attr:
                    node.attr[attribute.name].CopyFrom(attribute.default_value)
    return graph


# -- freezing -------------------------------------------------------------------------------------


def freeze(given: Graph, graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Frozen:
    """The part of a pinned graph that computes the outputs, its variables as constants.

    Args:
        given: Where the variables are.
        graph: Pinned.
        inputs: Tensor names by the names that the user knows.
        outputs: The same.

    Raises:
        SourceError: A variable has no value, or the graph can only train.
    """
    cut = _cut(given, graph, inputs, outputs)
    ends = _with_ends(given, cut, outputs)
    part = subgraph(cut, [*ends.values(), *inputs.values()])
    variables = {node.name: node for node in part.node if node.op in VARIABLES}
    values = _values(given, graph, variables)
    make_constant(part, values)
    for node in part.node:
        if node.op == "PlaceholderWithDefault":  # left at its default
            dtype = node.attr["dtype"].type
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = dtype
    return Frozen(part, dict(inputs), ends, {name: name for name in variables}, given.trainable)


def _cut(given: Graph, graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Any:
    """A copy in which every input is a placeholder, also where the user named an inner tensor."""
    nodes = {node.name: node for node in graph.node}
    part = subgraph(graph, [*inputs.values(), *outputs.values()])
    inner = {
        node_of(tensor): tensor for tensor in inputs.values() if nodes[node_of(tensor)].op != "Placeholder"
    }
    if not inner:
        return part
    known = known_tensors(given.source, part, inner.values())
    for node in part.node:
        if node.name in inner:
            dtype, shape = known[inner[node.name]]
            node.op = "Placeholder"
            node.attr.clear()
            del node.input[:]
            node.attr["dtype"].type = dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(shape.as_proto())
    return part


def known_tensors(source: str, graph: Any, tensors: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Dtypes and shapes as TensorFlow infers them, by tensor name.

    Raises:
        SourceError: TensorFlow refuses the graph; says why.
    """
    with tf.Graph().as_default() as imported:
        try:
            tf.import_graph_def(graph, name="")
        except Exception as failure:
            words = " ".join(str(failure).split())[:300]
            raise SourceError(source, f"TensorFlow cannot read the graph: {words}") from failure
        found = {}
        for tensor in tensors:
            try:
                value = imported.get_tensor_by_name(tensor)
            except (KeyError, ValueError) as missing:
                raise SourceError(source, f"the graph has no tensor '{tensor}'") from missing
            found[tensor] = (value.dtype.base_dtype, value.shape)
        return found


def _with_ends(given: Graph, graph: Any, outputs: Mapping[str, str]) -> dict[str, str]:
    """Give each output an Identity of its own, so that no two are one tensor, and none an input."""
    known = known_tensors(given.source, graph, outputs.values())
    taken = {node.name for node in graph.node}
    ends = {}
    for index, (name, tensor) in enumerate(outputs.items()):
        end = f"infold/output_{index}"
        while end in taken:
            end += "_"
        node = graph.node.add(name=end, op="Identity", input=[tensor])
        node.attr["T"].type = known[tensor][0].as_datatype_enum
        ends[name] = f"{end}:0"
    return ends


def _values(given: Graph, graph: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint holds for each variable, by node name."""
    if not variables:
        return {}
    if given.prefix is None:
        some = ", ".join(sorted(variables)[:3])
        raise SourceError(
            given.source,
            f"is not frozen: {len(variables)} variables such as {some} have no values in it; "
            "convert the checkpoint (its .meta file) or the SavedModel instead",
        )
    saved = _saved_names(graph)
    try:
        reader = tf.train.load_checkpoint(given.prefix)
    except Exception as failure:
        words = " ".join(str(failure).split())[:200]
        raise SourceError(given.source, f"its variables cannot be read: {words}") from failure
    held = reader.get_variable_to_shape_map()
    values = {}
    lacking = []
    for name, node in variables.items():
        key, piece = saved.get(name, (node.attr["shared_name"].s.decode() or name, ""))
        if key not in held:
            lacking.append(name)
            continue
        dtype = tf.as_dtype(node.attr["dtype"].type).base_dtype
        try:
            (value,) = tf.raw_ops.RestoreV2(
                prefix=given.prefix, tensor_names=[key], shape_and_slices=[piece], dtypes=[dtype]
            )
        except Exception as failure:
            words = " ".join(str(failure).split())[:200]
            raise SourceError(given.source, f"variable {name} cannot be read: {words}") from failure
        values[name] = value.numpy()
    if lacking:
        some = ", ".join(sorted(lacking)[:5])
        raise SourceError(
            given.source,
            f"the checkpoint has no value for {len(lacking)} of {len(variables)} variables: {some}; "
            "graph and weights are not of the same model",
        )
    return values


def _saved_names(graph: Any) -> dict[str, tuple[str, str]]:
    """How a graph's own saver calls each variable, and which slice of it this is."""
    nodes = {node.name: node for node in graph.node}
    found: dict[str, tuple[str, str]] = {}
    for node in graph.node:
        if node.op not in ("Assign", "AssignVariableOp") or len(node.input) < 2:
            continue
        value = node.input[1]
        while node_of(value) in nodes and nodes[node_of(value)].op == "Identity":
            value = nodes[node_of(value)].input[0]
        source = nodes.get(node_of(value))
        if source is None or source.op != "RestoreV2":
            continue
        index = int(value.partition(":")[2] or 0)
        names, pieces = (nodes.get(node_of(each)) for each in source.input[1:3])
        if names is None or pieces is None or names.op != "Const" or pieces.op != "Const":
            continue
        keys = tf.make_ndarray(names.attr["value"].tensor).reshape(-1)
        slices = tf.make_ndarray(pieces.attr["value"].tensor).reshape(-1)
        found[node_of(node.input[0])] = (keys[index].decode(), slices[index].decode())
    return found
