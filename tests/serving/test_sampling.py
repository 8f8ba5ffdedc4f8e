"""Which runs are repeated on a shadow, and what is copied of them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.serving import sampling
from infold.serving.sampling import MOST_BYTES, Ran, Share, copied
from infold.tensors import Array

shares = st.one_of(
    st.floats(0, 1, exclude_min=True, allow_subnormal=False),
    st.sampled_from([0.01, 0.1, 1 / 3, 0.5, 0.999, 1.0, math.nextafter(1.0, 0.0), 5e-324]),
)


@given(shares, st.integers(0, 3000))
def test_of_the_first_runs_exactly_their_share_is_picked(share: float, count: int) -> None:
    """Rounded up, however many they are."""
    picked = sum(map(Share(share).picks, range(count)))
    assert picked == math.ceil(Fraction(share) * count)


@given(shares, st.integers(0, 10**18), st.integers(1, 500))
def test_of_any_runs_in_a_row_their_share_is_picked(share: float, start: int, count: int) -> None:
    """Rounded up or down, also after a year."""
    picked = sum(map(Share(share).picks, range(start, start + count)))
    assert picked in (math.floor(Fraction(share) * count), math.ceil(Fraction(share) * count))


def test_the_first_run_is_picked() -> None:
    """Whoever has just started a version need not wait for a hundred requests; at 1 every run is."""
    assert Share(1e-9).picks(0)
    assert not Share(1e-9).picks(1)
    assert all(map(Share(1.0).picks, range(100)))


def ran(rows: int, columns: int = 2) -> Ran:
    x = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    return Ran({"x": x}, ["y"], {"y": x * 2})


@pytest.mark.parametrize(("rows", "kept"), [(1, 1), (8, 8), (9, 8), (64, 8), (0, 0)])
def test_the_first_rows_are_copied(rows: int, kept: int) -> None:
    """Of inputs and outputs alike; nothing of the run's own memory is held."""
    original = ran(rows)
    copy = copied(original, 8)
    assert copy is not None
    assert copy.outputs == ["y"]
    for ours, theirs in (
        (copy.tensors["x"], original.tensors["x"]),
        (copy.results["y"], original.results["y"]),
    ):
        np.testing.assert_array_equal(ours, theirs[:kept])
        assert not np.may_share_memory(ours, theirs)
        assert ours.base is None


def test_a_view_of_a_large_body_is_held_no_longer() -> None:
    """What is copied owns its few bytes."""
    body = np.zeros(2**20, np.uint8)
    view = body[:16].view(np.float32).reshape(2, 2)
    copy = copied(Ran({"x": view}, None, {"y": view}), 8)
    assert copy is not None
    assert copy.tensors["x"].base is None
    assert copy.tensors["x"].nbytes == 16


def test_rows_that_depend_on_each_other_are_not_told_apart() -> None:
    """The whole run or nothing."""
    copy = copied(ran(20), 0)
    assert copy is not None
    assert len(copy.tensors["x"]) == 20


def test_what_has_no_common_rows_is_taken_as_a_whole() -> None:
    """A table beside the rows is no batch, nor is a number."""
    table: dict[str, Array] = {"x": np.ones((20, 2)), "table": np.ones((9, 9))}
    copy = copied(Ran(table, None, {"y": np.float32(3) * np.ones(())}), 8)
    assert copy is not None
    assert copy.tensors["x"].shape == (20, 2)
    assert copy.tensors["table"].shape == (9, 9)
    assert copy.results["y"].shape == ()


def test_no_more_is_copied_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows where they are large; nothing where one is too large, or the run has no rows."""
    monkeypatch.setattr(sampling, "MOST_BYTES", 64)  # of both arrays: 16 bytes a row
    copy = copied(ran(16), 8)
    assert copy is not None
    assert len(copy.tensors["x"]) == 4
    assert copied(ran(16, columns=9), 8) is None
    assert copied(ran(5), 0) is None
    assert MOST_BYTES > 2**20
