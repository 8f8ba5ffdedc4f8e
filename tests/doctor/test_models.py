"""What the doctor says of a repository; models are opened in a child only where a test says so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from infold.doctor import Finding, Level, models
from infold.doctor.models import Shelf as Looked
from infold.doctor.models import check_models
from infold.errors import RuntimeCrashError
from infold.runtime import Device, Placement
from infold.settings import Settings
from shelves import Shelf, scaled

CPU = Placement(Device.CPU, "asked for")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty repository."""
    return Shelf(tmp_path / "models")


def looked(shelf: Shelf, why_closed: str = "as asked", **settings: Any) -> Looked:
    return check_models(Settings(repository=shelf.root, **settings), CPU, why_closed)


def of(found: Looked, name: str) -> list[Finding]:
    return [each for each in found.findings if each.topic == f"model {name}"]


def test_versions_are_found_as_the_service_finds_them(shelf: Shelf, tmp_path: Path) -> None:
    """Really opened, each in a child: garbage leaves its place to the version before, wrong answers stop."""
    ones = np.ones(2, np.float32)
    shelf.put("good", 1, 2)
    shelf.spoil("good", 2)
    golden = shelf.put("wrong", 1, 2) / "golden.npz"
    np.savez(golden, **{"in.x": ones, "out.y": 3 * ones})
    before = [(each, each.stat().st_mtime_ns) for each in sorted(tmp_path.rglob("*"))]
    found = looked(shelf, "")
    assert [(each, each.stat().st_mtime_ns) for each in sorted(tmp_path.rglob("*"))] == before
    assert found.ready == ["good"]
    first, second = of(found, "good")
    assert (first.level, first.facts["state"]) == (Level.OK, "ready") and "would be ready" in first.text
    assert (second.level, second.facts["state"]) == (Level.WARN, "failed")
    assert "another version would answer" in second.text
    (wrong,) = of(found, "wrong")
    assert wrong.level is Level.BAD and f"{golden}: out.y" in wrong.text


def test_each_error_has_the_words_of_the_service(shelf: Shelf) -> None:
    """And stops it, where the model is required."""
    shelf.put("m")
    shelf.configure("m", "x = 1")
    (found,) = of(looked(shelf), "m")
    assert found.level is Level.BAD and f"{shelf.root}/m/model.toml: x: unknown" in found.text
    (found,) = of(looked(shelf, required_models=["other"]), "m")
    assert found.level is Level.WARN


def test_a_model_that_is_required_and_not_there_stops_the_service(shelf: Shelf) -> None:
    """As it does."""
    shelf.put("m")
    (found,) = of(looked(shelf, required_models=["gone"]), "gone")
    assert (found.level, "is required, and is no model" in found.text) == (Level.BAD, True)


def test_a_folder_without_a_version_says_what_one_is(shelf: Shelf) -> None:
    """The commonest mistake of all, together with a marker that nobody wrote."""
    (shelf.root / "m" / "v1").mkdir(parents=True)
    onnx.save(scaled(1), str(shelf.root / "m" / "v1" / "model.onnx"))
    shelf.put("unmarked")
    (found,) = of(looked(shelf), "m")
    assert found.level is Level.WARN and "a folder with a plain number" in found.remedy
    (found,) = of(looked(shelf, finished_marker="READY"), "unmarked")
    assert found.level is Level.WARN and "READY" in found.remedy


def test_by_name_only_what_is_loaded_at_the_start_counts(shelf: Shelf) -> None:
    """Another model that is bad is a warning, and one that is not there stops the start."""
    shelf.put("one")
    shelf.spoil("two")
    found = looked(shelf, model_control="explicit", load_models=["one", "three"])
    assert found.ready == ["one"]
    assert [each.level for each in of(found, "two")] == [Level.WARN]
    assert [each.level for each in of(found, "three")] == [Level.BAD]
    assert looked(shelf, model_control="explicit").ready == []


@pytest.mark.parametrize("kind", ["missing", "file", "ambiguous"])
def test_a_repository_that_cannot_be_listed_stops_the_service(shelf: Shelf, kind: str) -> None:
    """In its own words."""
    root = shelf.root / kind
    if kind == "file":
        root.write_text("")
    elif kind == "ambiguous":
        shelf.put("ambiguous", 1)
        (root / "m" / "1").mkdir(parents=True)
        onnx.save(scaled(1), str(root / "m" / "1" / "model.onnx"))
    found = check_models(Settings(repository=root), CPU, "as asked")
    assert [(each.level, each.topic) for each in found.findings] == [(Level.BAD, "repository")]


def test_one_model_in_the_folder_is_looked_at_as_it_is_served(shelf: Shelf) -> None:
    """Under the name that is given."""
    onnx.save(scaled(2), str(shelf.root / "model.onnx"))
    found = looked(shelf, model_name="isvc")
    assert found.ready == ["isvc"] and of(found, "isvc")[0].facts["version"] == 1


def test_a_name_that_a_repository_has_no_use_for_is_told(shelf: Shelf) -> None:
    """KServe gives one always."""
    shelf.put("m")
    assert looked(shelf, model_name="isvc").findings[0].level is Level.WARN
    assert looked(shelf).findings[0].level is Level.OK


def test_weights_and_what_is_missing_of_them_are_told(shelf: Shelf) -> None:
    """Without opening anything."""
    folder = shelf.put("m")
    model = scaled(2)
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save(model, str(folder / "model.onnx"))
    (found,) = of(looked(shelf), "m")
    assert found.facts["weight_files"] == ["w.bin"] and "weights in 1 file" in found.text
    (folder / "w.bin").unlink()
    (found,) = of(looked(shelf), "m")
    assert found.level is Level.BAD and "weights in 'w.bin': No such file" in found.text


def test_a_report_about_another_file_is_a_warning(shelf: Shelf) -> None:
    """What was proven is not what is served."""
    report = shelf.put("m") / "model.fold-report.json"
    for sha256, level in (("0" * 64, Level.WARN), (None, Level.OK)):
        sha256 = sha256 or of(looked(shelf), "m")[0].facts["sha256"]
        report.write_text(json.dumps({"result": {"sha256": sha256}}))
        assert [each.level for each in of(looked(shelf), "m")] == [level]
    report.write_text("[" * 100_000)
    assert [each.level for each in of(looked(shelf), "m")] == [Level.OK]


def test_what_a_child_dies_of_is_that_version_s_alone(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is."""
    shelf.put("a")
    shelf.put("b")

    def opens(version: Any) -> None:
        if version.name == "a":
            raise RuntimeCrashError(str(version.path), "the trial of it was ended by SIGSEGV")

    monkeypatch.setattr(models, "_opener", lambda *_: opens)
    found = looked(shelf, "")
    assert "SIGSEGV" in of(found, "a")[0].text and found.ready == ["b"]


def test_models_that_do_not_fit_into_memory_are_a_warning(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that starts and is killed is none."""
    shelf.put("m")
    for there, level in ((80, Level.WARN), (2**30, Level.OK)):
        monkeypatch.setattr(models, "machine_bytes", lambda there=there: there)
        assert looked(shelf).findings[-1].level is level


def test_an_empty_repository_is_a_warning(shelf: Shelf) -> None:
    """The service starts over one, and serves nothing."""
    (found,) = looked(shelf).findings
    assert found.level is Level.WARN and os.fspath(shelf.root) in found.text
