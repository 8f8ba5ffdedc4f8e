"""How far two answers are apart."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infold.serving.divergence import divergence, worst
from infold.tensors import Array

NAN, INF = math.nan, math.inf


def f(*values: float, dtype: str = "float32") -> Array:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("served", "shadow", "off"),
    [
        (f(1, 2), f(1, 2), 0.0),
        (f(1, 2.5), f(1, 2), 0.25),
        (f(1, -2.5), f(1, -2), 0.25),
        (f(3, 0), f(1, 4), 1.0),
        (f(0, 0), f(0, 0), 0.0),
        (f(1e-30, 0), f(0, 0), INF),
        (f(NAN, 2), f(NAN, 2), 0.0),
        (f(NAN, 3), f(NAN, 2), 0.5),
        (f(NAN, 2), f(1, 2), INF),
        (f(1, 2), f(NAN, 2), INF),
        (f(INF, 2), f(INF, 2), 0.0),
        (f(INF, 3), f(INF, 2), 0.5),
        (f(INF, 2), f(-INF, 2), INF),
        (f(INF, 2), f(1, 2), INF),
        (f(1, 2), f(1, INF), INF),
        (f(NAN, INF), f(NAN, INF), 0.0),
        (f(), f(), 0.0),
        (f(1), f(1, 1), INF),
        (np.float32([[1, 2]]), np.float32([[1], [2]]), INF),
        (f(1e308, dtype="float64"), f(-1e308, dtype="float64"), INF),
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), 0.25),
        (np.array([0, 255], np.uint8), np.array([255, 0], np.uint8), 1.0),
        (np.array([True, False]), np.array([True, True]), 0.5),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), 0.5),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), 0.0),
        (np.array(2**62 + 1), np.array(2**62), 1.0),
        (np.array(5.0), np.array(4.0), 0.25),
    ],
)
def test_how_far(served: Array, shadow: Array, off: float) -> None:
    """By the shadow's largest magnitude, or by the share of what differs; never a warning."""
    assert divergence(served, shadow) == off


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_every_float_is_compared_as_a_number(dtype: type) -> None:
    """A difference that the type itself could not hold is told all the same."""
    one, next_one = np.ones(2, dtype), np.array([1, 1 + float(ml_dtypes.finfo(dtype).eps)], dtype)
    found = divergence(next_one, one)
    assert found == float(ml_dtypes.finfo(dtype).eps)


@given(hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)))
def test_everything_equals_itself(array: Array) -> None:
    """With whatever it holds in place of numbers."""
    assert divergence(array, array.copy()) == 0.0


finite = hnp.arrays(np.float64, 5, elements=st.floats(-1e100, 1e100))


@given(finite, finite, st.integers(-60, 60))
def test_the_unit_of_an_output_does_not_matter(a: Array, b: Array, power: int) -> None:
    """Both twice as large: as far apart."""
    scale = 2.0**power
    one, other = divergence(a, b), divergence(a * scale, b * scale)
    assert one == pytest.approx(other) or min(one, other) > 1e250 or max(one, other) < 1e-250


def test_the_worst_output_is_named() -> None:
    """And what is not asked for is not compared; of nothing there is nothing."""
    shadow = {"a": f(1, 2), "b": f(1, 2), "c": f(9)}
    assert worst({"a": f(1, 2.5), "b": f(1, 3)}, shadow) == ("b", 0.5)
    assert worst({"a": f(1, 2), "b": f(1, 2)}, shadow) == ("a", 0.0)
    assert worst({}, shadow) == ("", 0.0)
