"""What a source is, told by its content."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from graphs import conv_norm
from infold.convert.frontends.formats import Format, recognise
from infold.errors import SourceError


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, "x")
    return path


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("metadata.json", "config.json", "model.weights.h5"), Format.KERAS),
        (("m/archive_format", "m/models/model.json", "m/data/weights/model.pt"), Format.PT2),
        (("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"), Format.TORCHSCRIPT),
        (("m/data.pkl", "m/data/0", "m/version"), Format.PICKLE),
    ],
)
def test_archives_are_told_apart_by_what_they_hold(
    tmp_path: Path, names: tuple[str, ...], found: Format
) -> None:
    """Whatever the file is called."""
    assert recognise(str(archive(tmp_path / "model.bin", *names))) is found


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"\x89HDF\r\n\x1a\n....", Format.KERAS), (b"\x80\x02}q\x00.", Format.PICKLE)],
)
def test_files_are_told_apart_by_their_first_bytes(tmp_path: Path, content: bytes, found: Format) -> None:
    """Whatever the file is called."""
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert recognise(str(path)) is found


def test_an_onnx_model_may_have_any_name(tmp_path: Path) -> None:
    """TensorFlow's suffix does not make it a TensorFlow graph."""
    path = tmp_path / "model.pb"
    path.write_bytes(conv_norm().SerializeToString())
    assert recognise(str(path)) is Format.ONNX


def test_a_protobuf_that_is_no_onnx_is_a_graph(tmp_path: Path) -> None:
    """A frozen TensorFlow graph begins with its first node."""
    path = tmp_path / "frozen.pb"
    path.write_bytes(b"\x0a\x0b\x0a\x01x\x12\x06NoOp42")
    assert recognise(str(path)) is Format.GRAPH_DEF


def test_folders_and_prefixes_of_tensorflow(tmp_path: Path) -> None:
    """A SavedModel, a checkpoint's folder, its prefix, its graph."""
    saved, checkpoint = tmp_path / "saved", tmp_path / "checkpoint"
    saved.mkdir()
    checkpoint.mkdir()
    (saved / "saved_model.pb").touch()
    for name in ("model.ckpt-7.meta", "model.ckpt-7.index", "checkpoint"):
        (checkpoint / name).write_bytes(b"x")
    assert recognise(str(saved)) is Format.SAVED_MODEL
    for source in (checkpoint, checkpoint / "model.ckpt-7", checkpoint / "model.ckpt-7.meta"):
        assert recognise(str(source)) is Format.CHECKPOINT


def test_code_is_named_by_module_and_attribute() -> None:
    """`package.module:factory`, as entry points are written."""
    assert recognise("package.module:Net.small") is Format.MODULE


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.keras", "no such file"),
        ("package.module", "no such file"),
        ("folder", "neither a SavedModel nor a TensorFlow checkpoint"),
        ("strange.zip", "holds no model infold knows"),
        ("broken.keras", "a damaged archive"),
        ("net.safetensors", "holds weights without their network; name the code that builds it"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    """Naming it and what to do."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    archive(Path("strange.zip"), "a.txt")
    Path("broken.keras").write_bytes(b"PK\x03\x04 and then nothing")
    buffer = io.BytesIO((2).to_bytes(8, "little") + b'{"}      ')
    Path("net.safetensors").write_bytes(buffer.getvalue())
    with pytest.raises(SourceError) as refused:
        recognise(source)
    assert str(refused.value).startswith(f"{source}: ")
    assert words in str(refused.value)
