"""A version answers its golden samples before anybody else asks it, or is not served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model
from infold.convert import convert_to_repository
from infold.errors import ConfigError, GoldenError
from infold.runtime import Cache, Device, ModelConfig, Placement, SessionConfig, Stop
from infold.runtime.model_config import GoldenConfig
from infold.runtime.triton_config import read_triton_config
from infold.serving import preparing
from infold.serving.golden import check_golden
from infold.serving.loading import load
from infold.serving.presenting import Presented, presented
from infold.serving.reading import Reading
from infold.serving.repository import ModelVersion
from infold.tensors import BFLOAT16, Array, Signature, Tensors, TensorSpec

CPU = Placement(Device.CPU, "asked for")
TWICE = "g (float[N,2] x) => (float[N,2] y) { y = Add (x, x) }"
X = np.float32([[1, 2], [3, 4]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a version."""
    folder = tmp_path / "models" / "m" / "1"
    folder.mkdir(parents=True)
    return folder


def put(folder: Path, **arrays: Any) -> None:
    """Samples; `_` in a name stands for the point behind `in` or `out`."""
    np.savez(folder / "golden.npz", **{name.replace("_", ".", 1): array for name, array in arrays.items()})


def checked(folder: Path, proto: onnx.ModelProto, cache: Cache, **config: Any) -> Presented:
    """A version, loaded as the manager does."""
    onnx.save(proto, str(folder / "model.onnx"))
    triton = read_triton_config(folder.parent / "config.pbtxt")
    version = ModelVersion("m", 1, folder / "model.onnx", ModelConfig(**config), (), triton)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(preparing, "MEASURE_S", 0.0)
        patched.setattr(preparing, "QUIET", 0.0)
        seen = presented(version, load(version, CPU, 2, cache))
    check_golden(version, seen)
    return seen


