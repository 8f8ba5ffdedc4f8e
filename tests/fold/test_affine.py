"""The algebra of affines: composition, identity, and what the flags claim."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from infold.fold import Affine

F64 = NDArray[np.float64]

UNIT = 2.0**-53
NUMBERS = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: x if abs(x) > 1e-3 else 0.0)
SCALES = NUMBERS.filter(bool)


def vectors(channels: int) -> st.SearchStrategy[F64]:
    return arrays(np.float64, channels, elements=NUMBERS)


def affines(channels: int) -> st.SearchStrategy[Affine]:
    return st.builds(Affine.of, arrays(np.float64, channels, elements=SCALES), vectors(channels))


@st.composite
def chains(draw: st.DrawFn, length: int) -> tuple[list[Affine], F64]:
    """Affines of one channel count, some of them uniform, and data for them."""
    channels = draw(st.integers(1, 5))
    made = [draw(affines(draw(st.sampled_from([1, channels])))) for _ in range(length)]
    return made, draw(vectors(channels))


def apply(affine: Affine, x: F64) -> F64:
    return affine.scale * x + affine.shift


def allowed(chain: list[Affine], x: F64) -> F64:
    """gamma_k M: two roundings a step, computed twice, on the sum of magnitudes."""
    magnitude = np.abs(x)
    for affine in chain:
        magnitude = np.abs(affine.scale) * magnitude + np.abs(affine.shift)
    k = 4 * len(chain)
    return 2 * k * UNIT / (1 - k * UNIT) * magnitude


@given(chains(2))
def test_then_equals_applying_in_sequence(case: tuple[list[Affine], F64]) -> None:
    """`a.then(b)` applied is `b` applied after `a`."""
    (a, b), x = case
    assert (np.abs(apply(a.then(b), x) - apply(b, apply(a, x))) <= allowed([a, b], x)).all()


@given(chains(3))
def test_composition_associates(case: tuple[list[Affine], F64]) -> None:
    """It does not matter which pair of three is composed first."""
    (a, b, c), x = case
    left, right = a.then(b).then(c), a.then(b.then(c))
    assert (np.abs(apply(left, x) - apply(right, x)) <= allowed([a, b, c], x)).all()


@given(chains(1))
def test_identity_does_nothing_on_either_side(case: tuple[list[Affine], F64]) -> None:
    """Composing with the identity gives back the same numbers, bit by bit."""
    (a,), _ = case
    for same in (a.then(Affine.identity()), Affine.identity().then(a)):
        assert (same.scale == a.scale).all() and (same.shift == a.shift).all()


def test_order_matters() -> None:
    """Scaling and shifting do not commute, and `then` puts its argument outside."""
    double, raise_by_one = Affine.of(2.0, 0.0), Affine.of(1.0, 1.0)
    assert apply(double.then(raise_by_one), np.array([3.0])) == 7.0
    assert apply(raise_by_one.then(double), np.array([3.0])) == 8.0


def test_composition_broadcasts_a_uniform_affine() -> None:
    """One channel stands for all of them on either side of a composition."""
    composed = Affine.of(3.0, 1.0).then(Affine.of([1.0, 2.0], [10.0, 20.0]))
    assert composed.scale.tolist() == [3.0, 6.0]
    assert composed.shift.tolist() == [11.0, 22.0]


def test_over_writes_a_uniform_affine_out() -> None:
    """`over` gives every channel its own numbers and keeps what has them already."""
    wide = Affine.of(2.0, 3.0).over(3)
    assert wide.scale.tolist() == [2.0, 2.0, 2.0] and wide.shift.tolist() == [3.0, 3.0, 3.0]
    own = Affine.of([1.0, 2.0], [0.0, 0.0])
    assert own.over(2).scale.tolist() == [1.0, 2.0]


@given(st.integers(1, 5), st.data())
def test_of_batch_norm_is_the_formula(channels: int, data: st.DataObject) -> None:
    """The affine equals gamma (x - mean) / sqrt(variance + epsilon) + beta."""
    gamma, beta, mean, x = (data.draw(vectors(channels)) for _ in range(4))
    variance = data.draw(arrays(np.float64, channels, elements=st.floats(0, 1e3)))
    epsilon = data.draw(st.sampled_from([1e-5, 1e-3, 0.5]))
    affine = Affine.of_batch_norm(gamma, beta, mean, variance, epsilon)
    root = np.sqrt(variance + epsilon)
    expected = gamma * (x - mean) / root + beta
    magnitude = np.abs(gamma) * (np.abs(x) + np.abs(mean)) / root + np.abs(beta)
    assert (np.abs(apply(affine, x) - expected) <= 16 * UNIT * magnitude).all()


def test_of_batch_norm_by_hand() -> None:
    """Gamma 6, beta 1, mean 2, variance 8, epsilon 1 is scale 2 and shift -3."""
    one = np.ones(1)
    affine = Affine.of_batch_norm(6 * one, one, 2 * one, 8 * one, 1.0)
    assert affine.scale.tolist() == [2.0] and affine.shift.tolist() == [-3.0]


def test_flags_say_what_holds_on_every_channel() -> None:
    """Each flag is true only if no channel contradicts it."""
    assert Affine.of([2.0, -1.0], [0.0, 0.0]).is_pure_scale
    assert not Affine.of([2.0, -1.0], [0.0, 1e-300]).is_pure_scale
    assert Affine.of([1.0, 1.0], [5.0, 0.0]).is_pure_shift
    assert not Affine.of([1.0, 1.0 + 2**-52], [5.0, 0.0]).is_pure_shift


def test_of_copies_what_it_is_given() -> None:
    """Changing the source array afterwards does not change the affine."""
    numbers = np.ones(2)
    affine = Affine.of(numbers, 0.0)
    numbers[:] = 7.0
    assert affine.scale.tolist() == [1.0, 1.0]
