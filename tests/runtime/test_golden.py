"""Golden samples as a stranger may send them: read as arrays, or refused with what is wrong."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphs import normal
from infold.errors import ConfigError
from infold.runtime import golden
from infold.runtime.golden import GOLDEN_FILE, LIMIT_BYTES, read_golden
from infold.tensors import BFLOAT16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Where one would lie."""
    path = tmp_path / "models" / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def npy(array: Any, **how: Any) -> bytes:
    """An array as a file of numpy's."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **how)
    return file.getvalue()


def header(text: str, content: bytes = b"") -> bytes:
    """A file of numpy's with any header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content


def put(model: Path, method: int = zipfile.ZIP_STORED, **files: bytes) -> Path:
    """A golden file of these members; `_` in a name stands for the point behind `in` or `out`."""
    path = model.with_name(GOLDEN_FILE)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", ".", 1) + ".npy", content)
    return path


def test_arrays_come_back_as_they_went_in(model: Path) -> None:
    """Of every type, order of bytes and order of axes; text as objects."""
    given: dict[str, Any] = {
        "in.f": normal(3, 2), "in.big": np.arange(6, dtype=">i4").reshape(2, 3),
        "in.turned": np.asfortranarray(normal(3, 4)), "in.half": normal(2, 2, dtype="bfloat16"),
        "in.text": np.array([["a", "längst"], ["", "c"]]), "in.none": np.empty((0, 3), np.float16),
        "in.scalar": np.float64(2.5), "in.b": np.array([True, False]),
        "in.conv/out:0": np.arange(3, dtype=np.uint8),
        "out.y": np.array([np.nan, np.inf]), "more": np.zeros(3),
    }  # fmt: skip
    np.savez_compressed(model.with_name(GOLDEN_FILE), **given)
    found = read_golden(model)
    assert found is not None
    assert found.others == ("more",)
    assert {f"in.{name}" for name in found.inputs} == {name for name in given if name.startswith("in.")}
    for name, array in found.inputs.items():
        wanted = np.asarray(given[f"in.{name}"])
        assert array.shape == wanted.shape
        assert array.tolist() == wanted.tolist()
        assert array.dtype == (object if name == "text" else wanted.dtype.newbyteorder("="))
    assert found.inputs["half"].dtype == BFLOAT16
    assert np.isnan(found.outputs["y"][0])
    less = read_golden(model, inputs_only=True)
    assert less is not None
    assert less.outputs["y"].size == 0


def test_without_a_file_there_are_none(model: Path) -> None:
    """Most models have none."""
    assert read_golden(model) is None


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (npy(np.array([{"a": 1}], object), allow_pickle=True), "holds Python objects"),
        (header(HEADER.replace("<f4", "|O") % 1, pickle.dumps(os.getcwd)), "Python objects"),
        (npy(np.zeros(2, [("a", "f4")])), "is of type"),
        (npy(np.zeros(2, "M8[s]")), "is of type"),
        (npy(np.zeros(2, "c8")), "is of type"),
        (npy(np.array([b"a"])), "is of type"),
        (header(HEADER % 2**60, bytes(8)), "announces 1152921504606846976 elements"),
        (header(HEADER % "2**60", bytes(8)), ""),
        (header(HEADER % -1, bytes(8)), "announces -1 elements"),
        (header(HEADER % 3, bytes(8)), "other than the 12 bytes of its shape"),
        (header(HEADER % 1, bytes(8)), "other than the 4 bytes of its shape"),
        (header("(" * 9000 + ")" * 9000 + "\n"), ""),
        (header("{'descr': '<U0', 'fortran_order': False, 'shape': (1152921504606846976,), }\n"), ""),
        (header("{'descr': ('<f4', (2**30,)), 'fortran_order': False, 'shape': (1,), }\n"), ""),
        (b"\x93NUMPY\x03\x00" + bytes(20), "version 3.0"),
        (b"no array at all", ""),
        (b"", ""),
    ],
)  # fmt: skip
def test_what_is_no_plain_array_is_refused(model: Path, content: bytes, problem: str) -> None:
    """With its name; nothing is unpickled or set aside for what is not there."""
    path = put(model, in_x=content)
    with pytest.raises(ConfigError) as refused:
        read_golden(model)
    assert str(refused.value).startswith(f"{path}: in.x: ")
    assert problem in str(refused.value)


@pytest.mark.parametrize("what", ["folder", "pipe", "link", "dangling", "garbage", "empty", "cut", "large"])
def test_what_is_no_archive_is_refused(model: Path, tmp_path: Path, what: str) -> None:
    """Whatever lies there, nobody waits for it."""
    path = put(model, in_x=npy(np.zeros(1000)))
    content = path.read_bytes()
    path.unlink()
    match what:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            (tmp_path / "secret.npz").write_bytes(content)
            path.symlink_to(tmp_path / "secret.npz")
        case "dangling":
            path.symlink_to("gone")
        case "garbage":
            path.write_bytes(b"PK\x05\x06" + b"\xff" * 100)
        case "empty":
            path.touch()
        case "cut":
            path.write_bytes(content[:-5])
        case "large":
            path.touch()
            os.truncate(path, LIMIT_BYTES + 1)
    with pytest.raises(ConfigError) as refused:
        read_golden(model)
    assert str(refused.value).startswith(f"{path}: ")
    assert len(str(refused.value)) > len(f"{path}: ")


def test_a_bomb_is_refused_before_it_goes_off(model: Path) -> None:
    """A few hundred thousand bytes that would be a gigabyte."""
    path = model.with_name(GOLDEN_FILE)
    zeros = bytes(2**24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("in.x.npy", "w") as member:
        for _ in range(LIMIT_BYTES // len(zeros) + 1):
            member.write(zeros)
    assert path.stat().st_size < 2**20
    with pytest.raises(ConfigError, match="its arrays have more than"):
        read_golden(model)


def test_a_member_that_is_larger_than_it_says_is_refused(model: Path) -> None:
    """The index and the members are written by the same stranger."""
    path = put(model, zipfile.ZIP_DEFLATED, in_x=npy(np.zeros(1000)))
    content = bytearray(path.read_bytes())
    index = content.rfind(b"PK\x01\x02")
    content[index + 24 : index + 28] = (500).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"in\.x: "):
        read_golden(model)


def test_an_index_of_millions_is_not_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a long one nor one that is said to lie elsewhere."""
    monkeypatch.setattr(golden, "MOST_ARRAYS", 3)
    put(model, in_a=npy(np.zeros(1)), in_b=npy(np.zeros(1)), in_c=npy(np.zeros(1)))
    assert read_golden(model) is not None
    path = put(model, **{f"in_{n}": npy(np.zeros(1)) for n in range(4)})
    with pytest.raises(ConfigError, match="more than 3 arrays"):
        read_golden(model)
    content = put(model, in_a=npy(np.zeros(1))).read_bytes()
    at = content.rfind(b"PK\x05\x06")
    path.write_bytes(content[:at] + b"PK\x06\x07" + bytes(16) + content[at:])
    with pytest.raises(ConfigError, match="more than 3 arrays"):
        read_golden(model)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_what_numpy_writes_is_unpacked(model: Path, method: int) -> None:
    """Other ways of compressing take memory as the file says."""
    put(model, method, in_x=npy(np.zeros(1000)))
    with pytest.raises(ConfigError, match="compressed as no"):
        read_golden(model)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(model: Path) -> None:
    """Which of them would count?"""
    path = put(model, in_x=npy(np.zeros(1)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("in.x.npy", npy(np.ones(1)))
    with pytest.raises(ConfigError, match="in.x: is there twice"):
        read_golden(model)