def answering(outputs: Tensors, *, wide: Tensors | None = None) -> Presented:
    """What gives these outputs to whoever asks."""

    def run(given: Tensors) -> Any:
        def outputs_of(_: Tensors, names: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
            return {name: given[name] for name in names or given}

        return outputs_of

    specs = tuple(TensorSpec(name, array.dtype, (None,) * array.ndim) for name, array in outputs.items())
    signature = Signature((TensorSpec("x", np.dtype(np.float32), (None,)),), specs)
    return Presented(signature, run(outputs), None if wide is None else run(wide), Reading())


def verdict(folder: Path, given: Any, wanted: Any, tolerance: float = 0.0, wide: Any = None) -> str | None:
    """What is wrong with an answer, or None."""
    given, wanted = np.asarray(given), np.asarray(wanted)
    text = wanted.astype(str) if wanted.dtype == object else wanted
    put(folder, in_x=np.zeros(1, np.float32), out_y=text)
    config = ModelConfig(golden=GoldenConfig(tolerance))
    version = ModelVersion("m", 1, folder / "model.onnx", config)
    (folder / "model.onnx").touch()
    seen = answering({"y": given}, wide=None if wide is None else {"y": np.asarray(wide)})
    try:
        check_golden(version, seen)
    except GoldenError as failure:
        return str(failure).removeprefix(str(folder / "golden.npz") + ": ")
    return None


def test_a_version_that_answers_as_it_should_is_served(folder: Path, cache: Cache) -> None:
    """Rows, and all of them."""
    put(folder, in_x=X, out_y=2 * X)
    checked(folder, model(TWICE), cache)


@pytest.mark.parametrize("wide", ["never", "always"])
def test_a_version_that_answers_otherwise_is_told_with_the_number(
    folder: Path, cache: Cache, wide: str
) -> None:
    """Its place, both values, the tolerance and how many there are of the kind."""
    wanted = 2 * X
    wanted[1, 0] += 0.5
    put(folder, in_x=X, out_y=wanted)
    with pytest.raises(GoldenError) as refused:
        checked(folder, model(TWICE), cache, session=SessionConfig(wide=wide))
    problem = "out.y[1,0]: 6.0 is not 6.5 within 0.001 of 8; 1 of 4 differ"
    assert str(refused.value) == f"{folder / 'golden.npz'}: {problem}"


def test_the_session_on_all_cores_is_asked_too(folder: Path) -> None:
    """It is the one that answers whoever is alone."""
    right, wrong = np.float32([1, 2]), np.float32([1, 3])
    assert verdict(folder, right, right, wide=right) is None
    assert verdict(folder, right, right, wide=wrong) == (
        "out.y[1]: 3.0 is not 2.0 within 0.001 of 2; 1 of 2 differ on all cores"
    )


def test_samples_are_as_callers_see_the_model(folder: Path, cache: Cache) -> None:
    """Where a `config.pbtxt` declares other shapes, in these."""
    (folder.parent / "config.pbtxt").write_text(
        'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ 2, 1 ] reshape { shape: [ 2 ] } }'
        'output { name: "y" data_type: TYPE_FP32 dims: [ 1, 2 ] reshape { shape: [ 2 ] } }'
    )
    put(folder, in_x=X[..., np.newaxis], out_y=2 * X[:, np.newaxis])
    checked(folder, model(TWICE), cache)
    put(folder, in_x=X, out_y=2 * X)
    with pytest.raises(GoldenError, match="shape"):
        checked(folder, model(TWICE), cache)


def test_inputs_alone_are_no_samples_to_check(folder: Path, cache: Cache) -> None:
    """They say what to measure with; some models have no other."""
    put(folder, in_x=X)
    checked(folder, model(TWICE), cache)


def test_an_output_that_no_two_runs_agree_on_can_be_left_out(folder: Path, cache: Cache) -> None:
    """Noise, say."""
    text = "g (float[N,2] x) => (float[N,2] y, float[N,2] z) { y = Add (x, x)  z = RandomNormalLike (x) }"
    put(folder, in_x=X, out_y=2 * X)
    checked(folder, model(text), cache)
    put(folder, in_x=X, out_y=2 * X, out_z=X)
    with pytest.raises(GoldenError, match=r"out\.z\["):
        checked(folder, model(text), cache)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"out_y": X}, "input 'x': missing"),
        ({"in_x": X, "in_k": X, "out_y": X}, "input 'k': the model has no such input; it has 'x'"),
        (
            {"in_x": X.astype(np.float64), "out_y": X},
            "input 'x': type float64 given, the model takes float32",
        ),
        ({"in_x": X[0], "out_y": X}, "input 'x': shape [2] given, the model takes [-1, 2]"),
        ({"in_x": X, "out_z": X}, "out.z: the model has no such output; it has 'y'"),
        ({"in_x": X, "out_y": X.astype(np.int32)}, "out.y: type int32 given, the model gives float32"),
        ({"in_x": X, "out_y": X[:, :1]}, "out.y: shape [2, 1] given, the model gives [-1, 2]"),
        ({"in_x": X, "out_y": 2 * X[:1]}, "out.y: shape [2, 2] is not [1, 2]"),
        ({"in_x": X, "out_y": 2 * X, "y": X}, "'y' is neither in.<input> nor out.<output>"),
        ({"x": X, "y": X}, None),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    folder: Path, cache: Cache, arrays: dict[str, Array], problem: str | None
) -> None:
    """What is missing, too much, of another type or shape; a file without samples is none."""
    put(folder, **arrays)
    if problem is None:
        checked(folder, model(TWICE), cache)
        return
    with pytest.raises(GoldenError) as refused:
        checked(folder, model(TWICE), cache)
    assert str(refused.value) == f"{folder / 'golden.npz'}: {problem}"


def test_samples_that_the_model_does_not_run_are_refused(folder: Path, cache: Cache) -> None:
    """With what the runtime says."""
    text = "g (int64[N] x) => (float[N] y) <float[2] table = {1, 2}> { y = Gather (table, x) }"
    put(folder, in_x=np.array([0, 7]), out_y=np.float32([1, 2]))
    with pytest.raises(GoldenError, match="golden.npz: does not run: .*model.onnx"):
        checked(folder, model(text), cache)


def test_a_file_that_cannot_be_read_fails_the_version(folder: Path, cache: Cache) -> None:
    """Whoever sent samples wants them checked."""
    (folder / "golden.npz").write_bytes(b"garbage")
    with pytest.raises(ConfigError, match="golden.npz: is no .npz file"):
        checked(folder, model(TWICE), cache)


def test_text_is_compared_by_what_it_says(folder: Path) -> None:
    """Stored as numpy's own text."""
    assert verdict(folder, np.array(["a", "längst"], object), np.array(["a", "längst"], object)) is None
    found = verdict(folder, np.array(["a", "b" * 300], object), np.array(["a", "c"], object))
    assert found is not None
    assert found.startswith("out.y[1]: 'bbb") and found.endswith("... is not 'c'; 1 of 2 differ")


