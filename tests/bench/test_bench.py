"""`infold bench` as a user meets it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from command_line import assert_error, infold
from pictures import encoded, noise
from stub_server import METADATA, Reply, doubled, doubled_in_binary, stub

SHORT = ("--seconds", "0.2", "--warmup", "0.05")
CLOSED = (*SHORT, "--loop", "closed", "--concurrency", "2")

bench = partial(infold, "bench")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model that doubles, and one whose picture is of open size."""
    texts = {
        "double": "double (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }",
        "open": "open (float[batch, 1, h, w] x) => (float[batch, 1, h, w] y) { y = Add(x, x) }",
    }
    for name, text in texts.items():
        folder = tmp_path / "models" / name / "1"
        folder.mkdir(parents=True)
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
        onnx.save(model, str(folder / "model.onnx"))
    return tmp_path / "models"


def test_a_repository_is_served_measured_and_held_against_bare_onnxruntime(
    repository: Path, tmp_path: Path
) -> None:
    """Table, sentence, CSV and chart of one run; nothing is left running."""
    plot, rows = tmp_path / "b.svg", tmp_path / "b.csv"
    done = bench(
        repository, "--model", "double", *SHORT, "--concurrency", "1,2", "--rates", "50,100",
        "--csv", rows, "--plot", plot,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "load" and "of bare" in lines[0]
    assert any(line.startswith("closed, 1 caller ") for line in lines)
    assert lines[-1].startswith("peak ") and "of bare onnxruntime)" in lines[-1]
    with rows.open() as file:
        table = list(csv.DictReader(file))
    assert [row["loop"] for row in table if row["loop"] != "bare"] == ["closed", "closed", "open", "open"]
    assert max(float(row["share_of_bare"]) for row in table if row["loop"] == "bare") == 1
    assert all(row["wrong"] == row["failed"] == "0" for row in table)
    circles = ElementTree.parse(plot).getroot().iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(circles)) == 8
    assert not list(tmp_path.glob(".*.new"))


