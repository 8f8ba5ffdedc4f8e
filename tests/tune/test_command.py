"""`infold tune` as a user meets it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from command_line import assert_error, infold
from graphs import model, normal
from infold.runtime import Cache, Device, Placement, available_cores, read_config
from infold.serving import ModelRepository
from infold.serving.loading import load

MODELS = Path(__file__).parents[2] / "models"
SHORT = ("--seconds", "0.02")


def tune(*arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    return infold("tune", *arguments, INFOLD_CACHE_DIR=str(cache))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """The shipped repository, to be written to; nothing is said in it yet."""
    return Path(
        shutil.copytree(MODELS, tmp_path / "models", ignore=shutil.ignore_patterns("*.toml", "*.txt"))
    )


def test_digits_are_measured_and_served_as_was_found_best(digits: Path, tmp_path: Path) -> None:
    """Table, sentence, CSV, chart, model.toml; then a service that loads it does as that says."""
    toml = digits / "digits" / "model.toml"
    toml.write_text("# ours\n[batching]\nmax_rows = 4  # is plenty\n")
    rows, plot, cache = tmp_path / "t.csv", tmp_path / "t.svg", tmp_path / "cache"
    done = tune(digits, *SHORT, "--latency-ms", "1000", "--write", "--csv", rows, "--plot", plot, cache=cache)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("digits, version 1 (fp32), on ") and lines[1].split()[:3] == [
        "way",
        "rows",
        "rows/s",
    ]
    assert sum(line.endswith("1000 ms") for line in lines) == 1
    assert any(line.startswith("best plan for replies within 1000 ms: ") for line in lines)
    assert any(line.startswith(f"wrote {toml}: session.intra_op_threads = ") for line in lines)

    with rows.open() as file:
        table = list(csv.DictReader(file))
    assert {row["rows"] for row in table} == {"1", "2", "4"} and {row["precision"] for row in table} == {
        "fp32"
    }
    assert max(float(row["share_of_best"]) for row in table) == 1
    assert all(int(row["threads"]) * int(row["runs_at_once"]) <= available_cores() for row in table)
    circles = ElementTree.parse(plot).getroot().iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(circles)) == len(table)

    assert toml.read_text().startswith("# ours\n[batching]\nmax_rows = ")
    config, cores = read_config(toml), available_cores()
    (version,) = ModelRepository(digits).versions("digits")
    plan = load(version, Placement(Device.CPU, "asked for"), cores, Cache(cache)).plan
    assert (plan.cores, plan.runs) == (config.session.intra_op_threads, config.session.runs)
    assert plan.wide_cores == (cores if config.session.wide == "always" else 0)
    assert plan.join_rows == (config.batching.max_rows if config.batching.join == "always" else 1)


def test_no_plan_within_the_limit_exits_1_and_writes_nothing(digits: Path, tmp_path: Path) -> None:
    """The nearest is named."""
    done = tune(digits, *SHORT, "--latency-ms", "0.0001", "--write", cache=tmp_path / "cache")
    assert done.returncode == 1 and done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("no plan keeps a reply within 0.0001 ms: ")
    assert not (digits / "digits" / "model.toml").exists()
    quiet = tune(digits, *SHORT, "--latency-ms", "0.0001", "--quiet", cache=tmp_path / "cache")
    assert_error(quiet, 1, "no plan keeps a reply within 0.0001 ms", "comes nearest")


def test_json_holds_everything(digits: Path, tmp_path: Path) -> None:
    """For programs; a loose file is measured as well."""
    done = tune(digits / "digits" / "1" / "model.onnx", *SHORT, "--json", cache=tmp_path / "cache")
    facts = json.loads(done.stdout)
    assert facts["version"] == 1 and facts["latency_ms"] is None
    assert facts["best"]["rows_per_s"] > 0 and facts["cells"][0]["precision"] == "fp32"


def test_bad_input_is_one_clear_line(digits: Path, tmp_path: Path) -> None:
    """Before anything is measured, with the exit codes of the other verbs."""
    cache = tmp_path / "cache"
    loose = tmp_path / "loose.onnx"
    onnx.save(model("g (float[N,4] x) => (float[N,4] y) { y = Add (x, x) }", {}), loose)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert_error(tune(tmp_path / "gone", cache=cache), 1, "there is no such file or folder")
    assert_error(tune(broken, cache=cache), 1, "broken.onnx")
    assert_error(tune(loose, "--write", cache=cache), 2, "--write: ", "lies in no model repository")
    assert_error(tune(digits, "--latency-ms", "0", cache=cache), 2, "--latency-ms: must be above 0, not 0")
    assert_error(tune(digits, "--samples", tmp_path / "no.npz", cache=cache), 1, "no.npz: no such file")
    assert_error(tune(digits, "--plot", tmp_path / "no" / "t.svg", cache=cache), 1, "there is no folder")
    (digits / "digits" / "model.toml").mkdir()
    assert_error(tune(digits, "--write", cache=cache), 2, "model.toml: Is a directory")


def test_a_model_of_bfloat16_is_measured_on_golden_rows_and_on_drawn_ones(tmp_path: Path) -> None:
    """As any other."""
    folder = tmp_path / "halves" / "1"
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    onnx.save(model("g (bfloat16[N,4] x) => (bfloat16[N,4] y) { y = Identity (x) }", {}), path)
    for _ in range(2):
        done = tune(path, *SHORT, "--json", cache=tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["best"]["rows_per_s"] > 0
        np.savez(folder / "golden.npz", **{"in.x": normal(3, 4, dtype="bfloat16")})
