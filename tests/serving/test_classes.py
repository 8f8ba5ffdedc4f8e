"""Outputs read as classes: probabilities, order, labels."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import ConfigError
from infold.runtime import Classification
from infold.serving.classes import (
    MAX_LABELS,
    check,
    class_output,
    labels_file,
    read_labels,
    softmax,
    top_classes,
)
from infold.tensors import Dim, Signature, TensorSpec

numbers = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 1.0])
tables = st.integers(1, 8).flatmap(
    lambda classes: st.lists(st.lists(numbers, min_size=classes, max_size=classes), min_size=1, max_size=3)
)

# -- softmax ---------------------------------------------------------------------------------------


@given(tables, st.sampled_from(["float16", "float32", "float64"]))
def test_each_row_sums_to_one(table: list[list[float]], dtype: str) -> None:
    """However large the numbers are; a row with NaN has no probabilities."""
    with np.errstate(over="ignore"):
        array = np.array(table).astype(dtype)
    result = softmax(array)
    assert result.shape == array.shape
    assert result.dtype == ("float64" if dtype == "float64" else "float32")
    for given_row, row in zip(array, result, strict=True):
        if np.isnan(given_row).any():
            assert np.isnan(row).all()
        else:
            # A sum of n terms and n quotients, each off by half a unit in the last place.
            assert abs(math.fsum(row) - 1) <= len(row) * np.finfo(result.dtype).eps
            assert (np.diff(row[np.argsort(given_row)]) >= 0).all()


def test_softmax_of_plain_numbers() -> None:
    """By the definition."""
    row = [0.5, -1.0, 2.0]
    whole = sum(map(math.exp, row))
    np.testing.assert_allclose(
        softmax(np.array([row])), [[math.exp(each) / whole for each in row]], rtol=1e-15
    )


def test_infinite_numbers_share_the_whole() -> None:
    """The limit, and no warning."""
    inf = math.inf
    result = softmax(np.array([[inf, 1, inf], [-inf, -inf, -inf], [-inf, 0, -inf]], np.float32))
    np.testing.assert_allclose(result, [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3], [0, 1, 0]], rtol=1e-7)


def test_axes_behind_the_first_are_one() -> None:
    """Networks that end in [N, classes, 1, 1] would have ones otherwise."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for shape in ((2, 3, 1, 1), (2, 1, 3)):
        np.testing.assert_array_equal(softmax(array.reshape(shape)), softmax(array).reshape(shape))
    np.testing.assert_array_equal(softmax(array[0]), softmax(array[:1])[0])


def test_half_precision_is_computed_in_single() -> None:
    """In half, a thousand equal classes would not sum to one."""
    assert abs(softmax(np.zeros((1, 3000), np.float16)).sum() - 1) < 1e-5


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,), (0, 0)])
def test_nothing_stays_nothing(shape: tuple[int, ...]) -> None:
    """No rows, or no classes."""
    assert softmax(np.zeros(shape, np.float32)).shape == shape
    assert sum(map(len, top_classes(np.zeros(shape), 3, None))) == 0


# -- the largest -----------------------------------------------------------------------------------


@given(tables, st.integers(1, 9))
def test_classes_stand_from_the_largest_down(table: list[list[float]], top: int) -> None:
    """Equal ones by index, NaN at the end: the beginning of the whole row, sorted."""
    array = np.array(table, np.float32)
    result = top_classes(array, top, None)
    for row, told in zip(array.tolist(), result, strict=True):
        order = sorted(
            range(len(row)), key=lambda n: (math.isnan(row[n]), -row[n] if row[n] == row[n] else 0, n)
        )
        assert [index for _, index, _ in told] == order[:top]
        for value, index, label in told:
            assert value == row[index] or (math.isnan(value) and math.isnan(row[index]))
            assert label is None


def test_where_there_are_too_few_numbers_nan_is_told() -> None:
    """As many as are wanted, by index."""
    (told,) = top_classes(np.array([[math.nan, 1, math.nan, math.nan]]), 3, None)
    assert [index for _, index, _ in told] == [1, 0, 2]


@pytest.mark.parametrize(
    ("row", "dtype"),
    [([-128, 127, 0], "int8"), ([0, 2**63, 5], "uint64"), ([-(2**63), 0, 7], "int64"), ([0, 1, 0], "bool")],
)
def test_whole_numbers_have_no_sign_to_turn(row: list[int], dtype: str) -> None:
    """The least of them has no opposite."""
    order = [index for _, index, _ in top_classes(np.array([row], dtype), 3, None)[0]]
    assert order == sorted(range(3), key=lambda n: -row[n])


def test_labels_belong_to_indices() -> None:
    """A class without one is told by its index."""
    rows = top_classes(np.array([[0.25, 0.5, 0.125]]), 3, ("cat", "dog"))
    assert rows == [[(0.5, 1, "dog"), (0.25, 0, "cat"), (0.125, 2, None)]]
    assert [type(each) for each in rows[0][0]] == [float, int, str]


