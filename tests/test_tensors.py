"""Signatures: what fits a model, and what is said of what does not."""

from __future__ import annotations

import numpy as np
import pytest

from infold.errors import InvalidInputError
from infold.tensors import MODEL_NAME, Dim, Signature, TensorSpec

F32 = np.dtype(np.float32)


def spec(name: str, *shape: Dim) -> TensorSpec:
    return TensorSpec(name, F32, shape)


TWO = Signature((spec("a", "N", 2), spec("b", "N", None)), (spec("y", "N"),))


def zeros(*shape: int) -> np.ndarray[tuple[int, ...], F32]:
    return np.zeros(shape, np.float32)


def test_what_fits_passes() -> None:
    """Fixed lengths as they are, open ones as long as they like, a symbol the same everywhere."""
    TWO.check({"a": zeros(3, 2), "b": zeros(3, 9)})


@pytest.mark.parametrize(
    ("tensors", "place", "words"),
    [
        ({"a": zeros(3, 2)}, "input 'b'", "missing"),
        ({"a": zeros(3, 2), "b": zeros(3, 1), "c": zeros(1)}, "input 'c'", "no such input; it has 'a', 'b'"),
        (
            {"a": zeros(3, 5), "b": zeros(3, 1)},
            "input 'a'",
            r"shape \[3, 5\] given, the model takes \[-1, 2\]",
        ),
        ({"a": zeros(3), "b": zeros(3, 1)}, "input 'a'", r"shape \[3\] given"),
        (
            {"a": zeros(3, 2).astype(np.float64), "b": zeros(3, 1)},
            "input 'a'",
            "type float64 given, .* float32",
        ),
        ({"a": zeros(3, 2), "b": zeros(4, 1)}, "input 'b'", r"axis 0 \('N'\) has length 4, but 'a' has 3"),
    ],
)
def test_what_does_not_fit_is_named(tensors: dict[str, np.ndarray], place: str, words: str) -> None:
    """Each misfit says which input, what was given and what is wanted."""
    with pytest.raises(InvalidInputError, match=words) as caught:
        TWO.check(tensors)
    assert caught.value.place == place


def test_an_open_rank_takes_any_shape() -> None:
    """A model that says nothing of a shape accepts all."""
    assert TensorSpec("x", F32, None).mismatch(zeros(1, 2, 3)) is None


def test_batching_needs_an_open_first_axis_everywhere() -> None:
    """One fixed first axis, one scalar or one unknown rank is enough to rule it out."""
    assert TWO.is_batched
    for other in (spec("y", 1), spec("y"), TensorSpec("y", F32, None)):
        assert not Signature(TWO.inputs, (other,)).is_batched
    assert not Signature(TWO.inputs, TWO.outputs, has_rows=False).is_batched


@pytest.mark.parametrize("name", ["digits", "a", "A-1.b_c", "_x", "x" * 128])
def test_model_names(name: str) -> None:
    """One plain path segment."""
    assert MODEL_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b", "-x", "x" * 129, "ä", "a\n"])
def test_names_that_no_model_has(name: str) -> None:
    """Nothing hidden, nothing that leaves the folder."""
    assert not MODEL_NAME.fullmatch(name)
