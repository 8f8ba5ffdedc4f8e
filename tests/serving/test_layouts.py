"""One model in the folder that is served, or a model without folders of versions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from infold.errors import ConfigError, LoadError, RepositoryError, SessionError
from infold.runtime import Cache
from infold.runtime.model_files import check_files
from infold.serving import ModelRepository, ModelVersion, State
from infold.serving.layouts import Layout
from infold.serving.shadowing import _path
from managers import following, serving
from shelves import GARBAGE, Shelf, scaled


def lay(root: Path, *files: str, content: bytes = b"graph") -> Path:
    """Files below a folder, whose content nobody opens."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def replaced(folder: Path, factor: float) -> None:
    """The graph of a flat model is another one from now on; nobody sees half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / ".new"
    onnx.save(scaled(factor), str(new))
    new.rename(folder / "model.onnx")


def listed(root: Path, marker: str = "", name: str = "") -> dict[str, list[int]]:
    """Numbers of versions, by model."""
    found = ModelRepository(root, marker, name).list()
    return {model: [each.number for each in versions] for model, versions in found.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["model.onnx"], {"models": [1]}),
        (["model.onnx", "model.toml", "weights.bin", "parts/w.bin", ".hidden/1/model.onnx"], {"models": [1]}),
        (["2/model.onnx", "10/model.onnx", "model.toml"], {"models": [2, 10]}),
        (["digits/model.onnx"], {"digits": [1]}),
        (["digits/model.onnx", "resnet/3/model.onnx"], {"digits": [1], "resnet": [3]}),
        (["7/1/model.onnx"], {"7": [1]}),
        (["01/model.onnx"], {"01": [1]}),
        (["digits/weights.bin"], {}),
        ([], {}),
    ],
)  # fmt: skip
def test_what_lies_there_says_how_it_is_meant(
    tmp_path: Path, files: list[str], expected: dict[str, list[int]]
) -> None:
    """A graph at the top, or in a folder with a number there, is the one model of the folder."""
    root = tmp_path / "models"
    root.mkdir()
    lay(root, *files)
    (root / "model.toml").write_bytes(b"") if "model.toml" in files else None
    assert listed(root) == expected
    repository = ModelRepository(root)
    assert all(repository.has_version(name) for name in expected)
    assert repository.listing("nobody").versions == ()


@pytest.mark.parametrize(
    ("files", "both"),
    [
        (["model.onnx", "2/model.onnx"], ("holds model.onnx as its only", "2/model.onnx")),
        (["digits/model.onnx", "digits/2/model.onnx"], ("digits: holds model.onnx", "2/model.onnx")),
        (["model.onnx", "digits/1/model.onnx"], ("of one model itself", "digits/1/model.onnx")),
        (["model.onnx", "digits/model.onnx"], ("of one model itself", "digits/model.onnx")),
        (["1/model.onnx", "digits/1/model.onnx"], ("of one model itself", "digits/1/model.onnx")),
        (["1/model.onnx", "2/1/model.onnx"], ("of one model itself", "2/1/model.onnx")),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(
    tmp_path: Path, files: list[str], both: tuple[str, str]
) -> None:
    """And both are named."""
    with pytest.raises(RepositoryError) as refused:
        listed(lay(tmp_path / "models", *files))
    assert all(each in str(refused.value) for each in both)


def test_other_models_are_served_beside_one_that_is_refused(tmp_path: Path) -> None:
    """The mistake is that model's alone."""
    repository = ModelRepository(
        lay(tmp_path / "models", "bad/model.onnx", "bad/1/model.onnx", "good/model.onnx")
    )
    assert repository.names() == ("bad", "good")
    assert [each.number for each in repository.listing("good").versions] == [1]


@pytest.mark.parametrize(
    ("folder", "asked", "name"),
    [("models", "", "models"), ("models", "digits", "digits"), ("a model", "", "model"), ("m", "7", "7")],
)
def test_its_name_is_its_folder_s_or_the_one_that_is_given(
    tmp_path: Path, folder: str, asked: str, name: str
) -> None:
    """A folder whose name no request could spell is called `model`."""
    assert listed(lay(tmp_path / folder, "model.onnx"), name=asked) == {name: [1]}


def test_a_folder_by_a_relative_path_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`infold serve .` in the model's folder."""
    monkeypatch.chdir(lay(tmp_path / "digits", "model.onnx"))
    (version,) = ModelRepository(Path()).versions("digits")
    assert (version.folder, version.root, version.path) == (Path(), Path(), Path("model.onnx"))
    check_files(version.path, root=version.root)


def test_a_name_that_is_given_leaves_a_repository_as_it_is(tmp_path: Path) -> None:
    """There models have names already."""
    assert listed(lay(tmp_path / "models", "digits/1/model.onnx"), name="isvc") == {"digits": [1]}


def test_a_flat_model_is_finished_once_its_marker_lies_beside_it(tmp_path: Path) -> None:
    """As a version is."""
    root = lay(tmp_path / "models", "model.onnx")
    assert listed(root, marker="READY") == {} and not ModelRepository(root, "READY").has_version("models")
    assert listed(lay(root, "READY"), marker="READY") == {"models": [1]}


def test_the_one_model_toml_of_a_flat_model_speaks_for_it(tmp_path: Path) -> None:
    """It is read once, be it written for the model or for the version."""
    root = lay(tmp_path / "models", "model.onnx")
    (root / "model.toml").write_text("versions = 'all'\n[batching]\nmax_rows = 7\n")
    repository = ModelRepository(root)
    (version,) = repository.versions("models")
    assert (version.config.batching.max_rows, repository.policy("models")) == (7, "all")


