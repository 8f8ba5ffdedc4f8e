"""The one value that batch normalization is at inference: `y = scale * x + shift` per channel.

Pure algebra in float64. Knows no graph, no axis and no operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["F64", "Affine"]

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """`y[c] = scale[c] * x[c] + shift[c]`.

    One channel stands for all: an affine of length 1 applies to any number of channels.

    Attributes:
        scale: float64 [C].
        shift: float64 [C].
    """

    scale: F64
    shift: F64

    @classmethod
    def of(cls, scale: ArrayLike, shift: ArrayLike) -> Self:
        """An affine from anything numpy can make two vectors of; they broadcast to one length."""
        pair = np.broadcast_arrays(
            np.atleast_1d(np.asarray(scale, np.float64)), np.atleast_1d(np.asarray(shift, np.float64))
        )
        return cls(pair[0].copy(), pair[1].copy())

    @classmethod
    def identity(cls, channels: int = 1) -> Self:
        """The affine that changes nothing."""
        return cls(np.ones(channels), np.zeros(channels))

    @classmethod
    def of_batch_norm(cls, gamma: F64, beta: F64, mean: F64, variance: F64, epsilon: float) -> Self:
        """Batch normalization at inference as an affine.

        Args:
            gamma: float64 [C].
            beta: float64 [C].
            mean: float64 [C], the moving mean.
            variance: float64 [C], the moving variance.
            epsilon: Added to the variance; `variance + epsilon` must be positive.

        Source: ONNX BatchNormalization-15; Ioffe and Szegedy 2015, algorithm 2.
        """
        scale = gamma / np.sqrt(variance + epsilon)
        return cls(scale, beta - mean * scale)

    @property
    def channels(self) -> int:
        """Number of channels; 1 also means any number."""
        return len(self.scale)

    @property
    def is_pure_scale(self) -> bool:
        """The shift is zero on every channel."""
        return not self.shift.any()

    @property
    def is_pure_shift(self) -> bool:
        """The scale is one on every channel."""
        return bool((self.scale == 1).all())

    def then(self, outer: Affine) -> Affine:
        """`outer` applied after this one, as one affine."""
        return Affine.of(outer.scale * self.scale, outer.scale * self.shift + outer.shift)

    def over(self, channels: int) -> Affine:
        """The same affine with every one of `channels` channels written out."""
        if self.channels == channels:
            return self
        return Affine(np.broadcast_to(self.scale, channels), np.broadcast_to(self.shift, channels))
