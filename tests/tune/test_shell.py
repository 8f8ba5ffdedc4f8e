"""What surrounds the decisions: models found, inputs made, precisions read, loops run, plans written."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import model, normal
from infold.errors import ConfigError, DisagreementError, RepositoryError, SamplesError, SessionError
from infold.runtime import Cache, Device, ModelConfig, Placement, SessionConfig
from infold.runtime.options import available_cores
from infold.serving import ModelRepository
from infold.serving.loading import load
from infold.tensors import Array, Signature, TensorSpec
from infold.tune import Report, Wish, find, tune, write_plan
from infold.tune.choice import Choice
from infold.tune.inputs import pool
from infold.tune.measuring import closed_loop
from infold.tune.precision import is_coarse, stored_types
from infold.tune.run import Progress
from infold.tune.ways import Cell, Way

DOUBLE = "g (float[N,4] x) => (float[N,4] y) { y = Add (x, x) }"
# Every row is set off against the mean of all: what a request gets depends on its company.
SHARED = """g (float[N,4] x) => (float[N,4] y) {
    m = ReduceMean <axes = [0], keepdims = 1> (x)  y = Sub (x, m) }"""
SCALED = "g (float[N,4] x) => (float[N,4] y) { y = Mul (x, w) }"
SHORT = Wish(seconds=0.005)


def save(folder: Path, text: str = DOUBLE, weights: Mapping[str, Array] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model(text, dict(weights or {})), str(folder / "model.onnx"))
    return folder


def open_axes(width: int | str, rows: int | str = "N") -> Signature:
    """Of a model with one input."""
    spec = TensorSpec("x", np.dtype(np.float32), (rows, width))
    return Signature((spec,), (spec,))


def run(folder: Path, wish: Wish = SHORT, progress: Progress | None = None) -> Report:
    with contextlib.closing(Cache(None)) as cache:
        return tune(find(folder), wish, cache, progress)


# -- which model --------------------------------------------------------------------------------------


def test_a_model_is_found_by_all_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repository, folder, version, the file in it: one model, and the file that speaks for it."""
    root = tmp_path / "models"
    save(root / "net" / "1"), save(root / "net" / "2")
    shared = root / "net" / "model.toml"
    for path in (root, root / "net"):
        subject = find(path)
        assert [each.number for each in subject.versions] == [2, 1] and subject.config_path == shared
    for path in (root / "net" / "1", root / "net" / "1" / "model.onnx"):
        subject = find(path)
        assert [each.number for each in subject.versions] == [1, 2]
        assert subject.config_path == root / "net" / "1" / "model.toml"
    monkeypatch.chdir(root / "net" / "1")
    assert (find(Path()).version.number, find(Path()).version.name) == (1, "net")
    assert find(Path("model.onnx")).version.name == "net"
    assert find(Path("..")).version.number == 2


def test_the_plan_is_for_the_version_that_is_served(tmp_path: Path) -> None:
    """As the policy says."""
    net = tmp_path / "net"
    save(net / "1"), save(net / "2")
    (net / "model.toml").write_text("versions = [1]\n")
    assert find(net).version.number == 1
    (net / "model.toml").write_text("versions = [7]\n")
    with pytest.raises(RepositoryError, match="wants no version that is here"):
        find(net)


def test_a_model_of_a_triton_repository_is_found_too(tmp_path: Path) -> None:
    """Whatever its file is called; what is written for Triton is what a `model.toml` stands on."""
    net = tmp_path / "net"
    file = (save(net / "1") / "model.onnx").rename(net / "1" / "graph.onnx")
    (net / "config.pbtxt").write_text(
        """default_model_filename: "graph.onnx" max_batch_size: 8
        dynamic_batching { preferred_batch_size: 8 }"""
    )
    for path in (tmp_path, net, net / "1", file):
        subject = find(path)
        assert subject.version.path == file and subject.version.config.batching.max_rows == 8
    for path in (net, net / "1"):
        with pytest.raises(
            ConfigError, match=r"preferred_rows: \[8\] are not all between 1 and max_rows = 4"
        ):
            write_plan(find(path), choice(1, 1, 4, is_wide=False))