def test_a_config_pbtxt_must_agree_with_the_folder_but_not_with_a_name_that_is_given(tmp_path: Path) -> None:
    """Its operator's word is the last; without it the file says what to do. It may name the graph, too."""
    root = lay(tmp_path / "models", "net.onnx")
    (root / "config.pbtxt").write_text('name: "net"\nplatform: "onnxruntime_onnx"\n')
    assert listed(root) == {}
    (root / "config.pbtxt").write_text(
        'name: "net"\nplatform: "onnxruntime_onnx"\ndefault_model_filename: "net.onnx"\n'
    )
    with pytest.raises(ConfigError, match=r"'net' is not 'models'; --model-name says"):
        listed(root)
    assert listed(root, name="isvc") == {"isvc": [1]}


@pytest.mark.parametrize(
    ("layout", "model", "inside", "outside"),
    [
        (Layout(), "root/m/1/model.onnx", "root/shared/w.bin", "w.bin"),
        (Layout(is_flat=True), "root/m/model.onnx", "root/shared/w.bin", "w.bin"),
        (Layout(is_alone=True), "root/1/model.onnx", "root/shared/w.bin", "w.bin"),
        (Layout(is_flat=True, is_alone=True), "root/model.onnx", "root/..data/w.bin", "w.bin"),
    ],
)
def test_links_lead_no_further_than_the_folder_that_is_served(
    tmp_path: Path, layout: Layout, model: str, inside: str, outside: str
) -> None:
    """However deep in it the model lies."""
    lay(tmp_path, model, inside, outside)
    path = tmp_path / model
    assert layout.root(path) == tmp_path / "root"
    for name, target in (("in.bin", inside), ("out.bin", outside)):
        (path.parent / name).symlink_to(os.path.relpath(tmp_path / target, path.parent))
    check_files(path, ["in.bin"], layout.root(path))
    with pytest.raises(SessionError, match="leads out of the repository"):
        check_files(path, ["out.bin"], layout.root(path))


def test_a_shadow_of_a_flat_model_is_a_file_beside_it(tmp_path: Path) -> None:
    """Another version would be a folder in its own, never a neighbour of it."""
    root = lay(tmp_path / "models", "model.onnx")
    paths = []
    for shadow in ("file = 'unfolded.onnx'", "version = 2", "version = 1"):
        (root / "model.toml").write_text(f"[shadow]\n{shadow}\n")
        version: ModelVersion = ModelRepository(root).versions("models")[0]
        assert version.config.shadow is not None
        paths.append(_path(version, version.config.shadow))
    assert paths == [root / "unfolded.onnx", root / "2/model.onnx", root / "model.onnx"]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_flat_model_is_replaced_while_it_is_served(shelf: Shelf, cache: Cache, alone: bool) -> None:
    """By a file that takes its place; by one that does not load it is not."""
    folder = shelf.root if alone else shelf.root / "m"
    replaced(folder, 2)
    name = folder.name
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        assert (await served.factor(name), await served.factor(name, 1)) == (2, 2)
        replaced(folder, 3)
        await looks.look()
        await looks.look()
        assert await served.factor(name) == 3
        (folder / ".new").write_bytes(GARBAGE)
        (folder / ".new").rename(folder / "model.onnx")
        for _ in range(3):
            await looks.look()
        assert await served.factor(name) == 3 and served.catalogue.is_ready
        assert served.states == {(name, 1): State.READY} and len(served.reasons) == 1
        assert served.loads == [(name, 1)] * 3


async def test_a_flat_model_may_grow_versions_while_it_is_served(shelf: Shelf, cache: Cache) -> None:
    """As long as there are both, what was served is served on."""
    replaced(shelf.root / "m", 2)
    async with serving(shelf, cache) as served, following(served) as looks:
        await served.manager.reconcile()
        shelf.put("m", 2, 5)
        await looks.look()
        await looks.look()
        assert await served.factor("m") == 2
        (shelf.root / "m" / "model.onnx").unlink()
        await looks.look()
        await looks.look()
        assert await served.factor("m") == 5


async def test_a_flat_model_is_loaded_and_unloaded_by_name(shelf: Shelf, cache: Cache) -> None:
    """A folder in it is no model of that name; there is nothing to roll back to."""
    replaced(shelf.root, 2)
    (shelf.root / "1").mkdir()
    async with serving(shelf, cache, asked=[]) as served:
        assert await served.manager.models_on_disk() == ["models"]
        await served.manager.load("models")
        assert await served.factor("models") == 2
        with pytest.raises(LoadError, match="wants none of"):
            await served.manager.roll_back("models", 1)
        with pytest.raises(LoadError, match="no version of it"):
            await served.manager.load("1")
        await served.manager.unload("models")
        assert served.states == {("models", 1): State.UNLOADED}


async def test_golden_samples_beside_a_flat_model_are_held_against_it(shelf: Shelf, cache: Cache) -> None:
    """A model that fails them is not served."""
    replaced(shelf.root, 2)
    ones = np.ones(2, np.float32)
    np.savez(shelf.root / "golden.npz", **{"in.x": ones, "out.y": 3 * ones})
    async with serving(shelf, cache) as served:
        await served.manager.reconcile()
        assert served.states == {("models", 1): State.FAILED}
        assert "golden.npz: out.y" in served.reasons[0]
