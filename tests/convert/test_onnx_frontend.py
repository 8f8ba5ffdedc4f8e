"""ONNX files from strangers: each way a file can be wrong is one clear error."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphs import conv_norm, model, norm, normal
from infold.convert.frontends.onnx import MAX_IR_VERSION, MAX_OPSET, load
from infold.errors import SourceError
from oracle import assert_equal_within_rounding


def save(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def save_external(folder: Path, location: str = "model.data") -> Path:
    """A model with all its weights in a file beside it."""
    path = folder / "model.onnx"
    onnx.save(conv_norm(), str(path), save_as_external_data=True, location=location, size_threshold=0)
    return path


def point(path: Path, **facts: str | None) -> None:
    """Change what the weight `w` of a saved model says of its external data; None takes a key away."""
    proto = onnx.load(str(path), load_external_data=False)
    (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "w")
    entries = {entry.key: entry.value for entry in weight.external_data} | facts
    del weight.external_data[:]
    for key, value in entries.items():
        if value is not None:
            weight.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())


def refusal(path: Path) -> str:
    """The one line that loading ends in."""
    with pytest.raises(SourceError) as caught:
        load(path)
    assert caught.value.path == path
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return caught.value.detail


def test_a_good_file_comes_as_it_is(tmp_path: Path) -> None:
    """The proto, its digest and its folder."""
    path = save(conv_norm(), tmp_path)
    source = load(path)
    assert source.proto == conv_norm()
    assert source.sha256 == sha256(path.read_bytes()).hexdigest()
    assert source.folder == tmp_path.resolve()


def test_shapes_are_inferred_for_folding_alone(tmp_path: Path) -> None:
    """The graph to fold knows shapes; the proto stays as the file has it."""
    source = load(save(conv_norm(), tmp_path))
    (convolution,) = (node for node in source.ir().graph if node.op_type == "Conv")
    assert convolution.outputs[0].shape is not None and len(convolution.outputs[0].shape) == 4
    assert not source.proto.graph.value_info


def test_a_weight_whose_data_was_cut_does_not_stop_inference(tmp_path: Path) -> None:
    """A node that would need it as a shape stays unknown; all others are inferred."""
    proto = model(
        "g (float[2,3] x) => (float[2,3] y) { r = Reshape (x, long)  a = Relu (x)  y = Neg (a) }",
        {"long": np.arange(4096)},
    )
    graph = load(save(proto, tmp_path)).ir().graph
    shapes = {node.op_type: node.outputs[0].shape for node in graph}
    assert shapes["Relu"] == ir.Shape([2, 3])


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.onnx") == "no such file"


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert refusal(tmp_path / "empty.onnx") == "the file is empty"


def test_folder(tmp_path: Path) -> None:
    assert "folder" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.9, 0.99])
def test_truncated(tmp_path: Path, kept: float) -> None:
    """A download that broke off."""
    path = save(conv_norm(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"<!doctype html><html></html>",
        b"{}",
        b"hello\n",
        b"\x80\x04\x95",
        b"PK\x03\x04",
        b"\x89HDF\r\n\x1a\n",
        b"\x00" * 64,
    ],
    ids=["lfs-pointer", "html", "json", "text", "pickle", "zip", "hdf5", "zeros"],
)
def test_something_else(tmp_path: Path, content: bytes) -> None:
    """A file of another kind under the name of a model."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "ONNX" in refusal(path)


def test_flipped_bits_are_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever byte of the header is damaged, the answer is a model or a SourceError, never a crash."""
    good = save(conv_norm(), tmp_path).read_bytes()
    path = tmp_path / "flipped.onnx"
    for place in range(80):
        damaged = bytearray(good)
        damaged[place] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            load(path)
        except SourceError as no:
            assert "\n" not in str(no)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N] x) => (float[N] y) { y = Relu (nothing) }",
        "g (float[N] x) => (float[N] y) { y = Relu (z)  z = Relu (x) }",
        "g (float[N] x) => (float[N] y) { y = Relu (x)  y = Neg (x) }",
        "g (float[N] x) => (float[N] y) { y = Relu <alpha=1.0> (x) }",
        "g (float[N] x) => (float[N] y) { y = NoSuchOperator (x) }",
    ],
    ids=["dangling", "cycle", "twice", "attribute", "operator"],
)
def test_a_graph_that_is_not_valid(tmp_path: Path, text: str) -> None:
    """The checker's word, on one line."""
    assert "not a valid ONNX model" in refusal(save(model(text), tmp_path))


