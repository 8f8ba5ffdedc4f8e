"""Comparing large arrays a block at a time."""

import math

import numpy as np
import pytest

from infold.convert.blocks import BLOCK_ELEMENTS, Scaled, blocks, mean_square, peak
from infold.convert.comparison import compare

LARGE = (3, BLOCK_ELEMENTS // 2 + 1)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (7, 3), (2, 3, 4), (1, 1, 50), (3, 0, 2), (11, 1)])
@pytest.mark.parametrize("limit", [1, 2, 4, 100])
def test_blocks_cover_every_element_once(shape: tuple[int, ...], limit: int) -> None:
    """And none is larger than asked."""
    seen = np.zeros(shape, int)
    for index in blocks(shape, limit):
        assert seen[index].size <= limit
        seen[index] += 1
    assert (seen == 1).all()


def test_the_figures_of_many_blocks_are_those_of_the_whole() -> None:
    """Checked against numpy on arrays of several blocks, with a limit for each element."""
    rng = np.random.default_rng(0)
    want = rng.standard_normal(LARGE).astype(np.float32)
    got = want + rng.standard_normal(LARGE).astype(np.float32) * np.float32(1e-3)
    limit = rng.uniform(1e-3, 2e-3, LARGE)
    found = compare("v", want, got, limit.__getitem__)
    a, b = want.astype(np.float64), got.astype(np.float64)
    assert found.max_abs == np.abs(a - b).max()
    assert found.relative == np.abs(a - b).max() / np.abs(a).max()
    assert found.exceeded == pytest.approx((np.abs(a - b) / limit).max(), rel=1e-12)
    assert found.bound == limit.max()
    cosine = (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())
    assert found.cosine == pytest.approx(cosine, rel=1e-12)
    assert mean_square(want.shape, want.__getitem__) == pytest.approx((a * a).mean(), rel=1e-12)
    assert peak(want.shape, lambda index: np.abs(want[index])) == np.abs(want).max()


@pytest.mark.parametrize("place", [(0, 0), (1, 7), (2, LARGE[1] - 1)])
@pytest.mark.parametrize("error", [1.0, math.nan, math.inf])
def test_one_element_that_is_off_is_found_in_any_block(place: tuple[int, int], error: float) -> None:
    """First, last, or in between; a number that is none is infinitely far off."""
    want = np.ones(LARGE, np.float32)
    got = want.copy()
    got[place] += np.float32(error)
    found = compare("v", want, got, np.asarray(0.5))
    assert not found.passed
    assert found.max_abs == (1.0 if error == 1.0 else math.inf)


def test_what_is_not_finite_in_both_agrees() -> None:
    """NaN where NaN is, and the same infinity; the rest is compared."""
    want = np.array([1.0, math.nan, math.inf, -math.inf])
    assert compare("v", want, want + 1e-9, np.asarray(1e-6)).passed
    assert not compare("v", want, np.array([1.0, math.nan, -math.inf, -math.inf]), np.asarray(1.0)).passed
    assert not compare("v", want, np.array([1.0, 0.0, math.inf, -math.inf]), np.asarray(1.0)).passed


def test_a_scaled_array_is_multiplied_in_float64() -> None:
    """Its magnitude may leave float32's range."""
    large = Scaled(np.array([1.0, 2.0], np.float32), 1e60)
    assert large[(slice(1, 2),)].tolist() == [2e60]