def test_a_loose_file_has_nothing_that_speaks_for_it(tmp_path: Path) -> None:
    """It can be measured all the same."""
    file = save(tmp_path) / "model.onnx"
    assert find(file).config_path is None and find(file).versions == (find(file).version,)


def test_no_model_and_several_models_are_errors(tmp_path: Path) -> None:
    """That say what there is."""
    with pytest.raises(RepositoryError, match="there is no such file or folder"):
        find(tmp_path / "gone")
    with pytest.raises(RepositoryError, match="holds no models"):
        find(tmp_path)
    save(tmp_path / "a" / "1"), save(tmp_path / "b" / "1")
    with pytest.raises(RepositoryError, match=r"holds a, b; name one, as .*/a$"):
        find(tmp_path)


# -- what it is run on --------------------------------------------------------------------------------


def test_rows_are_cut_from_samples_and_repeat_in_order(tmp_path: Path) -> None:
    """So that each has an answer of its own to be compared with."""
    samples = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "s.npz", x=samples)
    found = pool(tmp_path / "model.onnx", open_axes(4), tmp_path / "s.npz", {})
    assert len(found.rows) == 3
    np.testing.assert_array_equal(found.batch(5)["x"], samples[[0, 1, 2, 0, 1]])


def test_golden_samples_come_before_drawn_ones(tmp_path: Path) -> None:
    """Where they fit and nothing else was asked for."""
    golden = np.ones((2, 4), np.float32)
    np.savez(tmp_path / "golden.npz", **{"in.x": golden, "out.y": golden})
    assert len(pool(tmp_path / "model.onnx", open_axes(4), None, {}).rows) == 2
    assert pool(tmp_path / "model.onnx", open_axes(3), None, {}).rows[0]["x"].shape == (1, 3)
    assert pool(tmp_path / "model.onnx", open_axes("L"), None, {"": (5, 7)}).rows[0]["x"].shape == (1, 7)


def test_open_lengths_are_1_unless_they_are_given(tmp_path: Path) -> None:
    """Which is told, since it is hardly what users send."""
    found = pool(tmp_path / "model.onnx", open_axes("L"), None, {})
    assert (found.rows[0]["x"].shape, found.open_inputs) == ((1, 1), ("x",))


def test_a_model_of_fixed_rows_is_run_as_it_is(tmp_path: Path) -> None:
    """Its whole request counts as one."""
    found = pool(tmp_path / "model.onnx", open_axes(4, rows=3), None, {})
    assert [row["x"].shape for row in found.rows] == [(3, 4)] and not found.is_joinable


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"w": normal(4)}, "fp32"),
        ({"w": normal(4, dtype="float16")}, "fp16"),
        ({"w": np.zeros(100, np.int8), "scale": normal(4)}, "int8"),
        ({"w": np.zeros(100, np.int8), "v": normal(50)}, "int8+fp32"),
        ({}, "none"),
    ],
)
def test_a_precision_is_what_most_weights_are_stored_in(
    tmp_path: Path, weights: dict[str, Array], expected: str
) -> None:
    """A few scales beside them do not count."""
    assert stored_types(save(tmp_path, DOUBLE, weights) / "model.onnx") == expected
    assert is_coarse(expected) == (expected not in ("fp32", "none"))


def test_constants_in_bodies_count_and_what_is_no_model_is_unknown(tmp_path: Path) -> None:
    """Wherever a number is stored."""
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["w"], ["o"])],
        "body",
        [],
        [onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT16, [9])],
        [onnx.numpy_helper.from_array(np.zeros(9, np.float16), "w")],
    )
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])), tmp_path / "if.onnx")
    assert stored_types(tmp_path / "if.onnx") == "fp16"
    (tmp_path / "no.onnx").write_bytes(b"no model")
    assert stored_types(tmp_path / "no.onnx") == "unknown"


# -- measuring ----------------------------------------------------------------------------------------


