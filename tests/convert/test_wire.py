"""Files taken apart and put together: no byte changes, and nothing unusual is touched."""

import io
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from graphs import conv_norm, model, normal
from infold.convert import wire
from infold.convert.frontends import onnx as onnx_frontend
from infold.convert.pipeline import fold_source
from infold.convert.writing import folded_proto, write_model


class Data:
    """Bytes as a weight."""

    def __init__(self, data: memoryview) -> None:
        self.nbytes = len(data)
        self._data = data

    def tofile(self, file: wire.Sink) -> None:
        file.write(self._data)


def adder(*weights: TensorProto) -> onnx.ModelProto:
    """`y = x + w` with these initializers."""
    proto = model("g (float[40,40] x) => (float[40,40] y) { y = Add (x, w) }")
    proto.graph.initializer.extend(weights)
    return proto


def weight(**changes: object) -> TensorProto:
    """An initializer `w` of 6400 bytes, with fields replaced, or cleared where None."""
    tensor = numpy_helper.from_array(normal(40, 40), "w")
    for name, value in changes.items():
        tensor.ClearField(name)
        if name in ("dims", "float_data"):
            getattr(tensor, name).extend(value)
        elif value is not None:
            setattr(tensor, name, value)
    return tensor


def taken_apart(content: bytes) -> tuple[onnx.ModelProto, dict[str, memoryview]]:
    skeleton, weights = wire.split(content)
    return onnx.ModelProto.FromString(skeleton), weights


def put_together(skeleton: onnx.ModelProto, weights: dict[str, memoryview]) -> bytes:
    file = io.BytesIO()
    wire.write(skeleton, {name: Data(data) for name, data in weights.items()}, file)
    return file.getvalue()


def rich_model() -> onnx.ModelProto:
    """One with something in every field around the weights."""
    proto = model(
        """g (float[40,40] x) => (float[40,40] y) { z = local.block (x)  y = Add (z, w) }
        <domain: "local", opset_import: ["" : 17]> block (a) => (r) { r = Relu (a) }""",
        extra=', "local" : 1',
    )
    proto.graph.initializer.extend([weight(name="v"), numpy_helper.from_array(normal(4), "small"), weight()])
    proto.graph.doc_string = proto.doc_string = "words"
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, [40, 40]))
    proto.metadata_props.add(key="b", value="2")
    proto.metadata_props.add(key="a", value="1")
    proto.graph.metadata_props.add(key="k", value="v")
    proto.graph.quantization_annotation.add(tensor_name="x")
    return proto


@pytest.mark.parametrize("make", [rich_model, conv_norm, lambda: adder(weight())])
@pytest.mark.parametrize("large_bytes", [1, 4096, 10**9])
def test_a_file_comes_back_byte_for_byte(
    make: Callable[[], onnx.ModelProto], large_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is cut goes back to where it was, as protobuf itself would write it."""
    monkeypatch.setattr(wire, "LARGE_BYTES", large_bytes)
    content = make().SerializeToString(deterministic=True)
    skeleton, weights = taken_apart(content)
    assert put_together(skeleton, weights) == content
    assert bool(weights) == (large_bytes < 10**9 and (make is not conv_norm or large_bytes == 1))


def test_only_the_data_of_large_weights_is_cut() -> None:
    """Names, types and shapes stay, and so does what is small."""
    skeleton, weights = taken_apart(rich_model().SerializeToString())
    assert {name: bytes(data) for name, data in weights.items()} == dict.fromkeys(
        "vw", normal(40, 40).tobytes()
    )
    assert [tensor.name for tensor in skeleton.graph.initializer] == ["v", "small", "w"]
    assert [list(tensor.dims) for tensor in skeleton.graph.initializer] == [[40, 40], [4], [40, 40]]
    assert [tensor.HasField("raw_data") for tensor in skeleton.graph.initializer] == [False, True, False]


@pytest.mark.parametrize(
    "tensor",
    [
        weight(raw_data=b"\0" * 6396),
        weight(raw_data=b"\0" * 6404),
        weight(dims=[-40, -40]),
        weight(dims=[2**40, 2**40]),
        weight(data_type=TensorProto.STRING),
        weight(data_type=99),
        weight(data_type=None),
        weight(name=None),
        weight(doc_string="words"),
        weight(raw_data=None, float_data=[0.0] * 1600),
        weight(float_data=[0.0]),
        weight(data_location=TensorProto.EXTERNAL),
    ],
    ids=[
        "short",
        "long",
        "negative",
        "huge",
        "string",
        "unknown",
        "untyped",
        "unnamed",
        "doc",
        "floats",
        "two",
        "external",
    ],
)
def test_an_unusual_tensor_stays_whole(tensor: TensorProto) -> None:
    """It is for the checker to judge."""
    content = adder(tensor).SerializeToString()
    assert wire.split(content) == (content, {})


def test_of_two_weights_with_one_name_the_second_stays() -> None:
    """So that the checker sees both."""
    skeleton, weights = taken_apart(adder(weight(), weight()).SerializeToString())
    assert list(weights) == ["w"]
    assert [tensor.HasField("raw_data") for tensor in skeleton.graph.initializer] == [False, True]


def test_a_graph_in_two_pieces_stays_whole() -> None:
    """The parser would merge them."""
    content = adder(weight()).SerializeToString()
    assert wire.split(content + content) == (content + content, {})


@given(st.data())
def test_a_broken_file_is_left_to_the_parser(data: st.DataObject) -> None:
    """Cut off or damaged anywhere: never an exception, and never another model than protobuf reads."""
    content = bytearray(adder(weight()).SerializeToString())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    else:
        header = data.draw(st.integers(0, 120) | st.integers(len(content) - 60, len(content) - 1))
        content[header] ^= data.draw(st.integers(1, 255))
    skeleton, weights = wire.split(bytes(content))
    try:
        whole = onnx.ModelProto.FromString(bytes(content))
    except DecodeError:
        with pytest.raises(DecodeError):
            onnx.ModelProto.FromString(skeleton)
        return
    parts = onnx.ModelProto.FromString(skeleton)
    for tensor in parts.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = bytes(weights[tensor.name])
    assert parts.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


@pytest.mark.parametrize("large_bytes", [1, 4096])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_folded_file_is_what_protobuf_would_write(
    tmp_path: Path, dtype: str, large_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding to a file and folding in memory give the same model, and the digest is the file's."""
    monkeypatch.setattr(wire, "LARGE_BYTES", large_bytes)
    proto = conv_norm(32, dtype=dtype)
    path, target = tmp_path / "model.onnx", tmp_path / "folded.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True))
    source = onnx_frontend.load(path)
    _, folded, _ = fold_source(source)
    written = write_model(source, folded, "words", target)
    assert written.sha256() == sha256(target.read_bytes()).hexdigest()
    assert target.read_bytes() == folded_proto(source, folded, "words").SerializeToString(deterministic=True)
    assert not [name for name, value in folded.graph.initializers.items() if value.const_value is None]


def test_a_weight_is_never_copied() -> None:
    """What is cut out is a view of the file's own bytes."""
    content = adder(weight()).SerializeToString()
    _, weights = wire.split(content)
    assert np.shares_memory(np.frombuffer(weights["w"], np.uint8), np.frombuffer(content, np.uint8))
