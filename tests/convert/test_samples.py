"""What a model is proven on: drawn inputs that fit it, or the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphs import model
from infold.convert.samples import OPEN_SPACE, ROWS, draw_samples, load_samples, signature_of
from infold.errors import SamplesError
from infold.tensors import BFLOAT16, Array, Signature


def signature(inputs: str) -> Signature:
    """The signature of a graph with these inputs."""
    return signature_of(
        model(f"g ({inputs}) => (float[1] y) {{ y = Constant <value = float[1] {{0.0}}> () }}")
    )


IMAGE = "float[N,3,H,W] x"


def test_drawn_samples_are_the_same_on_every_run() -> None:
    """The seed is fixed."""
    first, second = (draw_samples(signature(IMAGE), {}) for _ in range(2))
    assert (first["x"] == second["x"]).all() and np.ptp(first["x"]) > 0


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("float", "float32"),
        ("double", "float64"),
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
        ("int32", "int32"),
        ("int64", "int64"),
        ("uint8", "uint8"),
        ("bool", "bool"),
    ],
)
def test_drawn_samples_have_the_input_s_dtype(kind: str, dtype: str) -> None:
    """Every numeric type can be drawn."""
    array = draw_samples(signature(f"{kind}[N,4] x"), {})["x"]
    assert array.dtype.name == dtype and array.shape == (ROWS, 4)


def test_integers_are_small_enough_to_index_with() -> None:
    """0 and 1 are valid indices of nearly everything."""
    assert set(np.unique(draw_samples(signature("int64[N,16] x"), {})["x"])) == {0, 1}


def test_bytes_look_like_an_image() -> None:
    """uint8 is drawn over its whole range."""
    assert draw_samples(signature("uint8[N,64] x"), {})["x"].max() > 200


def test_open_lengths_get_sensible_sizes() -> None:
    """Several rows, and more than a few pixels."""
    assert draw_samples(signature(IMAGE), {})["x"].shape == (ROWS, 3, OPEN_SPACE, OPEN_SPACE)


def test_large_rows_are_fewer() -> None:
    """Four photographs, and never less than two rows."""
    for side, rows in ((224, 4), (2000, 2)):
        assert draw_samples(signature(f"float[N,3,{side},{side}] x"), {})["x"].shape[0] == rows


def test_fixed_shapes_are_kept() -> None:
    """A model for one row gets one row."""
    assert draw_samples(signature("float[1,3,5] x, float s"), {})["x"].shape == (1, 3, 5)
    assert draw_samples(signature("float[1,3,5] x, float s"), {})["s"].shape == ()


def test_a_symbol_has_one_length_everywhere() -> None:
    """Inputs that share a symbol share its length."""
    drawn = draw_samples(signature("float[N,T] x, int64[T,N] i"), {})
    assert drawn["x"].shape == drawn["i"].shape[::-1]


def test_a_given_shape_settles_its_symbols_for_all_inputs() -> None:
    """... whichever input it was given for."""
    drawn = draw_samples(signature("float[N,T] x, int64[T,N] i"), {"i": (5, 2)})
    assert drawn["x"].shape == (2, 5) and drawn["i"].shape == (5, 2)


def test_an_open_rank_must_be_given() -> None:
    """Nothing can be drawn without a rank; with a shape it can."""
    proto = model("g (float[N] x) => (float[N] y) { y = Relu (x) }")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(SamplesError, match="--shape x="):
        draw_samples(signature_of(proto), {})
    assert draw_samples(signature_of(proto), {"x": (2, 3)})["x"].shape == (2, 3)
    assert draw_samples(signature_of(proto), {"x": ()})["x"].shape == ()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"z": (1,)}, "--shape z: the model has no such input; it has x"),
        ({"x": (1, 3)}, r"--shape x: shape \[1, 3\] given, the model takes \[-1, 3, -1, -1\]"),
        ({"x": (1, 4, 8, 8)}, "--shape x: shape"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    """The flag is named, and what the model takes."""
    with pytest.raises(SamplesError, match=words):
        draw_samples(signature(IMAGE), shapes)


def test_strings_cannot_be_drawn() -> None:
    """Words mean something; the user has to bring them."""
    with pytest.raises(SamplesError, match="--samples"):
        draw_samples(signature("string[N] x"), {})


def test_inputs_that_are_no_tensors() -> None:
    """Sequences cannot be compared."""
    with pytest.raises(SamplesError, match="no tensor"):
        signature_of(model("g (seq(float[N]) x) => (float[N] y) { y = ConcatFromSequence <axis=0> (x) }"))


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    """Old models list their weights as inputs; nobody has to bring those."""
    proto = model(
        "g (float[N,2] x, float[2] w) => (float[N,2] y) { y = Mul (x, w) }", {"w": np.ones(2, np.float32)}
    )
    assert [spec.name for spec in signature_of(proto).inputs] == ["x"]


# -- the user's own -------------------------------------------------------------------------------

TWO = "float[N,2] x, int64[N] i"


def npz(folder: Path, **arrays: Array) -> Path:
    path = folder / "samples.npz"
    np.savez(path, **arrays)
    return path


X, INDICES = np.ones((3, 2), np.float32), np.zeros(3, np.int64)


def test_samples_are_named_like_the_inputs(tmp_path: Path) -> None:
    """Plain names, no others."""
    loaded = load_samples(npz(tmp_path, x=X, i=INDICES), signature(TWO))
    assert list(loaded) == ["x", "i"] and (loaded["x"] == X).all()


def test_a_golden_file_holds_samples_too(tmp_path: Path) -> None:
    """`in.<input>` counts and everything else is passed over."""
    path = npz(tmp_path, **{"in.x": X, "in.i": INDICES, "out.y": X, "label": INDICES})
    assert set(load_samples(path, signature(TWO))) == {"x", "i"}


def test_numbers_are_cast_where_that_is_safe(tmp_path: Path) -> None:
    """Numpy's own float64 and int32 fit float32 and int64."""
    loaded = load_samples(npz(tmp_path, x=X.astype(np.float64), i=INDICES.astype(np.int32)), signature(TWO))
    assert [loaded[name].dtype.name for name in ("x", "i")] == ["float32", "int64"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X}, "holds no array for input 'i'"),
        ({"x": X, "i": INDICES, "z": INDICES}, "the model has no input 'z'; it has x, i"),
        ({"in.x": X, "in.z": INDICES}, "the model has no input 'z'"),
        ({"x": X, "i": INDICES.astype(np.float32)}, "'i': type float32 given, the model takes int64"),
        ({"x": X[:, :1], "i": INDICES}, r"'x': shape \[3, 1\] given, the model takes \[-1, 2\]"),
    ],
    ids=["missing", "unknown", "unknown-golden", "dtype", "shape"],
)
def test_samples_that_do_not_fit(tmp_path: Path, arrays: dict[str, Array], words: str) -> None:
    """The file, the input and the misfit are named."""
    path = npz(tmp_path, **arrays)
    with pytest.raises(SamplesError, match=words) as caught:
        load_samples(path, signature(TWO))
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="no such file"):
        load_samples(tmp_path / "missing.npz", signature(TWO))


