"""A repository elsewhere: once per node, only what has changed, and never half of a version."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infold.cluster.pulling import Pulled, is_url
from infold.errors import ConfigError
from infold.serving import ModelRepository
from shelves import Shelf

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """What lies elsewhere."""
    found = Shelf(tmp_path / "there")
    found.put("m", 1, 2.0)
    found.configure("m", 'versions = "all"')
    return found


@pytest.fixture
def pulled(shelf: Shelf, tmp_path: Path) -> Pulled:
    """The copy of it."""
    return Pulled(shelf.root.as_uri(), tmp_path / "cache")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that are read from there."""
    from infold.cluster.remote import Remote, RemoteFile

    names: list[str] = []
    fetch = Remote.fetch

    def noted(self: Remote, model: str, file: RemoteFile, target: Path) -> None:
        names.append(file.name)
        fetch(self, model, file, target)

    monkeypatch.setattr(Remote, "fetch", noted)
    return names


def numbers(pulled: Pulled) -> list[int]:
    """Versions that a repository finds in the copy."""
    return [each.number for each in ModelRepository(pulled.root).versions("m")]


def test_the_copy_is_a_repository_like_any_other(shelf: Shelf, pulled: Pulled) -> None:
    """With what is beside the versions, and without what pulling needs for itself."""
    pulled.pull("m")
    repository = ModelRepository(pulled.root)
    assert repository.names() == ("m",)
    assert repository.policy("m") == "all"
    assert (pulled.root / "m/1/model.onnx").read_bytes() == (shelf.root / "m/1/model.onnx").read_bytes()
    assert pulled.names() == ["m"]


def test_only_what_has_changed_is_pulled_again(shelf: Shelf, pulled: Pulled, fetched: list[str]) -> None:
    """A new version, and nothing of the old one."""
    pulled.pull("m")
    pulled.pull("m")
    assert sorted(fetched) == ["1/model.onnx", "model.toml"]
    shelf.put("m", 2, 3.0)
    pulled.pull("m")
    assert fetched[2:] == ["2/model.onnx"]
    assert numbers(pulled) == [1, 2]


def test_a_version_that_is_written_anew_is_pulled_anew(shelf: Shelf, pulled: Pulled) -> None:
    """Its number stays, and what lies there counts."""
    pulled.pull("m")
    shelf.put("m", 1, 4.0)
    pulled.pull("m")
    assert (pulled.root / "m/1/model.onnx").read_bytes() == (shelf.root / "m/1/model.onnx").read_bytes()


def test_what_is_gone_there_is_gone_here(shelf: Shelf, pulled: Pulled) -> None:
    """A version that was taken back is not served from a copy."""
    shelf.put("m", 2)
    pulled.pull("m")
    shelf.take("m", 1)
    (shelf.root / "m" / "model.toml").unlink()
    pulled.pull("m")
    assert numbers(pulled) == [2]
    assert ModelRepository(pulled.root).policy("m") == "latest"


def test_a_version_is_never_half_there(shelf: Shelf, pulled: Pulled, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks off leaves what was there, and the next one goes on."""
    from infold.cluster.remote import Remote

    pulled.pull("m")
    shelf.put("m", 2, 3.0, extra=b"weights")

    def broken(self: Remote, model: str, file: Any, target: Path) -> None:
        if file.name == "2/model.onnx":
            raise ConfigError("repository", "the line is cut")
        target.write_bytes(b"")

    with monkeypatch.context() as cut:
        cut.setattr(Remote, "fetch", broken)
        with pytest.raises(ConfigError, match="cut"):
            pulled.pull("m")
    assert numbers(pulled) == [1]
    assert not (pulled.root / "m/2").exists()
    pulled.pull("m")
    assert numbers(pulled) == [1, 2]


def test_a_file_that_changes_meanwhile_is_refused(
    shelf: Shelf, pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version would be half the one and half the other."""
    from infold.cluster.remote import Remote

    files = Remote.files
    monkeypatch.setattr(Remote, "files", lambda self, model: [_longer(each) for each in files(self, model)])
    with pytest.raises(ConfigError, match=r"m/1/model.onnx: changed while it was pulled"):
        pulled.pull("m")


def _longer(file: Any) -> Any:
    from dataclasses import replace

    return replace(file, size=file.size + 1)


def test_a_version_without_its_marker_is_not_pulled(shelf: Shelf, tmp_path: Path) -> None:
    """Whoever uploads it is not through."""
    shelf.put("m", 2, done=b"")
    pulled = Pulled(shelf.root.as_uri(), tmp_path / "cache", "done")
    pulled.pull("m")
    assert numbers(pulled) == [2]


def test_many_pull_as_one(pulled: Pulled, fetched: list[str]) -> None:
    """Replicas that start together wait for the first of them."""
    threads = [threading.Thread(target=pulled.pull, args=("m",)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(fetched) == ["1/model.onnx", "model.toml"]


@pytest.fixture
def bucket() -> Iterator[Any]:
    """Files that have no folder but in their names, and no time that they were changed at."""
    files = fsspec.filesystem("memory")
    files.pipe({"/bucket/m/1/model.onnx": b"one", "/bucket/m/model.toml": b"", "/bucket/m/1/w/x.bin": b"x"})
    yield files
    files.rm("/bucket", recursive=True)


def test_a_bucket_is_a_repository(bucket: Any, tmp_path: Path) -> None:
    """Weights in folders of their own come along."""
    pulled = Pulled("memory://bucket", tmp_path)
    assert pulled.names() == ["m"]
    pulled.pull("m")
    assert (pulled.root / "m/1/w/x.bin").read_bytes() == b"x"
    bucket.pipe("/bucket/m/1/model.onnx", b"another")
    pulled.pull("m")
    assert (pulled.root / "m/1/model.onnx").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nothing", "repository memory://nothing/m: there is no such model"),
        ("unheard-of://x", "repository unheard-of://x: ValueError: Protocol not known: unheard-of"),
    ],
)
def test_what_cannot_be_had_is_named_by_its_url(url: str, said: str, tmp_path: Path) -> None:
    """And not by a path of the cache."""
    with pytest.raises(ConfigError, match=f"^{said}"):
        Pulled(url, tmp_path).pull("m")


def test_a_name_that_leads_elsewhere_is_refused(bucket: Any, tmp_path: Path) -> None:
    """A bucket's keys are anything; files are written below the cache alone."""
    bucket.store["/bucket/m/../../evil"] = bucket.store["/bucket/m/1/model.onnx"]
    with pytest.raises(ConfigError, match="is no name of a file in it"):
        Pulled("memory://bucket", tmp_path).pull("m")
    del bucket.store["/bucket/m/../../evil"]


def test_a_path_is_no_url() -> None:
    """It is used where it is."""
    assert not is_url("/srv/models") and not is_url("models")
    assert is_url("s3://bucket/models") and is_url("file:///srv/models")
