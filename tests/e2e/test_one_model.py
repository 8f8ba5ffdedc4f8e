"""The folder that KServe mounts, served over a socket."""

from __future__ import annotations

import http.client
import json
import shutil
from pathlib import Path

from command_line import assert_error, infold
from infold.settings import Settings
from servers import running, serve_fails

DIGITS = Path(__file__).parents[2] / "models" / "digits"


def test_a_flat_folder_is_served_under_the_name_that_is_given(tmp_path: Path) -> None:
    """With its labels and golden samples; metadata names it, and its only version is number 1."""
    root = tmp_path / "models"
    shutil.copytree(DIGITS / "1", root)
    for name in ("model.toml", "labels.txt"):
        shutil.copy(DIGITS / name, root)
    with running(root, tmp_path / "log", INFOLD_MODEL_NAME="isvc") as server:
        connection = http.client.HTTPConnection(server.address, timeout=20)
        connection.request("GET", "/v2/models/isvc")
        about = json.loads(connection.getresponse().read())
        assert (about["name"], about["versions"]) == ("isvc", ["1"])
        picture = (Path(__file__).parents[2] / "examples/digits/seven.png").read_bytes()
        connection.request("POST", "/v1/models/isvc:predict", picture, {"content-type": "image/png"})
        (told,) = json.loads(connection.getresponse().read())["predictions"]
        assert told["classes"][0]["label"] == "7"
        connection.close()
        assert server.stop() == 0


def test_a_folder_that_is_both_is_refused_at_the_start(tmp_path: Path) -> None:
    """By one line that names both, and a name that no request could spell by another."""
    shutil.copytree(DIGITS / "1", tmp_path / "models")
    shutil.copytree(DIGITS / "1", tmp_path / "models" / "2")
    code, said = serve_fails(str(tmp_path / "models"))
    assert code == 1 and "holds model.onnx as its only version, and 2/model.onnx" in said
    code, said = serve_fails(str(tmp_path / "models"), "--model_name", "a/b")
    assert code == 2 and "--model-name" in said


def test_an_empty_name_is_none() -> None:
    """As charts have it."""
    assert Settings(model_name="").model_name == ""


def test_a_version_is_not_written_beside_a_flat_model(tmp_path: Path) -> None:
    """The service would refuse both; what lies there stays as it is."""
    shutil.copytree(DIGITS / "1", tmp_path / "models" / "digits")
    source = Path(__file__).parents[2] / "examples/digits/digits.onnx"
    for repository, name in ((tmp_path / "models", "digits"), (tmp_path / "models/digits", "other")):
        before = sorted(repository.rglob("*"))
        done = infold("convert", source, "--repository", repository, "--name", name, "--no-verify")
        assert_error(done, 1, "digits: holds model.onnx itself")
        assert sorted(repository.rglob("*")) == before
