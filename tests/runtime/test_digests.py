"""A file's digest is remembered as long as nothing tells that the file has changed."""

import hashlib
import os
import time
from pathlib import Path
from unittest import mock

import pytest

from infold.runtime.digests import Digest, Digests

LOCATION = b"\x0a\x08location\x12\x05w.bin"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that was written a while ago."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one" + LOCATION)
    return path


@pytest.fixture
def later() -> object:
    """The clock a minute on, so that what was just written counts as settled."""
    real = time.time_ns
    with mock.patch("infold.runtime.digests.time.time_ns", side_effect=lambda: real() + 60 * 10**9) as clock:
        yield clock


def read_counted(digests: Digests, model: Path) -> tuple[Digest, int]:
    """The digest, and how often the file was read for it."""
    with mock.patch.object(Path, "open", autospec=True, side_effect=Path.open) as opened:
        digest = digests.of(model)
    return digest, sum(call.args[0] == model for call in opened.call_args_list)


def test_a_digest_is_that_of_the_bytes_and_tells_the_weight_files(model: Path, tmp_path: Path) -> None:
    """What the cache's key is made of."""
    expected = hashlib.sha256(model.read_bytes()).hexdigest()
    assert Digests(tmp_path).of(model) == Digest(expected, ("w.bin",))
    assert Digests(None).of(model) == Digest(expected, ("w.bin",))


@pytest.mark.usefixtures("later")
def test_a_file_that_lies_as_it_lay_is_not_read_again(model: Path, tmp_path: Path) -> None:
    """Also by another process."""
    first, reads = read_counted(Digests(tmp_path), model)
    assert reads == 1
    assert read_counted(Digests(tmp_path), model) == (first, 0)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("how", ["written", "same size and time", "replaced"])
def test_a_file_that_has_changed_is_read_again(how: str, model: Path, tmp_path: Path) -> None:
    """Whatever hides it: size and time alone can be put back."""
    digests = Digests(tmp_path)
    before, times = digests.of(model), model.stat()
    if how == "replaced":
        other = tmp_path / "other"
        other.write_bytes(b"two" + LOCATION)
        other.replace(model)
    else:
        model.write_bytes(b"two" + (b"" if how == "written" else LOCATION))
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digests.of(model) != before


def test_a_file_written_this_moment_is_not_remembered(model: Path, tmp_path: Path) -> None:
    """It could be written once more at the same time, as far as its file system can tell."""
    digests = Digests(tmp_path)
    assert read_counted(digests, model)[1] == 1
    assert read_counted(digests, model)[1] == 1


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"stamp": 1}', '{"stamp": [], "sha256": 3, "weight_files": []}']
)
def test_a_memory_that_is_damaged_is_none(text: str, model: Path, tmp_path: Path) -> None:
    """The file is read again."""
    digest = Digests(tmp_path).of(model)
    (kept,) = (tmp_path / ".digests").iterdir()
    kept.write_text(text)
    assert read_counted(Digests(tmp_path), model) == (digest, 1)


@pytest.mark.parametrize("size", [7, 20, 64, 1000])
def test_a_file_that_is_read_in_pieces_tells_the_same(tmp_path: Path, size: int) -> None:
    """Wherever they are cut: a name may lie across two of them."""
    names = ("w.bin", "x" * 100 + ".bin", "y" * 300)
    entries = [b"\x0a\x08location\x12" + length(name) + name.encode() for name in names]
    path = tmp_path / "model.onnx"
    path.write_bytes(b"start" + b"between".join(entries) + b"end")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    with mock.patch("infold.runtime.digests.PIECE_BYTES", size):
        assert Digests(None).of(path) == Digest(expected, tuple(sorted(names)))


def length(name: str) -> bytes:
    """Of a name, as protobuf has it."""
    return bytes([len(name)]) if len(name) < 0x80 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