def test_a_running_server_is_loaded_and_its_answers_checked() -> None:
    """JSON of the whole result; no share, since nothing is known of its onnxruntime."""
    with stub(doubled) as url:
        done = bench(url, *CLOSED, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["loads"]
    assert row["loop"] == "closed" and row["share_of_bare"] is None and row["wrong"] == 0


def test_the_binary_extension_is_spoken() -> None:
    """The stub reads every byte of it."""
    with stub(doubled_in_binary) as url:
        done = bench(url, *CLOSED, "--body", "binary", "--rows", "3")
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("body", ["json", "binary"])
def test_a_model_of_bfloat16_is_loaded_in_both_forms(tmp_path: Path, body: str) -> None:
    """Every answer is right."""
    folder = tmp_path / "models" / "halves" / "1"
    folder.mkdir(parents=True)
    text = "g (bfloat16[batch, 4] x) => (bfloat16[batch, 4] y) { y = Identity(x) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    onnx.save(model, str(folder / "model.onnx"))
    done = bench(tmp_path / "models", *CLOSED, "--body", body)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_wrong_answers_make_the_exit_code_1() -> None:
    """And are in the table, with the first one told."""

    def forgetful(number: int, body: bytes, headers: dict[str, str]) -> Reply:
        return doubled(number, body if number < 16 else body.replace(b"-", b""), headers)

    with stub(forgetful) as url:
        done = bench(url, *CLOSED)
    assert done.returncode == 1 and done.stderr == ""
    assert "note: wrong answers, the first: request " in done.stdout


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cat.jpeg", "image/jpeg"), ("CAT.WEBP", "image/webp"), ("cat.npy", "application/x-npy")],
)
def test_a_file_is_sent_as_it_is(tmp_path: Path, name: str, kind: str) -> None:
    """To any path of any server, as the type its name says; the answer is held against the first one."""
    seen = set()

    def picture(number: int, body: bytes, headers: dict[str, str]) -> Reply:
        seen.add((body, headers["content-type"], headers.get("key")))
        return 200, b'{"label": "cat"}', {}

    (tmp_path / name).write_bytes(b"\xff\xd8cat")
    with stub(picture, {}) as url:
        done = bench(url, *CLOSED, "--body", tmp_path / name, "--path", "/classify", "--header", "Key: k")
    assert done.returncode == 0, done.stderr
    assert seen == {(b"\xff\xd8cat", kind, "k")}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("JPEG", "/v2/models/open/infer"),
        ("WEBP", "/v2/models/open/infer"),
        ("PNG", "/v1/models/open:predict"),
    ],
)
@pytest.mark.parametrize("config", ["", "[classification]\ntop = 2\n"], ids=["numbers", "classes"])
def test_a_picture_is_sent_to_a_model_that_takes_some(
    repository: Path, tmp_path: Path, kind: str, path: str, config: str
) -> None:
    """Beside bare onnxruntime on tensors of the shape that it becomes; every answer is right."""
    image = '[image]\ncolour = "L"\nresize = "stretch"\nsize = [8, 8]\n'
    (repository / "open" / "model.toml").write_text(image + config)
    (tmp_path / f"cat.{kind}").write_bytes(encoded(noise(40, 50, 3), kind))
    done = bench(
        repository, "--model", "open", "--shape", "1,1,8,8", *CLOSED, "--body", tmp_path / f"cat.{kind}",
        "--path", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    bare, *_, last = [line for line in done.stdout.splitlines() if line.startswith(("bare", "closed"))]
    assert bare.startswith("bare, 1 thread")
    assert last.startswith("closed, 2 callers") and last.split()[-3:] == ["0", "0", "0"]


def test_samples_are_sent(repository: Path, tmp_path: Path) -> None:
    """Samples that fit run; others are refused."""
    np.savez(tmp_path / "s.npz", x=np.ones((5, 4), np.float32))
    done = bench(repository, "--model", "double", *CLOSED, "--samples", tmp_path / "s.npz", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    np.savez(tmp_path / "s.npz", z=np.ones((5, 4), np.float32))
    done = bench(repository, "--model", "double", *CLOSED, "--samples", tmp_path / "s.npz")
    assert_error(done, 1, "has no input 'z'; it has x")


def test_repositories_and_models_that_are_not_there(repository: Path, tmp_path: Path) -> None:
    """Each says what there is."""
    assert_error(bench(tmp_path / "nowhere"), 1, "no such model repository")
    assert_error(bench(repository), 1, "holds double, open; name one with --model")
    assert_error(bench(repository, "--model", "tripel"), 1, "no model 'tripel'", "double, open")
    assert_error(bench(repository, "--model", "double", "--version", "7"), 1, "version 7 is not served")
    assert_error(bench(repository, "--model", "open"), 1, "[?,1,?,?]", "--shape x=")


def test_a_model_that_does_not_load_is_told(repository: Path) -> None:
    """In the server's own words."""
    (repository / "double" / "1" / "model.onnx").write_bytes(b"no model")
    assert_error(bench(repository, "--model", "open", "--shape", "1,1,2,2"), 1, "does not start", "double")


def test_servers_that_cannot_be_loaded() -> None:
    """Nobody there, another kind of server, another model, a refusal, several models."""
    with stub(doubled) as url:
        assert_error(bench(url, "--model", "tripel"), 1, "404 for model 'tripel'", "it has double")
    assert_error(bench(url), 1, url, "cannot be reached")
    with stub(doubled, {}) as url:
        assert_error(bench(url), 1, "no server of Open Inference Protocol v2", "404")
    with stub(doubled, {"/v2": {"name": "s"}, "/v2/models/double": METADATA}) as url:
        assert_error(bench(url), 1, "does not list its models", "--model")
    with stub(doubled_in_binary) as url:
        assert_error(bench(url), 1, "answers 400 for the first request: no binary extension")
    with stub(doubled, {"/v2": {"name": "s"}, "/v2/models": {"models": ["a", "b"]}}) as url:
        assert_error(bench(url), 1, "has a, b; name one with --model")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--concurrency", "0"), ("--concurrency", "1,x"), ("--concurrency", "2.5"),
        ("--concurrency", "99999"),
        ("--rates", "-1"), ("--rates", "nan"), ("--rates", "fast"), ("--seconds", "0"), ("--warmup", "-1"),
        ("--loop", "round"), ("--path", "classify"), ("--body", "no-such-file"), ("--header", "Key"),
        ("--content-type", "text/plain"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(option: str, value: str) -> None:
    """2, and the option's name, before anything is asked."""
    assert_error(bench("http://127.0.0.1:9", option, value), 2, option)


def test_files_that_cannot_be_written_are_refused_first(repository: Path, tmp_path: Path) -> None:
    """Not after minutes of load."""
    start = time.monotonic()
    done = bench(repository, "--model", "double", "--seconds", "60", "--csv", tmp_path / "no" / "b.csv")
    assert_error(done, 1, "there is no folder")
    assert time.monotonic() - start < 30


def long_run(repository: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A bench of a minute, and the processes it has started."""
    command = [sys.executable, "-m", "infold", "bench", str(repository), "--model", "double"]
    command += ["--warmup", "0", "--seconds", "0.5", "--concurrency", ",".join(["2"] * 100)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (started := children.read_text().split()):
        assert process.poll() is None
        time.sleep(0.05)
    return process, [int(child) for child in started]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the server in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("loaded_s", [0.0, 3.5], ids=["at the start", "under load"])
def test_a_signal_ends_it_and_the_server_it_started(
    repository: Path, number: signal.Signals, code: int, loaded_s: float
) -> None:
    """At once, and without a word."""
    process, (server,) = long_run(repository)
    time.sleep(loaded_s)
    asked = time.monotonic()
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (code, "", "")
    assert time.monotonic() - asked < 8
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the server in /proc")
def test_a_server_that_dies_under_load_is_told(repository: Path) -> None:
    """Not as a connection that was refused."""
    process, (server,) = long_run(repository)
    time.sleep(3.5)
    os.kill(server, signal.SIGKILL)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "infold serve died under load (exit code -9)" in errors