def test_every_row_has_its_own_classes() -> None:
    """Axes behind the first are counted through; without a second axis all is one row."""
    array = np.array([[[1, 2], [4, 3]], [[9, 0], [0, 0]]], np.float32)
    assert top_classes(array, 2, None) == [[(4, 2, None), (3, 3, None)], [(9, 0, None), (0, 1, None)]]
    assert top_classes(array[0, 1], 1, None) == [[(4, 0, None)]]
    assert top_classes(np.array(5.0), 3, None) == [[(5, 0, None)]]


def test_only_what_can_be_among_the_first_is_sorted() -> None:
    """Of many classes; the order is the same, ties across the bound included."""
    array = np.random.default_rng(0).integers(0, 50, (2, 5000)).astype(np.float32)
    for row, told in zip(array, top_classes(array, 120, None), strict=True):
        assert [index for _, index, _ in told] == np.argsort(-row, kind="stable")[:120].tolist()


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "labels"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\ndog", ("cat", "dog")),
        (b"cat\r\ndog\r\n\r\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\n", ("cat",)),
        ("Käse, weich\u2028\n 0 \n".encode(), ("Käse, weich\u2028", " 0 ")),
    ],
)
def test_a_line_is_a_label(tmp_path: Path, raw: bytes, labels: tuple[str, ...]) -> None:
    """However lines end; what is empty at the end is none."""
    (tmp_path / "l.txt").write_bytes(raw)
    assert read_labels(tmp_path / "l.txt") == labels


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "l.txt: line 1: holds no label"),
        (b"\n\n", "l.txt: line 1: holds no label"),
        (b"a\n\nb\n", "l.txt: line 2: holds no label"),
        (b"a\n\r\nb\n", "l.txt: line 2: holds no label"),
        (b"a\nb\xff\n", "l.txt: line 2: not valid UTF-8"),
        (b"a\n" * (MAX_LABELS + 1), f"l.txt: line {MAX_LABELS + 1}: more than {MAX_LABELS} labels"),
    ],
)
def test_a_line_that_is_no_label_is_named(tmp_path: Path, raw: bytes, problem: str) -> None:
    """An index without a name is a mistake in the file."""
    (tmp_path / "l.txt").write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        read_labels(tmp_path / "l.txt")
    assert problem in str(caught.value)


def test_as_many_labels_as_are_allowed(tmp_path: Path) -> None:
    """A million and some."""
    (tmp_path / "l.txt").write_bytes(b"a\n" * MAX_LABELS)
    assert len(read_labels(tmp_path / "l.txt")) == MAX_LABELS


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """Missing, a folder, or a pipe that would never end."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", ".", "pipe"):
        with pytest.raises(ConfigError, match="there is no such file"):
            read_labels(tmp_path / name)


def test_labels_lie_below_the_model(tmp_path: Path) -> None:
    """Links may lead elsewhere in its folder, and not out of it."""
    model = tmp_path / "m"
    (model / "names").mkdir(parents=True)
    (model / "names" / "en.txt").write_text("a")
    (tmp_path / "secret").write_text("s")
    (model / "inside").symlink_to("names/en.txt")
    (model / "outside").symlink_to("../secret")
    (model / "names" / "up").symlink_to("..")
    (model / "loop").symlink_to("loop")
    (tmp_path / "linked").symlink_to("m")
    for name in ("names/en.txt", "inside", "names/up/inside"):
        assert read_labels(labels_file(model, name)) == ("a",)
        assert read_labels(labels_file(tmp_path / "linked", name)) == ("a",)
    for name in ("outside", "names/up/../secret", "names/up/outside"):
        with pytest.raises(ConfigError, match="leads out of"):
            labels_file(model, name)
    for name in ("missing", "loop"):
        with pytest.raises(ConfigError):
            labels_file(model, name)


# -- what does not fit a model ---------------------------------------------------------------------


def signature(*shapes: tuple[Dim, ...] | None, dtype: str = "float32") -> Signature:
    outputs = (TensorSpec(f"y{n}", np.dtype(dtype), shape) for n, shape in enumerate(shapes))
    return Signature((), tuple(outputs))


def test_an_output_is_found_by_name_or_is_the_first() -> None:
    """Most classifiers have one."""
    known = signature((None, 3), (None, 2))
    assert class_output(Classification(), known) is known.outputs[0]
    assert class_output(Classification("y1"), known) is known.outputs[1]
    problem = "classification.output: the model has no output 'z'; it has 'y0', 'y1'"
    assert check(Classification("z"), None, known) == problem


def test_strings_are_no_classes() -> None:
    """They cannot be told apart by size."""
    problem = "classification.output: 'y0' holds object, and classes are told by numbers"
    assert check(Classification(), None, signature((None, 3), dtype="object")) == problem


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((None, 3), True),
        ((None, 3, 1, 1), True),
        ((1, 3), True),
        ((3,), True),
        ((None, "C"), True),
        ((None,), True),
        (None, True),
        ((None, 2), False),
        ((None, 3, 2), False),
        ((2,), False),
        ((), False),
    ],
)
def test_there_is_a_label_for_each_class(shape: tuple[Dim, ...] | None, fits: bool) -> None:
    """As far as the model says how many there are."""
    problem = check(Classification(), ("a", "b", "c"), signature(shape))
    assert (problem is None) is fits
    assert fits or str(problem).startswith("classification.labels: 3 labels for ")
    assert check(Classification(), None, signature(shape)) is None
