"""Files that a model names for its weights: found wherever a tensor may be, in bytes from anybody."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.runtime import weights
from infold.runtime.weights import INSIDE, weight_files


def outside(location: str) -> onnx.TensorProto:
    """A tensor whose weights lie in a file."""
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return tensor


def holding(place: str, tensor: onnx.TensorProto) -> onnx.ModelProto:
    """A model with a tensor in a place of its own."""
    proto = onnx.ModelProto(ir_version=8)
    node = onnx.NodeProto(op_type="If")
    inner = onnx.GraphProto(name="inner", initializer=[tensor])
    sparse = onnx.SparseTensorProto(dims=[4])
    attribute = onnx.AttributeProto(name="a", ints=range(-3, 3000), strings=[b"s" * 300])
    match place:
        case "initializer":
            proto.graph.initializer.append(tensor)
            return proto
        case "sparse values":
            sparse.values.CopyFrom(tensor)
            proto.graph.sparse_initializer.append(sparse)
            return proto
        case "sparse indices":
            sparse.indices.CopyFrom(tensor)
            proto.graph.sparse_initializer.append(sparse)
            return proto
        case "training":
            proto.training_info.add().algorithm.initializer.append(tensor)
            return proto
        case "initialization":
            proto.training_info.add().initialization.initializer.append(tensor)
            return proto
        case "attribute":
            attribute.t.CopyFrom(tensor)
        case "attributes":
            attribute.tensors.append(tensor)
        case "body":
            attribute.g.CopyFrom(inner)
        case "bodies":
            attribute.graphs.append(inner)
        case "sparse attribute":
            sparse.values.CopyFrom(tensor)
            attribute.sparse_tensor.CopyFrom(sparse)
        case "sparse attributes":
            sparse.values.CopyFrom(tensor)
            attribute.sparse_tensors.append(sparse)
        case "function" | "default of a function":
            attribute.t.CopyFrom(tensor)
    node.attribute.append(attribute)
    if place == "function":
        proto.functions.add(name="f").node.append(node)
    elif place == "default of a function":
        proto.functions.add(name="f").attribute_proto.append(attribute)
    else:
        proto.graph.node.append(node)
    return proto


PLACES = [
    "initializer", "sparse values", "sparse indices", "training", "initialization", "attribute", "attributes",
    "body", "bodies", "sparse attribute", "sparse attributes", "function", "default of a function",
]  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], tuple[str, ...]]:
    """What is found in a file of these bytes."""

    def written(content: bytes) -> tuple[str, ...]:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return weight_files(path)

    return written


@pytest.mark.parametrize("place", PLACES)
def test_a_file_is_found_wherever_a_tensor_may_be(
    place: str, read: Callable[[bytes], tuple[str, ...]]
) -> None:
    """Of all fields of ONNX that lead to one; docs of operators and names of values lead to none."""
    proto = holding(place, outside("w.bin"))
    proto.doc_string = "\n\x08location\x12\x05d.bin"
    assert read(proto.SerializeToString()) == ("w.bin",)


def test_every_field_of_onnx_that_leads_to_a_tensor_is_walked() -> None:
    """Whatever a later version of ONNX adds must not be missed."""
    kinds = {
        "model": onnx.ModelProto, "graph": onnx.GraphProto, "training": onnx.TrainingInfoProto,
        "function": onnx.FunctionProto, "node": onnx.NodeProto, "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto, "tensor": onnx.TensorProto,
    }  # fmt: skip
    names = {kind.DESCRIPTOR.full_name: name for name, kind in kinds.items()}
    for name, kind in kinds.items():
        fields = [each for each in kind.DESCRIPTOR.fields if each.message_type is not None]
        found = {each.number: names.get(each.message_type.full_name, "") for each in fields}
        if name == "tensor":
            found = {each.number: "entry" if each.name == "external_data" else "" for each in fields}
        assert {number: inner for number, inner in found.items() if inner} == INSIDE[name], name


def entry(*fields: tuple[int, bytes]) -> bytes:
    """An entry of external data, with its fields in that order."""
    return b"".join(bytes([number << 3 | 2]) + varint(len(text)) + text for number, text in fields)


def varint(value: int, length: int = 1) -> bytes:
    """A number as protobuf has it, maybe in more bytes than it needs."""
    content = bytearray()
    while value > 0x7F or len(content) + 1 < length:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(content) + bytes([value])


def nested(content: bytes, *numbers: int, wide: int = 1) -> bytes:
    """Bytes inside messages, the innermost first."""
    for number in numbers:
        content = varint(number << 3 | 2, wide) + varint(len(content), wide) + content
    return content


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (entry((1, b"location"), (2, b"a")), ("a",)),
        (entry((2, b"a"), (1, b"location")), ("a",)),
        (entry((1, b"offset"), (2, b"1"), (1, b"location"), (2, b"a")), ("a",)),
        (entry((1, b"location"), (2, b"a"), (1, b"offset")), ()),
        (entry((1, b"location"), (9, b"x"), (2, b"a")) + b"\x18\x05", ("a",)),
        (entry((1, b"location")), ("",)),
        (entry((2, b"a")), ()),
        (entry((1, b"location"), (2, b"\xff/\xc3\xa9")), ("\udcff/é",)),
        (b"", ()),
    ],
)
def test_an_entry_is_read_as_protobuf_reads_it(
    said: bytes, found: tuple[str, ...], read: Callable[[bytes], tuple[str, ...]]
) -> None:
    """In any order; of what is said twice, the last counts."""
    for wide in (1, 3, 5):
        assert read(nested(said, 13, 5, 7, wide=wide)) == found


def test_a_graph_that_comes_in_parts_is_read_in_all(read: Callable[[bytes], tuple[str, ...]]) -> None:
    """Protobuf joins messages of one field."""
    parts = [nested(entry((1, b"location"), (2, name)), 13, 5, 7) for name in (b"a", b"b")]
    assert read(b"".join(parts)) == ("a", "b")


@pytest.mark.parametrize(
    "content",
    [
        b"no graph",
        b"\x3a\x05ab",
        nested(b"\x3a" + varint(2**60), 7),
        nested(b"\x2a" + varint(2**60) + b"abc", 7),
        b"\x3a" + b"\xff" * 20,
        nested(b"\x0b\x0c", 7),
        b"\x3d\x00\x00",
        b"\x3a",
        b"\x80",
    ],
)
def test_what_is_no_protobuf_is_refused(content: bytes, read: Callable[[bytes], tuple[str, ...]]) -> None:
    """Lengths that are not there, groups, numbers without an end."""
    with pytest.raises(ValueError, match=r"byte \d+"):
        read(content)


@given(st.binary(min_size=1, max_size=60))
def test_no_bytes_are_read_beyond_their_end_or_for_ever(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """They are a model or they are refused."""
    path = tmp_path_factory.mktemp("any") / "model.onnx"
    for each in (content, nested(content, 5, 7), nested(content, 13, 5, 7)):
        path.write_bytes(each)
        try:
            weight_files(path)
        except ValueError as refused:
            assert "byte" in str(refused)


def test_a_model_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    """As damage on the way would change it."""
    content = bytearray(holding("body", outside("w.bin")).SerializeToString())
    draw, path = random.Random(0), tmp_path / "model.onnx"
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            weight_files(path)
        except ValueError as refused:
            assert "byte" in str(refused)


def test_bodies_in_bodies_are_walked_without_recursion(read: Callable[[bytes], tuple[str, ...]]) -> None:
    """However deep; onnxruntime refuses them soon enough."""
    content = nested(entry((1, b"location"), (2, b"a")), 13, 5)
    for _ in range(3000):
        content = nested(content, 6, 5, 1)
    assert read(nested(content, 7)) == ("a",)


def test_a_forest_of_numbers_takes_no_step_for_each(read: Callable[[bytes], tuple[str, ...]]) -> None:
    """Attributes hold them one by one, by the million."""
    attribute = onnx.AttributeProto(ints=range(-1000, 40_000), floats=np.linspace(0, 1, 40_000))
    proto = holding("initializer", outside("w.bin"))
    proto.graph.node.append(onnx.NodeProto(attribute=[attribute]))
    with mock.patch.object(weights, "_varint", side_effect=weights._varint) as steps:
        assert read(proto.SerializeToString()) == ("w.bin",)
    assert 0 < steps.call_count < 100
