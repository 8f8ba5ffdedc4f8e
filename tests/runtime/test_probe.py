"""Models run in a child process, whose death is an answer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, normal
from infold.errors import NoKernelError, RuntimeCrashError, SessionError
from infold.runtime import Run, run_isolated
from infold.tensors import Array

RELU = "g (float[N] x) => (float[N] y) { y = Relu (x) }"


def saved(proto: onnx.ModelProto, folder: Path, name: str) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(proto, str(path))
    return path


def relu_run(folder: Path, label: str = "relu", values: tuple[float, ...] = (-1.0, 2.0)) -> Run:
    return Run(label, saved(model(RELU), folder, label), {"x": np.array(values, np.float32)})


def stand_in(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put another program where the interpreter is looked for."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_outputs_come_back_in_the_order_of_the_runs(tmp_path: Path) -> None:
    """Two models in one child, each with its outputs by name."""
    two = model("g (float[N] x) => (float[N] a, float[N] b) { a = Neg (x)  b = Abs (x) }")
    first = relu_run(tmp_path)
    second = Run("two", saved(two, tmp_path, "two"), {"x": np.array([-3.0], np.float32)})
    results = run_isolated([first, second])
    assert [{name: array.tolist() for name, array in result.items()} for result in results] == [
        {"y": [0.0, 2.0]},
        {"a": [3.0], "b": [3.0]},
    ]


def test_odd_names_and_dtypes_survive(tmp_path: Path) -> None:
    """Names with slashes and colons, integers, booleans, halves and empty arrays pass unharmed."""
    proto = model(
        "g (float16[N] x, int64[M] i, bool p) => (float16[N] y, int64[M] j, bool q) {"
        " y = Identity (x)  j = Identity (i)  q = Identity (p) }"
    )
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = f"scope/{value.name}:0"
    for node in proto.graph.node:
        node.input[0], node.output[0] = f"scope/{node.input[0]}:0", f"scope/{node.output[0]}:0"
    tensors: dict[str, Array] = {
        "scope/x:0": np.array([1.5], np.float16),
        "scope/i:0": np.zeros(0, np.int64),
        "scope/p:0": np.array(True),
    }
    (result,) = run_isolated([Run("odd", saved(proto, tmp_path, "odd"), tensors)])
    assert [array.dtype.name for array in result.values()] == ["float16", "int64", "bool"]
    assert result["scope/y:0"].tolist() == [1.5] and result["scope/q:0"].tolist() is True
    assert result["scope/j:0"].shape == (0,)


def test_strings_survive(tmp_path: Path) -> None:
    """A classifier may answer with words."""
    proto = model("g (float[N] x) => (string[N] y) { y = Cast <to=8> (x) }")
    (result,) = run_isolated([Run("words", saved(proto, tmp_path, "words"), {"x": np.ones(2, np.float32)})])
    assert result["y"].tolist() == ["1", "1"]


def test_strings_may_go_in(tmp_path: Path) -> None:
    """... and may be asked with words."""
    proto = model("g (string[N] x) => (string[N] y) { y = Identity (x) }")
    tensors = {"x": np.array(["a", "bc"], object)}
    (result,) = run_isolated([Run("words", saved(proto, tmp_path, "words"), tensors)])
    assert result["y"].tolist() == ["a", "bc"]


def test_the_model_that_fails_is_named(tmp_path: Path) -> None:
    """Of two runs the second is broken: the error carries its label."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    with pytest.raises(SessionError) as caught:
        run_isolated([relu_run(tmp_path), Run("folded", broken, {})])
    assert caught.value.model == "folded"
    assert not isinstance(caught.value, NoKernelError | RuntimeCrashError)


def test_a_lacking_kernel_is_told_apart(tmp_path: Path) -> None:
    """The caller may turn to another oracle then."""
    path = saved(conv_norm(dtype="float64"), tmp_path, "double")
    with pytest.raises(NoKernelError) as caught:
        run_isolated([Run("unfolded", path, {"x": normal(1, 2, 6, 6, dtype="float64")})])
    assert caught.value.model == "unfolded"


def test_wrong_tensors_fail_as_session_errors(tmp_path: Path) -> None:
    """A model that loads but does not run names itself too."""
    path = saved(conv_norm(), tmp_path, "conv")
    with pytest.raises(SessionError) as caught:
        run_isolated([Run("unfolded", path, {"x": normal(1, 3, 6, 6)})])
    assert caught.value.model == "unfolded"


def test_a_child_that_dies_names_run_and_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmentation fault in native code is an error here, not the end of this process."""
    stand_in(tmp_path, "kill -SEGV $$", monkeypatch)
    with pytest.raises(RuntimeCrashError, match="SIGSEGV") as caught:
        run_isolated([relu_run(tmp_path, "unfolded"), relu_run(tmp_path, "folded")])
    assert caught.value.model == "unfolded"


def test_a_child_that_dies_in_its_second_run_names_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done before the crash is not blamed."""
    done = 'read folder; echo \'{"outputs": []}\' > "$folder/done0.json"; kill -SEGV $$'
    stand_in(tmp_path, done, monkeypatch)
    with pytest.raises(RuntimeCrashError) as caught:
        run_isolated([relu_run(tmp_path, "unfolded"), relu_run(tmp_path, "folded")])
    assert caught.value.model == "folded"


def test_a_child_that_exits_says_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit code without a result comes with the last line of its standard error."""
    stand_in(tmp_path, "echo first >&2; echo out of memory >&2; exit 9", monkeypatch)
    with pytest.raises(RuntimeCrashError, match="exit code 9; out of memory$"):
        run_isolated([relu_run(tmp_path)])


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without an end has one."""
    stand_in(tmp_path, "exec tail -f /dev/null", monkeypatch)
    with pytest.raises(RuntimeCrashError, match="no result within 0 s") as caught:
        run_isolated([relu_run(tmp_path, "slow")], timeout_s=0.2)
    assert caught.value.model == "slow"


def test_a_kept_child_serves_run_after_run(tmp_path: Path) -> None:
    """One process for all of them; an error of one does not end it."""
    from infold.runtime import child, kept_child

    processes = set()
    with kept_child():
        for values in ((-1.0, 2.0), (3.0, -4.0)):
            (result,) = run_isolated([relu_run(tmp_path, values=values)])
            assert result["y"].tolist() == [max(0.0, each) for each in values]
            with child.child_at_hand() as kept:
                assert kept._process is not None
                processes.add(kept._process.pid)
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"nonsense")
        with pytest.raises(SessionError):
            run_isolated([Run("broken", broken, {})])
        run_isolated([relu_run(tmp_path)])
    assert len(processes) == 1


def test_a_kept_child_that_died_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash costs the run it happened in, not those after it."""
    from infold.runtime import kept_child

    with kept_child():
        with monkeypatch.context() as patched:
            stand_in(tmp_path, "kill -SEGV $$", patched)
            with pytest.raises(RuntimeCrashError):
                run_isolated([relu_run(tmp_path)])
        (result,) = run_isolated([relu_run(tmp_path)])
    assert result["y"].tolist() == [0.0, 2.0]
