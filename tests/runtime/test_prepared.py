"""Optimized graphs on disk: made once, found again, never wrong, and never a reason not to serve."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, normal
from infold.errors import SessionError
from infold.runtime import Cache, Prepared, RunOptions, Session, prepared
from infold.runtime.prepared import FACTS, GRAPH, UNUSED_S, WEIGHTS
from infold.tensors import Array

OPTIONS = RunOptions(intra_op_threads=1)
IMAGE = {"x": normal(1, 2, 6, 6)}


def saved(folder: Path, proto: onnx.ModelProto | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(proto or conv_norm(16), str(path))
    return path


def made(cache: Cache, path: Path, options: RunOptions = OPTIONS) -> tuple[str, Prepared]:
    key = cache.key(path, options)
    entry = cache.make(key, path, options, IMAGE)
    assert entry is not None
    return key, entry


def quantized() -> onnx.ModelProto:
    """A convolution between QuantizeLinear and DequantizeLinear."""
    weights: dict[str, Array] = {
        "w": np.random.default_rng(5).integers(-127, 127, (8, 2, 3, 3)).astype(np.int8),
        "s": np.float32(0.02),
        "ws": np.float32(0.01),
        "z": np.int8(0),
    }
    return model(
        """g (float[N,2,6,6] x) => (float[N,8,6,6] y) {
            q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)
            dw = DequantizeLinear (w, ws, z)
            c = Conv <pads=[1,1,1,1]> (d, dw)
            cq = QuantizeLinear (c, s, z)  y = DequantizeLinear (cq, s, z) }""",
        weights,
    )


def branching() -> onnx.ModelProto:
    """A convolution, and an If with convolutions in both branches."""
    weights = {"w": normal(8, 2, 3, 3, seed=1), "v": normal(8, 8, 3, 3, seed=2)}
    return model(
        """g (float[N,2,6,6] x) => (float[N,8,6,6] y) <float zero = {0}> {
            c = Conv <pads=[1,1,1,1]> (x, w)
            sum = ReduceSum <keepdims=0> (x)
            above = Greater (sum, zero)
            y = If (above) <
                then_branch = t () => (float[N,8,6,6] a) { b = Relu (c)  a = Conv <pads=[1,1,1,1]> (b, v) },
                else_branch = e () => (float[N,8,6,6] k) { k = Neg (c) }> }""",
        weights,
    )


@pytest.mark.parametrize("build", [lambda: conv_norm(16), quantized, branching], ids=["conv", "int8", "if"])
def test_a_prepared_graph_gives_the_same_bits(tmp_path: Path, build: Callable[[], onnx.ModelProto]) -> None:
    """As the session that optimizes by itself, for one row and for many."""
    path = saved(tmp_path / "m", build())
    cache = Cache(tmp_path / "cache")
    _, entry = made(cache, path)
    mine, own = entry.open(OPTIONS), Session(path, OPTIONS)
    assert mine.signature == own.signature
    for rows in (1, 3):
        for sign in (1, -1):
            x = {"x": np.abs(normal(rows, 2, 6, 6, seed=rows)) * np.float32(sign)}
            assert mine.run(x)["y"].tobytes() == own.run(x)["y"].tobytes()


def test_strings_are_compared_by_what_they_say(tmp_path: Path) -> None:
    """A graph that gives strings is kept like any other."""
    path = saved(tmp_path / "m", model("g (string[N] x) => (string[N] y) { y = Identity (x) }"))
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, OPTIONS)
    assert cache.make(key, path, OPTIONS, {"x": np.array(["a" * 40], object)}) is not None


def test_an_entry_is_found_again_with_what_was_learnt(tmp_path: Path) -> None:
    """By another cache over the same folder, too."""
    path = saved(tmp_path / "m")
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, OPTIONS)
    assert cache.find(key, path) is None
    made(cache, path)
    cache.learn(key, {"seconds": {"1": 0.5}})
    for each in (cache, Cache(tmp_path / "cache")):
        found = each.find(each.key(path, OPTIONS), path)
        assert found is not None
        assert found.facts["seconds"] == {"1": 0.5}
    assert not [left for left in (tmp_path / "cache").iterdir() if left.name.startswith(".new-")]


@pytest.mark.parametrize(
    "damage", ["cut graph", "cut weights", "longer", "no graph", "no weights", "facts", "no sizes"]
)
def test_a_damaged_entry_is_dropped_and_made_anew(tmp_path: Path, damage: str) -> None:
    """Mapping weights that are not there would kill the process."""
    path = saved(tmp_path / "m")
    cache = Cache(tmp_path / "cache")
    key, entry = made(cache, path)
    folder = entry.path.parent
    match damage:
        case "cut graph":
            os.truncate(folder / GRAPH, 10)
        case "cut weights":
            os.truncate(folder / WEIGHTS, 10)
        case "longer":
            os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + 1)
        case "no graph":
            (folder / GRAPH).unlink()
        case "no weights":
            (folder / WEIGHTS).unlink()
        case "facts":
            os.truncate(folder / FACTS, 5)
        case "no sizes":
            (folder / FACTS).write_text('{"sizes": {}}')
    assert cache.find(key, path) is None
    made(cache, path)
    assert cache.find(key, path) is not None


def test_the_key_tells_what_the_outcome_depends_on(tmp_path: Path) -> None:
    """And nothing else: not the model's place, nor its threads, nor what serving is told of it."""
    path = saved(tmp_path / "m")
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, OPTIONS)
    assert cache.key(saved(tmp_path / "n"), RunOptions(intra_op_threads=2)) == key
    for name in ("model.toml", "golden.npz", "model.fold-report.json", "report.html"):
        (path.parent / name).write_text("anything")
    assert cache.key(path, OPTIONS) == key
    one = RunOptions(disabled_optimizers=("ConvAddFusion", "ConvMulFusion"))
    assert cache.key(path, one) != key
    assert cache.key(path, one) == cache.key(
        path, RunOptions(disabled_optimizers=one.disabled_optimizers[::-1])
    )
    onnx.save(conv_norm(17), str(path))
    assert cache.key(path, OPTIONS) != key