def test_each_caller_runs_again_as_soon_as_its_run_is_over() -> None:
    """All of them at once; the warm-up does not count, and two runs at least do."""
    together, most = threading.Semaphore(0), [0, 0]
    lock = threading.Lock()

    def slow() -> dict[str, Array]:
        with lock:
            most[0] += 1
            most[1] = max(most)
        time.sleep(0.01)
        with lock:
            most[0] -= 1
        together.release()
        return {"y": np.zeros(1)}

    found = closed_loop(slow, 3, 1e-3)
    assert most[1] == 3
    for caller in found:
        assert len(caller.taken_s) == 2 and list(caller.last) == ["y"]
        assert caller.elapsed_s >= sum(caller.taken_s) >= 0.02


def test_a_run_that_fails_in_any_thread_is_an_error() -> None:
    """No number is made of the rest."""
    calls = iter(range(100))

    def failing() -> dict[str, Array]:
        if next(calls) > 4:
            raise SessionError("net", "broke")
        return {}

    with pytest.raises(SessionError, match="broke"):
        closed_loop(failing, 2, 1e-3)


def test_answers_that_depend_on_company_are_an_error(tmp_path: Path) -> None:
    """With the way out."""
    folder = save(tmp_path / "net" / "1", SHARED)
    with pytest.raises(DisagreementError, match=r"does not answer as one row at a time .*max_rows = 1"):
        run(folder)
    (folder / "model.toml").write_text("[batching]\nmax_rows = 1\n")
    run(folder)


def test_a_broken_version_beside_it_is_left_out(tmp_path: Path) -> None:
    """And one that is whole is measured, with how far its answers are off."""
    save(
        tmp_path / "net" / "1",
        "g (float[N,4] x) => (float[N,4] y) { y = Mul (x, w) }",
        {"w": np.float32([1.01])},
    )
    save(
        tmp_path / "net" / "2",
        "g (float[N,4] x) => (float[N,4] y) { y = Mul (x, w) }",
        {"w": np.float32([1])},
    )
    (save(tmp_path / "net" / "3") / "model.onnx").write_bytes(b"no model")
    (tmp_path / "net" / "model.toml").write_text("versions = [2]\n[batching]\nmax_rows = 2\n")
    report = run(tmp_path / "net")
    assert list(report.precisions) == [2, 1]
    assert any(note.startswith("version 3 is left out: ") for note in report.notes)
    assert any("differ from those of version 2 by up to 0.01 of" in note for note in report.notes)
    (sentence,) = report.beside()
    assert sentence.startswith("version 1 (fp32): ") and " times as many, with " in sentence
    assert report.choice is not None and report.choice.cell.version == 2


def test_lengths_of_1_that_the_model_cannot_take_ask_for_a_shape(tmp_path: Path) -> None:
    """In one line."""
    text = "g (float[N,L] x) => (float[N,M] y) { y = MatMul (x, w) }"
    folder = save(tmp_path / "net" / "1", text, {"w": normal(4, 2)})
    with pytest.raises(SamplesError, match=r"taken as 1: give --shape or --samples") as caught:
        run(folder)
    assert "\n" not in str(caught.value)
    report = run(folder, Wish(seconds=0.005, shapes={"": (1, 4)}))
    assert report.choice is not None and "taken as 1" not in " ".join(report.notes)


