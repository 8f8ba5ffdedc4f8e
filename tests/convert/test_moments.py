"""Moments gathered batch by batch, and moving averages in each framework's convention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.convert.frontends.exported import Convention
from infold.convert.moments import Moments, Momentum, Statistics, moments, settled


@given(st.integers(1, 40), st.integers(1, 39), st.integers(0, 2**32 - 1))
def test_batches_joined_are_the_whole_seen_at_once(rows: int, cut: int, seed: int) -> None:
    """However the samples are cut, and whatever the size of their mean."""
    data = np.random.default_rng(seed).normal(1e3, 3.0, (rows, 3, 2))
    cut = min(cut, rows)
    joined = moments(data[:cut], 1).joined(moments(data[cut:], 1))
    assert joined.count == 2 * rows
    np.testing.assert_allclose(joined.mean, data.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(joined.variance, data.var(axis=(0, 2)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_channel_axis_is_the_one_given(axis: int) -> None:
    """Everything else is averaged over."""
    data = np.random.default_rng(0).normal(size=(4, 5, 6))
    others = tuple(each for each in range(3) if each != axis)
    np.testing.assert_allclose(moments(data, axis).mean, data.mean(axis=others))
    np.testing.assert_allclose(moments(data, axis).variance, data.var(axis=others))


def test_what_a_mask_leaves_out_does_not_count() -> None:
    """Channels last and channels first, by row and by position."""
    data = np.random.default_rng(0).normal(size=(3, 4, 2))  # rows, positions, channels
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    kept = data[mask.astype(bool)]
    for seen in (moments(data, 2, mask), moments(np.moveaxis(data, 2, 1), 1, mask)):
        assert seen.count == 6
        np.testing.assert_allclose(seen.mean, kept.mean(axis=0))
    by_row = moments(data, 2, np.array([1, 0, 0]))
    np.testing.assert_allclose(by_row.mean, data[0].mean(axis=0))


def test_a_mask_over_positions_counts_by_row_once_they_are_pooled_away() -> None:
    """A row counts if any of its positions did."""
    pooled = np.array([[1.0], [5.0], [9.0]])
    mask = np.array([[1, 0], [0, 0], [1, 1]])
    assert moments(pooled, 1, mask).mean == [5.0]
    assert moments(pooled, 1, mask).count == 2


def test_a_mask_over_positions_is_refused_where_a_layer_has_left_fewer_of_them() -> None:
    """Which of the four the two that are left stand for, nobody can tell; whole rows can be masked."""
    shortened = np.ones((3, 2, 5))
    with pytest.raises(ValueError, match=r"\[3, 4\] cannot be laid over .*\[3, 2\]; .* whole rows, \[3\]"):
        moments(shortened, 2, np.ones((3, 4)))
    assert moments(shortened, 2, np.array([1, 0, 1])).count == 4


def test_a_mask_follows_rows_that_were_merged_or_made_several() -> None:
    """[rows, positions] data as [rows * positions], and three windows cut from each row."""
    merged = np.arange(4.0).reshape(4, 1)
    assert moments(merged, 1, np.array([[1, 0], [0, 1]])).mean == [1.5]
    windows = np.arange(6.0).reshape(6, 1)
    assert moments(windows, 1, np.array([0, 1])).mean == [4.0]
    with pytest.raises(ValueError, match="cannot be laid over"):
        moments(np.zeros((5, 1)), 1, np.array([1, 0]))


def test_one_step_in_keras_convention_keeps_the_momentum_of_the_old() -> None:
    """Momentum 0.65 and a batch mean of 1 take a mean of 0 to 0.35."""
    seen = Moments(4, np.array([1.0]), np.array([3.0]))
    after = Momentum(0.65, Convention.OF_THE_OLD).step(Statistics(np.zeros(1), np.ones(1)), seen)
    np.testing.assert_allclose(after.mean, [0.35])
    np.testing.assert_allclose(after.variance, [0.65 + 0.35 * 3.0])


def test_one_step_in_pytorch_convention_takes_the_momentum_of_the_new() -> None:
    """And its variance is the unbiased one: 3 * 4 / 3."""
    seen = Moments(4, np.array([1.0]), np.array([3.0]))
    after = Momentum(0.1, Convention.OF_THE_NEW).step(Statistics(np.zeros(1), np.ones(1)), seen)
    np.testing.assert_allclose(after.mean, [0.1])
    np.testing.assert_allclose(after.variance, [0.9 + 0.1 * 4.0])


def test_one_step_of_momentum_one_half_is_half_way() -> None:
    """From mean 0 and variance 1 to the moments of the data."""
    seen = Moments(100, np.array([2.0, -3.0]), np.array([4.0, 0.5]))
    held = Momentum(0.5, Convention.OF_THE_OLD).step(Statistics(np.zeros(2), np.ones(2)), seen)
    assert settled(held, seen, 1e-3).share == pytest.approx(0.5)
    assert settled(Statistics(np.zeros(2), np.ones(2)), seen, 1e-3).share == 0
    assert settled(Statistics(seen.mean, seen.variance), seen, 1e-3).share == pytest.approx(1)


def test_one_channel_of_large_variance_hides_no_others() -> None:
    """Channels count alike: seven that were never updated are not outweighed by one that was."""
    seen = Moments(100, np.r_[np.full(7, 3.0), 0.0], np.r_[np.full(7, 0.01), 1e4])
    held = Statistics(np.zeros(8), np.r_[np.ones(7), 1e4])
    share = settled(held, seen, 1e-3).share
    assert share is not None
    assert share < 0.1


def test_means_that_overshoot_are_told_by_their_distance() -> None:
    """Ten where the data has one is not settled, whatever the share says."""
    seen = Moments(100, np.array([1.0, 1.0]), np.array([4.0, 4.0]))
    found = settled(Statistics(np.array([10.0, -10.0]), np.array([4.0, 4.0])), seen, 1e-3)
    assert found.apart == pytest.approx(5.5, rel=1e-3)
    assert found.channel == 1


def test_data_that_has_the_initial_moments_itself_says_nothing() -> None:
    """There is no way to have come."""
    seen = Moments(10, np.zeros(2), np.ones(2))
    assert settled(Statistics(np.zeros(2), np.ones(2)), seen, 0.0).share is None