@pytest.mark.parametrize("place", ["model.data", "weights/model.data", f"weights/{'long' * 50}.data"])
def test_weights_beside_the_model_count(tmp_path: Path, place: str) -> None:
    """The graph's own bytes say nothing of them."""
    path = tmp_path / "m" / "model.onnx"
    weights = path.parent / place
    weights.parent.mkdir(parents=True)
    proto = conv_norm(16)
    onnx.save(proto, str(path), save_as_external_data=True, location=place, size_threshold=0)
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, OPTIONS)
    weights.write_bytes(weights.read_bytes() + b"more")
    assert cache.key(path, OPTIONS) != key


def test_a_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(tmp_path: Path) -> None:
    """It goes with the cache."""
    path = saved(tmp_path / "m")
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")
    assert cache.folder is not None
    made(cache, path)
    cache.close()
    assert not cache.folder.exists()


def test_without_any_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing fails."""

    def refuse(**_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(prepared.tempfile, "TemporaryDirectory", refuse)
    path = saved(tmp_path / "m")
    cache = Cache(None)
    key = cache.key(path, OPTIONS)
    with cache.alone(key):
        assert cache.folder is None
        assert cache.make(key, path, OPTIONS, IMAGE) is None
        assert cache.find(key, path) is None
        cache.learn(key, {})
    cache.close()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_folder_that_goes_away_keeps_nobody_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Or a disk that is full: the graph is not kept, that is all."""
    path = saved(tmp_path / "m")
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, OPTIONS)
    if when == "before":
        (tmp_path / "cache").rmdir()
    else:
        monkeypatch.setattr(prepared.tempfile, "mkdtemp", lambda **_: str(tmp_path / "gone"))
    with cache.alone(key):
        assert cache.make(key, path, OPTIONS, IMAGE) is None
        cache.learn(key, {"a": 1})
        assert cache.find(key, path) is None


