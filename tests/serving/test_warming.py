"""Samples that are run before a version is ready."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infold.errors import ConfigError, SessionError
from infold.runtime import Stop
from infold.runtime.triton_config import parse_triton_text
from infold.serving.warming import warm_up
from infold.tensors import BFLOAT16, Array, Signature, Tensors, TensorSpec


class Runs:
    """Keeps what it was given, and fails if it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.given: list[Tensors] = []
        self.failure = failure

    def run(self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        assert outputs is None
        self.given.append(tensors)
        if self.failure is not None:
            raise self.failure
        return {}


def signature(dtype: Any = np.float32, *shape: int | None, has_rows: bool = True) -> Signature:
    spec = TensorSpec("x", np.dtype(dtype), (*((None,) if has_rows else ()), *shape))
    return Signature((spec,), (TensorSpec("y", np.dtype(dtype), (None,)),), has_rows)


def sample(kind: str = "FP32", dims: str = "[2, 2]", data: str = "zero_data: true", rows: int = 1) -> str:
    value = f"{{ data_type: TYPE_{kind} dims: {dims} {data} }}"
    return f'model_warmup {{ name: "w" batch_size: {rows} inputs {{ key: "x" value {value} }} }}'


def warmed(text: str, folder: Path, model: Signature) -> list[Array]:
    """What was run, in its order."""
    runs = Runs()
    warm_up(parse_triton_text(text, "config.pbtxt"), folder, model, [runs.run])
    return [tensors["x"] for tensors in runs.given]


def failure(text: str, folder: Path, model: Signature) -> str:
    with pytest.raises(ConfigError) as caught:
        warmed(text, folder, model)
    assert caught.value.place == "config.pbtxt: model_warmup 'w'"
    return caught.value.detail


def put(folder: Path, name: str, content: bytes) -> None:
    path = folder / "warmup" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_zeros_are_run_as_often_as_it_says_in_every_way(tmp_path: Path) -> None:
    """Each row the same; without a count once; nothing without a sample."""
    narrow, wide = Runs(), Runs()
    text = sample(rows=3).replace('"w"', '"w" count: 2') + sample(dims="[1, 2]")
    config = parse_triton_text(text, "config.pbtxt")
    warm_up(config, tmp_path, signature(np.float32, None, 2), [narrow.run, wide.run])
    for runs in (narrow, wide):
        assert [tensors["x"].shape for tensors in runs.given] == [(3, 2, 2), (3, 2, 2), (1, 1, 2)]
        assert not any(tensors["x"].any() for tensors in runs.given)
    assert warmed("", tmp_path, signature()) == []


@pytest.mark.parametrize(
    "kind", ["BOOL", "UINT8", "INT16", "INT64", "UINT64", "BF16", "FP16", "FP32", "FP64"]
)
def test_random_numbers_are_the_same_at_every_load(tmp_path: Path, kind: str) -> None:
    """Whole ones 0 or 1, so that an index is likely there; others below 1."""
    names = {"BOOL": "bool", "BF16": BFLOAT16, "FP16": "float16", "FP32": "float32", "FP64": "float64"}
    model = signature(names.get(kind, kind.lower()), 50, 4)
    text = sample(kind, "[50, 4]", "random_data: true", rows=2)
    (first,), (second,) = (warmed(text, tmp_path, model) for _ in range(2))
    assert first.dtype == model.inputs[0].dtype and first.shape == (2, 50, 4)
    assert (first == second).all() and (first[0] == first[1]).all()
    assert first.min() >= 0 and first.max() <= 1
    assert len(np.unique(first)) > (20 if "F" in kind else 1)


@pytest.mark.parametrize("data", ["zero_data", "random_data"])
def test_strings_that_are_made_are_empty(tmp_path: Path, data: str) -> None:
    """As in Triton."""
    (array,) = warmed(sample("STRING", "[3]", f"{data}: true"), tmp_path, signature(object, 3))
    assert array.tolist() == [["", "", ""]]


@pytest.mark.parametrize("name", ["x", "a/b/x", "a/../x"])
def test_a_file_holds_the_elements_row_by_row(tmp_path: Path, name: str) -> None:
    """Little end first; what follows them is not read."""
    data = f'input_data_file: "{name}"'
    if ".." in name:
        with pytest.raises(ConfigError, match="leads out of the model's folder"):
            warmed(sample("INT16", "[2, 2]", data), tmp_path, signature(np.int16, 2, 2))
        return
    put(tmp_path, name, np.array([1, 2, -3, 4, 99], "<i2").tobytes())
    (array,) = warmed(sample("INT16", "[2, 2]", data, rows=2), tmp_path, signature(np.int16, 2, 2))
    assert array.dtype == np.int16
    assert array.tolist() == [[[1, 2], [-3, 4]]] * 2


def test_files_of_other_kinds(tmp_path: Path) -> None:
    """Truth values of one byte, strings behind their length, nothing at all."""
    put(tmp_path, "b", bytes([0, 1, 2]))
    data = 'input_data_file: "b"'
    (array,) = warmed(sample("BOOL", "[3]", data), tmp_path, signature(np.bool_, 3))
    assert array.tolist() == [[False, True, True]]
    put(tmp_path, "b", b"\x03\x00\x00\x00abc\x00\x00\x00\x00\x02\x00\x00\x00\xc3\xa9")
    (array,) = warmed(sample("STRING", "[3]", data), tmp_path, signature(object, 3))
    assert array.tolist() == [["abc", "", "é"]]
    put(tmp_path, "b", b"")
    (array,) = warmed(sample("FP32", "[0]", data), tmp_path, signature(np.float32, None))
    assert array.shape == (1, 0)


@pytest.mark.parametrize(
    ("kind", "content", "detail"),
    [
        ("FP32", b"\0" * 7, "'f' has 7 of 8 bytes"),
        ("STRING", b"\x01\x00\x00\x00a", "does not hold 2 strings"),
        ("STRING", b"\x01\x00\x00\x00a" * 3, "does not hold 2 strings"),
        ("STRING", b"\x09\x00\x00\x00a", "ends behind the end"),
        ("STRING", b"\x01\x00", "ends behind the end"),
        ("STRING", b"\x01\x00\x00\x00\xff" * 2, "utf-8"),
    ],
)
def test_files_that_do_not_hold_the_elements(tmp_path: Path, kind: str, content: bytes, detail: str) -> None:
    """Too short, cut, or no text."""
    put(tmp_path, "f", content)
    dtype = object if kind == "STRING" else np.float32
    text = sample(kind, "[2]", 'input_data_file: "f"')
    assert detail in failure(text, tmp_path, signature(dtype, 2))


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    """Not by a link either, and no folder; another name for a file inside is one."""
    (tmp_path / "secret").write_bytes(b"\0" * 8)
    put(tmp_path, "inside", b"\0" * 8)
    (tmp_path / "warmup" / "folder").mkdir()
    (tmp_path / "warmup" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "warmup" / "up").symlink_to(tmp_path)
    (tmp_path / "warmup" / "loop").symlink_to(tmp_path / "warmup" / "loop")
    (tmp_path / "warmup" / "in").symlink_to(tmp_path / "warmup" / "inside")
    for name in ("out", "up/secret", "folder", "gone", "loop"):
        text = sample("FP32", "[2]", f'input_data_file: "{name}"')
        assert failure(text, tmp_path, signature(np.float32, 2))
    assert (
        len(warmed(sample("FP32", "[2]", 'input_data_file: "in"'), tmp_path, signature(np.float32, 2))) == 1
    )


def test_a_sample_must_fit_the_model(tmp_path: Path) -> None:
    """As a request must."""
    assert "shape [1, 2, 3] given" in failure(sample(dims="[2, 3]"), tmp_path, signature(np.float32, 2, 2))
    assert "type int64 given" in failure(sample("INT64"), tmp_path, signature(np.float32, 2, 2))
    assert "no such input" in failure(sample().replace('"x"', '"z"'), tmp_path, signature(np.float32, 2, 2))
    assert "missing" in failure('model_warmup { name: "w" batch_size: 1 }', tmp_path, signature())


def test_without_a_batch_axis_a_sample_is_the_whole(tmp_path: Path) -> None:
    """And cannot have rows."""
    model = signature(np.float32, 2, 2, has_rows=False)
    assert [array.shape for array in warmed(sample(), tmp_path, model)] == [(2, 2)]
    assert "no batch axis" in failure(sample(rows=2), tmp_path, model)


@pytest.mark.parametrize("dims", ["[1000000, 1000000]", f"{[9223372036854775807] * 3}", f"{[1] * 100}"])
def test_a_sample_has_bounds(tmp_path: Path, dims: str) -> None:
    """Of memory and of axes."""
    for data in ("zero_data: true", "random_data: true", 'input_data_file: "f"'):
        put(tmp_path, "f", b"\0" * 4)
        assert failure(sample("FP32", dims, data), tmp_path, signature(np.float32, None, None))


def test_a_run_that_fails_names_its_sample(tmp_path: Path) -> None:
    """One without a name by its place in the list; no more are run."""
    for text, name in ((sample(), "w"), (sample().replace('name: "w"', ""), "model_warmup[0]")):
        runs = Runs(SessionError("m", "no such index"))
        with pytest.raises(ConfigError, match="no such index") as caught:
            warm_up(
                parse_triton_text(text + sample(), "config.pbtxt"),
                tmp_path,
                signature(np.float32, 2, 2),
                [runs.run],
            )
        assert caught.value.place == f"config.pbtxt: model_warmup '{name}'"
        assert len(runs.given) == 1
