"""What is run to learn how long a model takes, and how little it takes to learn it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphs import model
from infold.errors import SessionError
from infold.runtime import RunOptions, Session, Stop
from infold.runtime.measuring import LEAST_RUNS, RUNS, one_row, repeated, time_rows, time_run
from infold.tensors import Array, Tensors

ONE_CORE = RunOptions(intra_op_threads=1)


def session(folder: Path, text: str) -> Session:
    path = folder / "model.onnx"
    onnx.save(model(text), str(path))
    return Session(path, ONE_CORE)


class Counting(Session):
    """A session of nothing that counts its runs, and refuses more rows than it likes."""

    def __init__(self, most: int = 10**6) -> None:
        self.rows: list[int] = []
        self.most = most

    def run(
        self, tensors: Tensors, outputs: Sequence[str] | None = None, stop: Stop | None = None
    ) -> dict[str, Array]:
        """Note how many rows came."""
        rows = len(tensors["x"])
        if rows > self.most:
            raise SessionError("fake", "the shapes do not fit")
        self.rows.append(rows)
        return {}


ROW = {"x": np.zeros((1, 2), np.float32)}


def test_a_run_is_measured_by_a_few_of_them() -> None:
    """One to warm up, three at least whatever they take, thirty at most."""
    short, long = Counting(), Counting()
    assert time_run(short, ROW, 60.0) > 0
    assert len(short.rows) == 1 + RUNS
    time_run(long, ROW, 0.0)
    assert len(long.rows) == 1 + LEAST_RUNS


def test_one_row_is_measured_whatever_it_takes_and_more_while_time_is_left() -> None:
    """A slow model is not run for minutes."""
    assert set(time_rows(Counting(), ROW, (1, 2, 4), 60.0)) == {1, 2, 4}
    assert set(time_rows(Counting(), ROW, (1, 2, 4), 0.0)) == {1}


def test_rows_that_the_model_does_not_take_are_never_worth_joining() -> None:
    """Its first axis says it is open, and a Reshape inside says it is not: it is served all the same."""
    refusing = Counting(most=1)
    assert time_rows(refusing, ROW, (1, 2, 4), 60.0)[2] == float("inf")
    with pytest.raises(SessionError):
        time_rows(Counting(most=0), ROW, (1, 2), 60.0)


def test_a_row_is_zeros_where_there_is_none_better(tmp_path: Path) -> None:
    """Open lengths are 1; strings are empty ones."""
    opened = session(
        tmp_path,
        "g (float[N,2,M] x, string[N] s, bool p) => (float[N,2,M] y, string[N] t, bool q)"
        " { y = Neg (x)  t = Identity (s)  q = Not (p) }",
    )
    row = one_row(tmp_path / "model.onnx", opened.signature)
    assert {name: array.shape for name, array in row.items()} == {"x": (1, 2, 1), "s": (1,), "p": ()}
    assert row["s"].tolist() == [""]
    assert {name: array.shape for name, array in repeated(row, 1).items()}["p"] == ()
    assert opened.run(row)["t"].tolist() == [""]


def test_a_row_is_the_first_golden_one(tmp_path: Path) -> None:
    """Inputs without a batch axis are taken whole, scalars too."""
    opened = session(
        tmp_path, "g (float[N,2] x, float[3] w, float k) => (float[N,2] y) { a = Mul (x, k)  y = Neg (a) }"
    )
    x, w, k = np.float32([[1, 2], [3, 4]]), np.float32([5, 6, 7]), np.float32(8)
    np.savez(tmp_path / "golden.npz", **{"in.x": x, "in.w": w, "in.k": k})
    row = one_row(tmp_path / "model.onnx", opened.signature)
    assert {name: array.tolist() for name, array in row.items()} == {"x": [[1, 2]], "w": [5, 6, 7], "k": 8}


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "garbage", "cut", "broken", "other names", "other shape", "no rows"]
)
def test_golden_inputs_that_are_of_no_use_are_passed_over(tmp_path: Path, kind: str) -> None:
    """They only make a measurement better; a model is not refused for them."""
    opened = session(tmp_path, "g (float[N,2] x) => (float[N,2] y) { y = Neg (x) }")
    path = tmp_path / "golden.npz"
    arrays = {
        "other names": {"x": np.ones((1, 2), np.float32)},
        "other shape": {"in.x": np.ones((1, 3), np.float32)},
        "no rows": {"in.x": np.ones((0, 2), np.float32)},
    }.get(kind, {"in.x": np.ones((50, 2), np.float32)})
    if kind != "missing":
        np.savez_compressed(path, **arrays)
    content = path.read_bytes() if kind != "missing" else b""
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(b"no archive")
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "broken":
            with zipfile.ZipFile(path) as archive:
                start = archive.infolist()[0].header_offset + 60
            path.write_bytes(content[:start] + b"\xff" * 40 + content[start + 40 :])
    assert one_row(tmp_path / "model.onnx", opened.signature)["x"].tolist() == [[0, 0]]