def test_errors_name_the_model_and_not_its_entry(tmp_path: Path) -> None:
    """Nobody knows the cache's names."""
    path = saved(tmp_path / "m")
    cache = Cache(tmp_path / "cache")
    _, entry = made(cache, path)
    with pytest.raises(SessionError) as wrong:
        entry.open(OPTIONS).run({"x": normal(1, 3, 6, 6)})
    entry.path.write_bytes(b"garbage")
    with pytest.raises(SessionError) as garbage:
        entry.open(OPTIONS)
    for caught in (wrong, garbage):
        assert str(path) in str(caught.value)
        assert str(cache.folder) not in str(caught.value)


def test_entries_that_nobody_used_for_a_month_go(tmp_path: Path) -> None:
    """Whenever a new one is made; using one is finding it."""
    cache = Cache(tmp_path / "cache")
    paths = [saved(tmp_path / str(n), conv_norm(n)) for n in (4, 5, 6)]
    keys = [made(cache, path)[0] for path in paths[:2]]
    long_ago = time.time() - UNUSED_S - 60
    assert cache.folder is not None
    left = cache.folder / ".new-left"
    left.mkdir()
    for each in (*(cache.folder / key for key in keys), left):
        os.utime(each, (long_ago, long_ago))
    assert cache.find(keys[1], paths[1]) is not None
    made(cache, paths[2])
    assert not (cache.folder / keys[0]).exists()
    assert not left.exists()
    assert cache.find(keys[1], paths[1]) is not None


TWO = """
import sys, pathlib
import numpy as np
from infold.runtime import Cache, RunOptions
cache, path = map(pathlib.Path, sys.argv[1:])
cache, options = Cache(cache), RunOptions(intra_op_threads=1)
key = cache.key(path, options)
sys.stdin.read(1)
with cache.alone(key):
    found = cache.find(key, path)
    entry = found or cache.make(key, path, options, {"x": np.ones((1, 2, 6, 6), np.float32)})
assert entry.open(options).run({"x": np.ones((1, 2, 6, 6), np.float32)})
print("found" if found else "made")
"""


def test_two_processes_at_once_make_it_once(tmp_path: Path) -> None:
    """The second waits, and finds it."""
    path = saved(tmp_path / "m")
    command = [sys.executable, "-c", TWO, str(tmp_path / "cache"), str(path)]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [each.communicate("x", 60)[0].strip() for each in both]
    assert sorted(said) == ["found", "made"]


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """As one that onnxruntime refuses."""
    with pytest.raises(SessionError, match="model.onnx: No such file"):
        Cache(tmp_path / "cache").key(tmp_path / "model.onnx", OPTIONS)


def test_a_graph_with_other_results_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits are compared; here with those of another model."""
    path = saved(tmp_path / "m")
    other = saved(tmp_path / "n", conv_norm(16, bias=False))
    monkeypatch.setattr(Prepared, "open", lambda entry, options: Session(other, options))
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, OPTIONS)
    assert cache.make(key, path, OPTIONS, IMAGE) is None
    assert cache.find(key, path) is None
    assert not list((tmp_path / "cache").iterdir())


def test_an_entry_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """And by nobody afterwards."""
    cache = Cache(tmp_path / "cache")
    assert cache.folder is not None
    with cache.alone("key"), (cache.folder / ".key.lock").open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with cache.alone("another"):
            pass
    with (cache.folder / ".key.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_files_that_are_no_part_of_the_model_do_not_count(tmp_path: Path) -> None:
    """A model may lie in a folder with everything else its owner has."""
    cache, path = Cache(tmp_path / "cache"), saved(tmp_path / "m")
    before = cache.key(path, OPTIONS)
    (path.parent / "notes").mkdir()
    (path.parent / "notes" / "diary.bin").write_bytes(b"x")
    (path.parent / "model.onnx.data").write_bytes(b"x")
    assert cache.key(path, OPTIONS) == before


@pytest.mark.parametrize("name", ["a\0b", "x" * 126], ids=["no name", "nowhere"])
def test_a_file_that_cannot_be_there_is_no_reason_to_refuse_the_key(tmp_path: Path, name: str) -> None:
    """What is wrong with the model, onnxruntime says."""
    path = tmp_path / "model.onnx"
    entry = b"\x0a\x08location\x12" + bytes([len(name)]) + name.encode()
    path.write_bytes(entry)
    key = Cache(tmp_path / "cache").key(path, OPTIONS)
    path.write_bytes(entry + b"!")
    assert Cache(tmp_path / "cache").key(path, OPTIONS) != key


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    """One line that names it."""
    (tmp_path / "model.onnx").touch()
    with pytest.raises(SessionError, match="model.onnx: an empty file"):
        Cache(tmp_path / "cache").key(tmp_path / "model.onnx", OPTIONS)


def test_what_a_cache_left_unfinished_is_taken_away_by_its_label(tmp_path: Path) -> None:
    """And nothing of another's, nor what is finished."""
    path = saved(tmp_path / "m")
    cache = Cache(tmp_path / "cache", "mine")
    key, _ = made(cache, path)
    assert cache.folder is not None
    for name in (".new-mine-1", ".new-other-1"):
        (cache.folder / name).mkdir()
        (cache.folder / name / GRAPH).touch()
    (cache.folder / key / f".{FACTS}.mine").touch()
    Cache(cache.folder).tidy_after("mine")
    assert [each.name for each in cache.folder.glob(".new-*")] == [".new-other-1"]
    assert sorted(each.name for each in (cache.folder / key).iterdir()) == [FACTS, GRAPH, WEIGHTS]
    assert cache.find(key, path) is not None


