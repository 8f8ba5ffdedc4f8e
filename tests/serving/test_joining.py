"""Rows joined and told apart again: pure arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import InvalidInputError, SessionError
from infold.serving.joining import common_rows, joined, padded_rows, parts, split


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 4), st.sampled_from(["f4", "i8", "O"])
)
def test_everyone_gets_back_what_is_theirs(counts: list[int], padding: int, kind: str) -> None:
    """Through a run that gives each row as it is, filled up or not."""
    numbers = iter(range(1000))
    requests = [{"x": np.array([[next(numbers)] * 2 for _ in range(n)], kind).reshape(n, 2)} for n in counts]
    rows = sum(counts) + (padding if sum(counts) else 0)
    together = joined(requests, rows)
    assert together["x"].shape == (rows, 2)
    for request, own in zip(requests, split("m", dict(together), counts, rows), strict=True):
        assert (own["x"] == request["x"]).all()
        assert own["x"].shape == request["x"].shape


def test_a_request_that_is_alone_is_not_copied() -> None:
    """Nor are anyone's rows on the way out."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert joined([{"x": x}], 3)["x"] is x
    assert all(np.shares_memory(own["y"], x) for own in split("m", {"y": x}, [1, 2], 3))


def test_rows_that_fill_up_are_like_the_last() -> None:
    """Zeros might be an index that the model does not have."""
    assert joined([{"x": np.array([5, 7])}], 4)["x"].tolist() == [5, 7, 7, 7]


def test_an_output_without_a_row_for_each_row_is_refused() -> None:
    """Nobody could be told which is whose."""
    with pytest.raises(SessionError, match=r"output 'y' has shape \[1, 3\] for 2 rows of input"):
        split("m", {"y": np.zeros((1, 3))}, [1, 1], 2)


@pytest.mark.parametrize(("rows", "filled"), [(0, 0), (1, 4), (4, 4), (5, 8), (8, 8), (9, 9)])
def test_the_next_size_that_repeats(rows: int, filled: int) -> None:
    """None for no rows; beyond the largest as they are."""
    assert padded_rows(rows, (8, 4)) == filled


def test_parts_of_a_long_request() -> None:
    """At most so many rows each, in order."""
    cut = parts({"x": np.arange(7)}, 7, 3)
    assert [each["x"].tolist() for each in cut] == [[0, 1, 2], [3, 4, 5], [6]]


def test_inputs_have_one_number_of_rows() -> None:
    """The error names both."""
    assert common_rows({"a": np.zeros((2, 1)), "b": np.zeros(2)}) == 2
    with pytest.raises(InvalidInputError, match="input 'b': has 3 rows, but 'a' has 2"):
        common_rows({"a": np.zeros(2), "b": np.zeros(3)})
