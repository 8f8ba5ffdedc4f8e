"""Files of a model lie where a model's files may: strangers name them, and links lead anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infold.errors import SessionError
from infold.runtime.model_files import check_files, open_plain


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model in a repository, and a secret beside it."""
    path = tmp_path / "models" / "m" / "1" / "model.onnx"
    (path.parent / "weights").mkdir(parents=True)
    path.write_bytes(b"graph")
    (path.parent / "weights" / "w.bin").write_bytes(b"w")
    (tmp_path / "secret").write_bytes(b"s")
    return path


@pytest.mark.parametrize("name", ["weights/w.bin", "./weights/w.bin", "weights//w.bin", "..data", "a..b"])
def test_files_below_the_model_are_let_through(model: Path, name: str) -> None:
    """Dots in a name are no way up."""
    if not (model.parent / name).exists():
        (model.parent / name).write_bytes(b"w")
    check_files(model, [name])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "an absolute path"),
        ("//etc/passwd", "an absolute path"),
        ("\\etc\\passwd", "an absolute path"),
        ("C:\\secret", "an absolute path"),
        ("../../../secret", "leads out of the model's folder"),
        ("weights/../../../../secret", "leads out of the model's folder"),
        ("..\\secret", "leads out of the model's folder"),
        ("weights/..", "leads out of the model's folder"),
        ("", "is no file"),
        (".", "is no file"),
        ("..", "is no file"),
        ("*/_ORT_MEM_ADDR_/*", "is no file"),
        ("weights", "is no plain file"),
        ("gone.bin", "No such file"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
        ("\udcff", "No such file"),
        ("weights/w.bin/more", "Not a directory"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(model: Path, name: str, problem: str) -> None:
    """With what is wrong, and the model."""
    with pytest.raises(SessionError) as refused:
        check_files(model, ["weights/w.bin", name])
    assert str(refused.value).startswith(f"{model}: weights in '")
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 400
    str(refused.value).encode()


def test_a_file_that_stands_for_memory_is_refused_even_if_it_is_there(model: Path) -> None:
    """The runtime would read an address of its own process."""
    place = model.parent / "*" / "_ORT_MEM_ADDR_" / "*"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"w")
    with pytest.raises(SessionError, match="is no file"):
        check_files(model, ["*/_ORT_MEM_ADDR_/*"])


@pytest.mark.parametrize("target", ["secret", "/etc/passwd", "models/../secret"])
@pytest.mark.parametrize("what", ["model", "weights", "folder"])
def test_a_link_out_of_the_repository_is_refused(model: Path, tmp_path: Path, target: str, what: str) -> None:
    """Be it the model, its weights or a folder of them."""
    aim, folder = tmp_path / target, model.parent / "weights"
    match what:
        case "model":
            model.unlink()
            model.symlink_to(aim)
        case "weights":
            (folder / "w.bin").unlink()
            (folder / "w.bin").symlink_to(aim)
        case "folder":
            (folder / "w.bin").unlink()
            folder.rmdir()
            folder.symlink_to(aim.parent)
            (tmp_path / "w.bin").write_bytes(b"w")
    name = f"weights/{aim.name}" if what == "folder" else "weights/w.bin"
    with pytest.raises(SessionError, match="is a link that leads out of the repository"):
        check_files(model, [name])


def test_links_in_a_circle_are_refused(model: Path) -> None:
    """In one line."""
    loop = model.parent / "loop.bin"
    loop.symlink_to(loop)
    with pytest.raises(SessionError, match=r"loop\.bin"):
        check_files(model, ["loop.bin"])


def test_a_mount_of_kubernetes_is_served(tmp_path: Path) -> None:
    """Each file is a link into `..data`, which is a link to a folder with a date."""
    version = tmp_path / "models" / "m" / "1"
    dated = version / "..2026_11_21"
    dated.mkdir(parents=True)
    (version / "..data").symlink_to(dated.name)
    for name in ("model.onnx", "w.bin"):
        (dated / name).write_bytes(b"x")
        (version / name).symlink_to(f"..data/{name}")
    check_files(version / "model.onnx", ["w.bin"])


@pytest.mark.parametrize("level", ["repository", "model", "version"])
def test_a_folder_that_is_a_link_is_where_its_owner_put_it(tmp_path: Path, level: str) -> None:
    """A store may lie elsewhere; what lies in it may not lead on from there."""
    store = tmp_path / "store"
    linked = {
        "repository": tmp_path / "models",
        "model": tmp_path / "models/m",
        "version": tmp_path / "models/m/1",
    }
    inner = {"repository": store / "m/1", "model": store / "1", "version": store}[level]
    inner.mkdir(parents=True)
    linked[level].parent.mkdir(parents=True, exist_ok=True)
    linked[level].symlink_to(store)
    for name in ("model.onnx", "w.bin"):
        (inner / name).write_bytes(b"x")
    model = tmp_path / "models" / "m" / "1" / "model.onnx"
    check_files(model, ["w.bin"])
    (tmp_path / "secret").write_bytes(b"s")
    (inner / "s.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(SessionError, match="leads out of the repository"):
        check_files(model, ["s.bin"])


def test_models_may_share_a_file_of_their_repository(model: Path) -> None:
    """By a link; a store that keeps each file once is made of these."""
    shared = model.parents[2] / "blobs"
    shared.mkdir()
    (shared / "abc").write_bytes(b"w")
    (model.parent / "shared.bin").symlink_to("../../blobs/abc")
    check_files(model, ["shared.bin"])


def test_pipes_and_devices_are_no_weights(model: Path) -> None:
    """Whoever opened one might wait for ever."""
    os.mkfifo(model.parent / "pipe")
    with pytest.raises(SessionError, match="is no plain file"):
        check_files(model, ["pipe"])
    model.unlink()
    os.mkfifo(model)
    with pytest.raises(SessionError, match="is no plain file"):
        check_files(model)
    with pytest.raises(ValueError, match="is no plain file"):
        open_plain(model)


def test_a_graph_of_more_than_protobuf_can_hold_is_refused(model: Path) -> None:
    """A hole of any size costs nothing, and would take hours to read."""
    os.truncate(model, 2**31 - 1)
    check_files(model)
    os.truncate(model, 2**40)
    with pytest.raises(SessionError, match="has 1099511627776 bytes"):
        check_files(model)


def test_a_relative_repository_is_one_too(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `infold serve models` has it."""
    monkeypatch.chdir(tmp_path)
    check_files(Path("models/m/1/model.onnx"), ["weights/w.bin"])
    (model.parent / "s.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(SessionError, match="leads out"):
        check_files(Path("models/m/1/model.onnx"), ["s.bin"])