def test_what_was_left_unfinished_a_day_ago_goes(tmp_path: Path) -> None:
    """Nobody works on an entry that long."""
    cache = Cache(tmp_path / "cache")
    assert cache.folder is not None
    for name, hours in ((".new-a", 25), (".new-b", 23)):
        (cache.folder / name).mkdir()
        os.utime(cache.folder / name, (time.time() - hours * 3600,) * 2)
    made(cache, saved(tmp_path / "m"))
    assert [each.name for each in cache.folder.glob(".new-*")] == [".new-b"]


def test_facts_are_kept_of_what_has_no_graph(tmp_path: Path) -> None:
    """It is no entry to open, and none that is damaged; a graph that is made later takes its place."""
    path = saved(tmp_path / "m")
    cache = Cache(tmp_path / "cache")
    key = cache.key(path, OPTIONS)
    assert cache.facts(key) is None
    cache.learn(key, {"a": 1})
    assert cache.facts(key) is None
    cache.learn(key, {"a": 1}, is_new=True)
    assert cache.find(key, path) is None
    facts = cache.facts(key)
    assert facts is not None
    assert facts["a"] == 1
    made(cache, path)
    assert cache.find(key, path) is not None
    assert "a" not in (cache.facts(key) or {})


def test_a_note_is_read_by_others_until_the_next_one(tmp_path: Path) -> None:
    """A damaged one is none."""
    one, other = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    assert one.noted("x") == {}
    one.note("x", {"a": 1})
    other.note("x", {"b": 2})
    assert one.noted("x") == {"b": 2}
    (tmp_path / "cache" / ".x.json").write_text("[1]")
    assert one.noted("x") == {}


def test_a_cache_that_is_to_have_no_other_folder_keeps_nothing(tmp_path: Path) -> None:
    """That of a child, whose folder is its parent's to choose."""
    (tmp_path / "file").touch()
    for folder in (None, tmp_path / "file" / "cache"):
        cache = Cache(folder, "child", or_temporary=False)
        assert cache.folder is None
        cache.note("x", {"a": 1})
        assert cache.noted("x") == {}
        cache.tidy_after("child")
        assert cache.facts("key") is None


def test_a_lock_is_waited_for_as_long_as_wanted(tmp_path: Path) -> None:
    """Whoever waits no longer goes on without it."""
    cache, asked = Cache(tmp_path / "cache"), iter([False, False, True])
    with cache.alone("key"):
        with cache.alone("key", lambda: next(asked)):
            pass
        assert next(asked, None) is None
    with cache.alone("key", lambda: False):
        pass
