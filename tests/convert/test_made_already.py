"""Converting at every start writes a version only where the source is another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import infold.convert.made_already as made_already
from command_line import infold
from infold.convert import Options, convert_to_repository, version_made_from
from infold.errors import ConfigError, SourceError

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source of our own, with a repository beside it that holds it converted."""
    copied = Path(shutil.copy(DIGITS / "digits.onnx", tmp_path / "digits.onnx"))
    convert_to_repository(copied, tmp_path / "models", "digits")
    return copied


def test_the_same_source_is_known_again(source: Path) -> None:
    """By its content: another name for it is no change."""
    moved = source.rename(source.with_name("other.onnx"))
    found = version_made_from(moved, source.parent / "models", "digits", None)
    assert found is not None
    assert found[0] == source.parent / "models/digits/1/model.onnx"
    assert found[1]["folded"] == 5


def test_another_source_is_none(source: Path) -> None:
    """A byte more makes it another; so does a model that is not there."""
    assert version_made_from(source, source.parent / "models", "others", None) is None
    source.write_bytes(source.read_bytes() + b"\xa2\x06\x01x")  # a field that nobody knows
    assert version_made_from(source, source.parent / "models", "digits", None) is None


def test_only_the_newest_version_counts(source: Path) -> None:
    """Going back to an earlier source is a change."""
    version = source.parent / "models/digits"
    shutil.copytree(version / "1", version / "2")
    report = version / "2/model.fold-report.json"
    told = json.loads(report.read_text())
    report.write_text(json.dumps(told | {"source": {"path": "x", "sha256": "0" * 64}}))
    assert version_made_from(source, source.parent / "models", "digits", None) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"source": 3, "infold": "0"}'])
def test_a_report_that_says_nothing_is_not_believed(source: Path, text: str) -> None:
    """Converted again, without a word of it."""
    (source.parent / "models/digits/1/model.fold-report.json").write_text(text)
    assert version_made_from(source, source.parent / "models", "digits", None) is None


def test_another_infold_converts_anew(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fold what the earlier one had to keep."""
    monkeypatch.setattr(made_already, "__version__", "99")
    assert version_made_from(source, source.parent / "models", "digits", None) is None


def test_code_has_no_digest(source: Path) -> None:
    """Nobody can tell whether it has changed, and a source that is missing is told of."""
    with pytest.raises(ConfigError, match="--if-changed"):
        version_made_from("package.module:factory", source.parent / "models", "digits", Options())
    with pytest.raises(SourceError, match="no such file"):
        version_made_from(source.parent / "none.onnx", source.parent / "models", "digits", None)


def test_the_flag_writes_one_version_however_often_it_is_called(source: Path) -> None:
    """And says so; elsewhere it makes no sense."""
    call = ("convert", source, "--repository", source.parent / "models", "--name", "digits", "--if-changed")
    again = infold(*call)
    assert (again.returncode, again.stdout.strip().endswith("nothing to do")) == (0, True)
    assert json.loads(infold(*call, "--json").stdout)["folded"] == 5
    assert [each.name for each in (source.parent / "models/digits").iterdir()] == ["1"]
    refused = infold("convert", source, source.parent / "x.onnx", "--if-changed")
    assert (refused.returncode, "--if-changed" in refused.stderr) == (2, True)