@pytest.mark.parametrize("opset", [999, 29])
def test_an_opset_of_the_future(tmp_path: Path, opset: int) -> None:
    """The number is named."""
    detail = refusal(save(model("g (float[N] x) => (float[N] y) { y = Relu (x) }", opset=opset), tmp_path))
    assert str(opset) in detail


def test_an_opset_above_the_runtime_s_is_brought_down(tmp_path: Path) -> None:
    """Opset 28 becomes one that onnxruntime loads, and computes the same."""
    proto = conv_norm(opset=onnx.defs.onnx_opset_version())
    source = load(save(proto, tmp_path))
    assert [(o.domain, o.version) for o in source.proto.opset_import] == [("", MAX_OPSET)]
    assert_equal_within_rounding(conv_norm(opset=MAX_OPSET), source.proto, {"x": normal(1, 2, 6, 6)})


def test_an_ir_version_above_the_runtime_s_is_brought_down(tmp_path: Path) -> None:
    """The IR version only grows by additions."""
    proto = conv_norm()
    proto.ir_version = 99
    try:
        source = load(save(proto, tmp_path))
    except SourceError:
        return  # the checker may know better
    assert source.proto.ir_version <= MAX_IR_VERSION


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(("kept", "word"), [(0, "'?w'?"), (-4, "w.*bytes"), (4, "'w' has .* bytes")])
def test_a_weight_of_the_wrong_size(
    tmp_path: Path, kept: int, word: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few bytes, too many or none: the weight is named, whichever way it is read."""
    monkeypatch.setattr("infold.convert.wire.LARGE_BYTES", 1 if large else 10**9)
    proto = conv_norm()
    (tensor,) = (each for each in proto.graph.initializer if each.name == "w")
    tensor.raw_data = (tensor.raw_data * 2)[: len(tensor.raw_data) + kept] if kept else b""
    assert re.search(word, refusal(save(proto, tmp_path)))


@pytest.mark.parametrize("large", [False, True])
def test_two_weights_of_one_name(tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker sees them, cut out or not."""
    monkeypatch.setattr("infold.convert.wire.LARGE_BYTES", 1 if large else 10**9)
    proto = conv_norm()
    proto.graph.initializer.append(next(each for each in proto.graph.initializer if each.name == "w"))
    assert "not unique" in refusal(save(proto, tmp_path))


def test_a_weight_of_an_unknown_type(tmp_path: Path) -> None:
    """The checker lets it pass."""
    proto = conv_norm()
    (tensor,) = (each for each in proto.graph.initializer if each.name == "w")
    tensor.data_type = 99
    assert "unknown data type 99" in refusal(save(proto, tmp_path))


def test_large_weights_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proto lacks their data; the graph to fold and the complete proto have it."""
    monkeypatch.setattr("infold.convert.wire.LARGE_BYTES", 1)
    proto = conv_norm()
    source = load(save(proto, tmp_path))
    assert set(source.weights) == {tensor.name for tensor in proto.graph.initializer}
    assert source.complete() == proto
    for tensor in proto.graph.initializer:
        weight = source.ir().graph.initializers[tensor.name].const_value
        assert weight is not None
        assert (weight.numpy() == onnx.numpy_helper.to_array(tensor)).all()


# -- external data --------------------------------------------------------------------------------


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    """Weights stay outside, and count in the digest."""
    path = save_external(tmp_path)
    source = load(path)
    assert source.sha256 == sha256(path.read_bytes() + (tmp_path / "model.data").read_bytes()).hexdigest()
    (weight,) = (v for v in source.ir().graph.initializers.values() if v.name == "w")
    assert weight.const_value is not None
    assert (weight.const_value.numpy() == normal(4, 2, 3, 3, seed=1)).all()


def test_external_data_in_a_subfolder(tmp_path: Path) -> None:
    """Below the model is inside its folder."""
    (tmp_path / "deep").mkdir()
    load(save_external(tmp_path, "deep/model.data"))


def test_a_model_reached_through_a_link_has_its_data_beside_the_real_file(tmp_path: Path) -> None:
    """A link to a model in a cache elsewhere works."""
    real, other = tmp_path / "real", tmp_path / "other"
    real.mkdir()
    other.mkdir()
    save_external(real)
    (other / "link.onnx").symlink_to(real / "model.onnx")
    assert load(other / "link.onnx").folder == real.resolve()


@pytest.mark.parametrize(
    "location",
    [
        "{outside}/model.data",
        "../outside/model.data",
        "deep/../../outside/model.data",
        "..\\outside\\model.data",
        "",
    ],
)
def test_external_data_that_leaves_the_folder(tmp_path: Path, location: str) -> None:
    """Absolute, climbing and empty places are refused, existing or not."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "deep").mkdir()
    path = save_external(inside)
    (outside / "model.data").write_bytes((inside / "model.data").read_bytes())
    point(path, location=location.format(outside=outside))
    assert "leaves the model's folder" in refusal(path)


def test_external_data_through_a_link_that_leaves(tmp_path: Path) -> None:
    """A link inside the folder that points outside is outside."""
    inside = tmp_path / "inside"
    inside.mkdir()
    path = save_external(inside)
    (inside / "model.data").rename(tmp_path / "secret")
    (inside / "model.data").symlink_to(tmp_path / "secret")
    assert "leaves the model's folder" in refusal(path)


def test_external_data_in_a_linked_folder_that_leaves(tmp_path: Path) -> None:
    """... a linked folder on the way as well."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    path = save_external(inside)
    (inside / "model.data").rename(outside / "model.data")
    (inside / "deep").symlink_to(outside)
    point(path, location="deep/model.data")
    assert "leaves the model's folder" in refusal(path)


def test_external_data_that_is_no_plain_file(tmp_path: Path) -> None:
    """A folder, or a link even to a file inside, is not read."""
    path = save_external(tmp_path)
    (tmp_path / "deep").mkdir()
    point(path, location="deep")
    assert "not a plain file" in refusal(path)
    (tmp_path / "link").symlink_to(tmp_path / "model.data")
    point(path, location="link")
    assert "not a plain file" in refusal(path)


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    """The file is named."""
    path = save_external(tmp_path)
    (tmp_path / "model.data").unlink()
    assert "model.data" in refusal(path)


@pytest.mark.parametrize(
    "facts",
    [{"length": "999999"}, {"offset": "999999"}, {"offset": "-4"}, {"length": "-4"}],
    ids=["length", "offset", "negative-offset", "negative-length"],
)
def test_external_data_beyond_the_end(tmp_path: Path, facts: dict[str, str]) -> None:
    """A range that the file does not hold is refused before anybody maps it."""
    path = save_external(tmp_path)
    point(path, **facts)
    assert "beyond the end" in refusal(path)


def test_external_data_with_a_range_that_is_no_number(tmp_path: Path) -> None:
    """`offset` must be digits."""
    path = save_external(tmp_path)
    point(path, offset="many")
    assert "no number" in refusal(path)


@pytest.mark.parametrize("length", [None, "16"])
def test_external_data_shorter_than_its_tensor(tmp_path: Path, length: str | None) -> None:
    """A range that holds fewer bytes than the shape needs is refused here, not met while folding."""
    path = save_external(tmp_path)
    (tmp_path / "model.data").write_bytes(b"\0" * 16)
    point(path, offset=None, length=length)
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        if tensor.name != "w":
            source = {"b": normal(4, seed=2), **norm(4)}[tensor.name]
            tensor.CopyFrom(onnx.numpy_helper.from_array(source, tensor.name))
    path.write_bytes(proto.SerializeToString())
    assert "model.data" in refusal(path)


def test_external_data_of_a_function_that_leaves_the_folder(tmp_path: Path) -> None:
    """Constants inside model-local functions are watched like all others."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(np.ones(4, np.float32).tobytes())
    proto = model(
        """g (float[N,4] x) => (float[N,4] y) { y = local.block (x) }
        <domain: "local", opset_import: ["" : 17]>
        block (a) => (r) { k = Constant <value = float[4] {1, 2, 3, 4}> ()  r = Mul (a, k) }""",
        extra=', "local" : 1',
    )
    tensor = proto.functions[0].node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    refusal(save(proto, inside))