@pytest.mark.parametrize(
    ("wish", "place"),
    [
        (Wish(latency_ms=0), "--latency-ms"),
        (Wish(latency_ms=-1), "--latency-ms"),
        (Wish(latency_ms=float("nan")), "--latency-ms"),
        (Wish(latency_ms=float("inf")), "--latency-ms"),
        (Wish(seconds=0), "--seconds"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(wish: Wish, place: str) -> None:
    """With the option's name."""
    with pytest.raises(ConfigError) as caught:
        wish.check()
    assert caught.value.place == place


# -- writing ------------------------------------------------------------------------------------------


def choice(threads: int = 1, runs: int = 2, rows: int = 8, *, is_wide: bool = True) -> Choice:
    cell = Cell(1, Way(threads, runs), rows, 100.0, 1.0, 1.0)
    return Choice(cell, is_wide, 1.0, 0.5, cell)


@pytest.mark.parametrize("at", ["net", "net/1"])
@pytest.mark.parametrize(
    ("chosen", "cores", "plan"),
    [
        (choice(), 2, (1, 2, 2, 8)),
        (choice(is_wide=False), 2, (1, 2, 0, 8)),
        (choice(2, 1, 64, is_wide=False), 2, (2, 1, 0, 64)),
        (choice(2, 2, 1), 4, (2, 2, 4, 1)),
        (choice(1, 1, 1, is_wide=False), 8, (1, 1, 0, 1)),
    ],
)
def test_serving_follows_what_was_written(
    tmp_path: Path, at: str, chosen: Choice, cores: int, plan: tuple[int, int, int, int]
) -> None:
    """Threads, runs at once, threads of a lone run, rows that are joined: the very ones."""
    save(tmp_path / "net" / "1")
    write_plan(find(tmp_path / at), chosen)
    (version,) = ModelRepository(tmp_path).versions("net")
    loaded = load(version, Placement(Device.CPU, "asked for"), cores, Cache(tmp_path / "cache"))
    found = loaded.plan
    assert (found.cores, found.runs, found.wide_cores, found.join_rows) == plan
    assert (loaded.wide is not None) == bool(found.wide_cores)


def test_the_owners_lines_stay_and_a_refusal_is_told(tmp_path: Path) -> None:
    """Requests larger than the best run are refused from then on, unless they may be cut."""
    save(tmp_path / "net" / "1")
    path = tmp_path / "net" / "model.toml"
    path.write_text("# ours\n[batching]\nmax_delay_s = 0.001 # a while\n")
    wrote, note = write_plan(find(tmp_path / "net"), choice())
    assert wrote.endswith('batching.join = "always", batching.max_rows = 8')
    assert "a request of more than 8 rows is refused" in note
    assert path.read_text().startswith("# ours\n[batching]\nmax_delay_s = 0.001 # a while\n")
    path.write_text("[batching]\nrows_are_independent = true\n")
    assert len(write_plan(find(tmp_path / "net"), choice())) == 1


def test_a_plan_that_a_version_would_beat_is_not_written(tmp_path: Path) -> None:
    """Serving would not follow it."""
    save(tmp_path / "net" / "1")
    (tmp_path / "net" / "1" / "model.toml").write_text("[session]\nruns = 3\n")
    with pytest.raises(ConfigError, match=r"sets session.runs itself, which beats .*; tune .*net/1$"):
        write_plan(find(tmp_path / "net"), choice())
    assert not (tmp_path / "net" / "model.toml").exists()
    write_plan(find(tmp_path / "net" / "1"), choice())


def test_a_plan_that_breaks_another_version_is_not_written(tmp_path: Path) -> None:
    """A repository that cannot be read would stop the service."""
    save(tmp_path / "net" / "1"), save(tmp_path / "net" / "2")
    (tmp_path / "net" / "1" / "model.toml").write_text("[batching]\npad_to = [16]\n")
    with pytest.raises(ConfigError, match=r"net/1/model.toml: batching.pad_to"):
        write_plan(find(tmp_path / "net"), choice())
    assert not (tmp_path / "net" / "model.toml").exists()


def test_what_is_measured_is_what_is_written_and_served(tmp_path: Path) -> None:
    """From the folder to the plan of a loaded model."""
    save(tmp_path / "net" / "1", SCALED, {"w": normal(4)})
    said: list[str] = []
    report = run(tmp_path / "net", SHORT, lambda what, seconds: said.append(what))
    assert report.choice is not None
    write_plan(find(tmp_path / "net"), report.choice)
    (version,) = ModelRepository(tmp_path).versions("net")
    assert version.config != ModelConfig() and isinstance(version.config.session, SessionConfig)
    cores = available_cores()
    plan = load(version, Placement(Device.CPU, "asked for"), cores, Cache(tmp_path / "cache")).plan
    cell = report.choice.cell
    assert (plan.cores, plan.runs, plan.join_rows) == (cell.way.threads, cell.way.runs, cell.rows)
    assert plan.wide_cores == (cores if report.choice.is_wide else 0)
    assert said[0] == "version 1: one row at a time" and len(said) == 1 + 3 * len(report.cells)