@pytest.mark.parametrize(
    "content",
    [b"", b"not a zip", b"PK\x03\x04 broken off", b"\x93NUMPY\x01\x00"],
    ids=["empty", "text", "zip", "npy"],
)
def test_a_file_that_is_no_npz(tmp_path: Path, content: bytes) -> None:
    """One clear error, whatever it is instead."""
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    with pytest.raises(SamplesError, match="not an .npz file"):
        load_samples(path, signature(TWO))


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    """`numpy.save` writes another format than `numpy.savez`."""
    path = tmp_path / "samples.npy"
    np.save(path, X)
    with pytest.raises(SamplesError, match="not an .npz file"):
        load_samples(path, signature(TWO))


def test_a_zip_of_something_else_is_no_npz(tmp_path: Path) -> None:
    """Members that are no arrays are not taken for arrays."""
    import zipfile

    path = tmp_path / "samples.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "1 2 3")
        archive.writestr("i", "4 5 6")
    with pytest.raises(SamplesError, match="not an .npz file"):
        load_samples(path, signature(TWO))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    """An array of Python objects could run code."""
    path = npz(tmp_path, x=np.array([{"a": 1}], object), i=INDICES)
    with pytest.raises(SamplesError, match="plain arrays"):
        load_samples(path, signature(TWO))


def test_a_symbol_must_have_one_length_in_the_user_s_samples(tmp_path: Path) -> None:
    """Three rows of one input and four of another are no batch."""
    path = npz(tmp_path, x=X, i=np.zeros(4, np.int64))
    with pytest.raises(SamplesError, match="'i'"):
        load_samples(path, signature(TWO))


def test_samples_without_rows_prove_nothing(tmp_path: Path) -> None:
    """An empty batch would pass every proof."""
    path = npz(tmp_path, x=X[:0], i=INDICES[:0])
    with pytest.raises(SamplesError):
        load_samples(path, signature(TWO))


def test_a_drawn_shape_without_rows_proves_nothing() -> None:
    """... and so would one that was asked for."""
    with pytest.raises(SamplesError):
        draw_samples(signature(IMAGE), {"x": (0, 3, 8, 8)})


def test_bfloat16_survives_a_file_that_does_not_know_it(tmp_path: Path) -> None:
    """It is kept as nameless pairs; wider floats are rounded to it."""
    wanted = signature("bfloat16[N,2] x")
    pairs = X.astype(BFLOAT16) * BFLOAT16.type(1.5)
    for array in (pairs, pairs.astype(np.float32), pairs.astype(np.float64)):
        loaded = load_samples(npz(tmp_path, x=array), wanted)["x"]
        assert (loaded.dtype, loaded.tobytes()) == (BFLOAT16, pairs.tobytes())
