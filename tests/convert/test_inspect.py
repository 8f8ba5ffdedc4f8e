"""What `inspect` tells of a model's norms, and what it warns of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, norm, normal, relu_only
from infold.cli.tables import inspect_table
from infold.convert import NormView, inspect
from infold.errors import SourceError
from infold.tensors import Array


def views(proto: onnx.ModelProto, folder: Path) -> tuple[NormView, ...]:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    found = inspect(path).views
    json.dumps([view.json() for view in found], allow_nan=False)
    return found


def dense(**changes: Any) -> onnx.ModelProto:
    """A dense layer with a norm whose parameters are partly given."""
    numbers: dict[str, Array] = norm(4) | {k: np.asarray(v, np.float32) for k, v in changes.items()}
    return model(
        """g (float[N,3] x) => (float[N,4] y) {
            h = Gemm (x, w)
            [bn] y = BatchNormalization <epsilon=0.001> (h, gamma, beta, mean, variance) }""",
        {"w": normal(3, 4), **numbers},
    )


def test_ranges_of_the_trained_parameters(tmp_path: Path) -> None:
    """Smallest and largest of each, the effective scale and shift, and where the norm would go."""
    (view,) = views(dense(), tmp_path)
    facts, numbers = view.json(), {k: v.astype(np.float64) for k, v in norm(4).items()}
    keys = {"gamma": "gamma", "beta": "beta", "moving_mean": "mean", "moving_variance": "variance"}
    for key, name in keys.items():
        assert facts[key] == [numbers[name].min(), numbers[name].max()]
    scale = numbers["gamma"] / np.sqrt(numbers["variance"] + float(np.float32(0.001)))
    assert facts["scale"] == [scale.min(), scale.max()]
    assert facts["channels"] == 4 and facts["epsilon"] == float(np.float32(0.001))
    assert facts["would_fold"] and facts["into_or_why"] == "into producer Gemm"
    assert view.warnings == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": [0] * 4, "variance": [1] * 4}, "moving statistics are still at their initial values"),
        ({"gamma": [1] * 4, "beta": [0] * 4}, "gamma and beta are still at their initial values"),
        ({"variance": [1, -1, np.nan, 1]}, "negative or NaN on 2 of 4 channels"),
        ({"variance": [1, 1e-4, 0, 1]}, r"below epsilon \(0.001\) on 2 of 4 channels"),
        ({"gamma": [1, 0, 2, 0]}, "2 of 4 channels are dead"),
        ({"gamma": [1e6, 1, 1, 1]}, "float16 would overflow"),
        ({"beta": [1, 1, 1, -1e6]}, "float16 would overflow"),
    ],
)
def test_warnings(tmp_path: Path, changes: dict[str, list[float]], words: str) -> None:
    """Each doubtful thing is one sentence, and only that one is said."""
    (view,) = views(dense(**changes), tmp_path)
    (warning,) = view.warnings
    assert re.search(words, warning)


def test_training_mode_is_warned_of(tmp_path: Path) -> None:
    """The parameters are shown all the same."""
    proto = model(
        """g (float[N,3] x) => (float[N,4] y) {
            h = Gemm (x, w)
            [bn] y, m, v = BatchNormalization <training_mode=1> (h, gamma, beta, mean, variance) }""",
        {"w": normal(3, 4), **norm(4)},
        opset=15,
    )
    (view,) = views(proto, tmp_path)
    (warning,) = view.warnings
    assert "in training mode" in warning
    facts = view.json()
    assert not facts["would_fold"] and facts["gamma"] is not None and facts["scale"] is None


def test_a_norm_that_cannot_be_read_shows_what_it_has(tmp_path: Path) -> None:
    """NaN and infinity are words in JSON."""
    (view,) = views(dense(variance=[1, np.nan, np.inf, 1]), tmp_path)
    assert view.json()["moving_variance"] == ["nan", "nan"]
    (view,) = views(dense(variance=[1, 1, np.inf, 1]), tmp_path)
    assert view.json()["moving_variance"] == [1.0, "inf"]
    assert "invalid-statistics" in view.json()["into_or_why"]


def test_written_out_parameters_are_not_recoverable(tmp_path: Path) -> None:
    """Constants of a chain have been multiplied together: only scale and shift are left."""
    proto = model(
        "g (float[N,3] x) => (float[N,4] y) { h = Gemm (x, w)  s = Mul (h, k)  [bn] y = Add (s, k) }",
        {"w": normal(3, 4), "k": normal(4)},
    )
    found = views(proto, tmp_path)
    facts = found[0].json()
    assert facts["gamma"] is None and facts["epsilon"] is None
    assert facts["scale"] == [normal(4).min(), normal(4).max()] and facts["channels"] == 4
    header, row = inspect_table(found).splitlines()
    assert row.count("not recoverable") == 5
    assert header.split()[:3] == ["norm", "spelling", "channels"] and row.startswith("bn    Mul,Add")


def test_the_table_has_a_row_a_norm_and_a_line_a_warning(tmp_path: Path) -> None:
    """Aligned columns, then the warnings with the norm's name."""
    lines = inspect_table(views(dense(gamma=[1] * 4, beta=[0] * 4), tmp_path)).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("warning: bn: gamma and beta")
    column = lines[0].index("epsilon")
    assert lines[1][column:].startswith("0.001")


def test_parameters_that_are_given_at_run_time(tmp_path: Path) -> None:
    """Nothing is known of them, and that is what the table shows."""
    proto = model(
        """g (float[N,3] x, float[4] beta) => (float[N,4] y) {
            h = Gemm (x, w)  [bn] y = BatchNormalization (h, gamma, beta, mean, variance) }""",
        {"w": normal(3, 4), **{k: v for k, v in norm(4).items() if k != "beta"}},
    )
    found = views(proto, tmp_path)
    assert found[0].json()["gamma"] is None and "not-constant" in found[0].json()["into_or_why"]
    assert "not recoverable" not in inspect_table(found)


def test_a_model_without_norms(tmp_path: Path) -> None:
    """Nothing to show."""
    assert views(relu_only(), tmp_path) == ()


def test_biases_are_no_norms(tmp_path: Path) -> None:
    """A bare bias behind a convolution is not listed."""
    proto = model(
        "g (float[N,2,5,5] x) => (float[N,4,3,3] y) { c = Conv (x, w)  y = Add (c, k) }",
        {"w": normal(4, 2, 3, 3), "k": normal(4, 1, 1)},
    )
    assert views(proto, tmp_path) == ()


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    """The same error as everywhere."""
    (tmp_path / "model.onnx").write_bytes(b"text")
    with pytest.raises(SourceError):
        inspect(tmp_path / "model.onnx")


def test_inspecting_changes_nothing(tmp_path: Path) -> None:
    """The file is read only."""
    views(conv_norm(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == conv_norm().SerializeToString()