@pytest.mark.parametrize(
    ("dtype", "near", "far"),
    [
        ("float32", 0.99e-3, 1.1e-3), ("float64", 0.99e-3, 1.1e-3), ("float16", 1.9e-2, 2.2e-2),
        (BFLOAT16, 1.5e-2, 3e-2),
    ],
)  # fmt: skip
def test_floats_may_differ_by_a_part_of_the_largest(
    folder: Path, dtype: Any, near: float, far: float
) -> None:
    """Of their output, also where they themselves are small."""
    wanted = np.array([-1.0, 0.0, 0.0]).astype(dtype)
    for difference, is_right in ((near, True), (far, False)):
        given = np.array([-1.0, 0.0, difference]).astype(dtype)
        assert (verdict(folder, given, wanted) is None) is is_right


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_whole_numbers_are_equal(folder: Path, dtype: str) -> None:
    """Also beyond what a float can tell apart."""
    wanted = np.array([1, 0]).astype(dtype)
    assert verdict(folder, wanted, wanted) is None
    assert verdict(folder, np.array([0, 0]).astype(dtype), wanted) is not None
    assert verdict(folder, np.array([2**63 + 1, 0], np.uint64), np.array([2**63, 0], np.uint64)) == (
        "out.y[0]: 9223372036854775809 is not 9223372036854775808; 1 of 2 differ"
    )


def test_a_tolerance_of_one_s_own_holds_for_numbers_of_8_bits_too(folder: Path) -> None:
    """They may be steps of a quantized one; what is longer is an index or a count."""
    wanted = np.array([200, 3], np.uint8)
    assert verdict(folder, wanted - np.uint8(1), wanted, 0.01) is None
    assert verdict(folder, wanted - np.uint8(3), wanted, 0.01) is not None
    for dtype in (np.int16, np.int64):
        assert verdict(folder, wanted.astype(dtype) - 1, wanted.astype(dtype), 0.01) is not None
    assert verdict(folder, np.float32([1.05]), np.float32([1]), 0.1) is None
    assert verdict(folder, np.float32([1.0001]), np.float32([1]), 1e-6) is not None


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("given", "wanted", "is_right"),
    [
        ([NAN, 1], [NAN, 1], True),
        ([NAN, 1], [1, 1], False),
        ([1, 1], [NAN, 1], False),
        ([INF, 1], [INF, 1], True),
        ([-INF, 1], [INF, 1], False),
        ([INF, 1], [1, 1], False),
        ([1, 1], [INF, 1], False),
        ([NAN, 1], [INF, 1], False),
        ([INF, 2], [INF, 1], False),
        ([NAN, NAN], [NAN, NAN], True),
        ([0, 0], [0, 0], True),
        ([1e-9, 0], [0, 0], True),
        ([1e-3, 0], [0, 0], False),
        ([1.01e-9, 0], [1e-9, 0], False),
        ([3.4e38, 0], [-3.4e38, 0], False),
        ([-0.0, 0], [0.0, 0], True),
    ],
)
def test_what_is_no_number_is_like_what_is_none(
    folder: Path, given: list[float], wanted: list[float], is_right: bool
) -> None:
    """And like nothing else; a scale is of the finite ones, and one of zero is no reason to allow all."""
    assert (verdict(folder, np.float32(given), np.float32(wanted)) is None) is is_right


def test_outputs_without_elements_or_axes_are_compared(folder: Path) -> None:
    """Nothing is nothing, and a scalar has no index."""
    assert verdict(folder, np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)) is None
    assert verdict(folder, np.float32(1), np.float32(2)) == "out.y: 1.0 is not 2.0 within 0.001 of 2"
    assert verdict(folder, np.int64(1), np.int64(2)) == "out.y: 1 is not 2"
    assert verdict(folder, np.bool_(True), np.bool_(False)) == "out.y: True is not False"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_the_converter_writes_is_what_is_checked(tmp_path: Path, cache: Cache, dtype: str) -> None:
    """One format, of both halves: the unfolded model's answers hold for the folded one."""
    source = tmp_path / "net.onnx"
    onnx.save(conv_norm(dtype=dtype), str(source))
    done = convert_to_repository(source, tmp_path / "models", "m")
    checked(done.destination.parent, onnx.load(str(done.destination)), cache)
    golden = dict(np.load(done.destination.with_name("golden.npz")))
    golden["out.y"][0, 0, 0, 0] += np.abs(golden["out.y"]).max()
    np.savez(done.destination.with_name("golden.npz"), **golden)
    with pytest.raises(GoldenError, match=r"out\.y\[0,0,0,0\]"):
        checked(done.destination.parent, onnx.load(str(done.destination)), cache)
