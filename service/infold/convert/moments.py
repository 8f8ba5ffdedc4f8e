"""Moments of data per channel, gathered batch by batch; pure numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infold.convert.frontends.exported import Convention
from infold.fold.affine import F64
from infold.tensors import Array

__all__ = ["Moments", "Momentum", "Statistics", "moments", "settled"]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Moving statistics as a norm keeps them: [C] each, float64."""

    mean: F64
    variance: F64


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean and variance of what was seen so far.

    Attributes:
        count: Numbers seen in each channel.
        mean, variance: [C], float64; the variance is that of the population.
    """

    count: int
    mean: F64
    variance: F64

    def joined(self, other: Moments) -> Moments:
        """Both taken together, as if seen at once.

        Source: Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm for
        computing sample variances*, 1979.
        """
        count = self.count + other.count
        if not count:
            return self
        share = other.count / count
        apart = other.mean - self.mean
        mean = self.mean + apart * share
        variance = self.variance + (other.variance - self.variance) * share
        return Moments(count, mean, variance + apart**2 * (share * (1.0 - share)))

    @property
    def unbiased(self) -> F64:
        """The variance with n - 1 in place of n, as PyTorch keeps it."""
        return self.variance * (self.count / max(1, self.count - 1))


@dataclass(frozen=True, slots=True)
class Momentum:
    """A moving average as a framework keeps it.

    Attributes:
        value: The momentum.
        convention: Which share it is.
    """

    value: float
    convention: Convention

    def step(self, old: Statistics, batch: Moments) -> Statistics:
        """The statistics after one more batch, in this framework's way.

        Keras takes the batch's population variance, PyTorch the unbiased one.
        """
        is_new = self.convention is Convention.OF_THE_NEW
        new = self.value if is_new else 1.0 - self.value
        seen = batch.unbiased if is_new else batch.variance
        return Statistics(
            old.mean + (batch.mean - old.mean) * new, old.variance + (seen - old.variance) * new
        )


def moments(data: Array, axis: int, mask: Array | None = None) -> Moments:
    """Moments of one batch.

    Args:
        data: Any shape.
        axis: Its channel axis.
        mask: Which positions count; its shape is that of the leading axes of `data`
            without the channel axis. None counts all.
    """
    last = np.moveaxis(data, axis, -1).astype(np.float64)
    rows = last.reshape(-1, last.shape[-1])
    if mask is not None:
        counts: Array = mask.astype(bool)
        if counts.shape != last.shape[: counts.ndim]:  # further in, positions may have been pooled away
            counts = np.asarray(counts.reshape(len(counts), -1).any(axis=1))
        rows = last[counts].reshape(-1, last.shape[-1])
    if not len(rows):
        zero = np.zeros(last.shape[-1])
        return Moments(0, zero, zero)
    return Moments(len(rows), rows.mean(axis=0), rows.var(axis=0))


def settled(held: Statistics, seen: Moments) -> float | None:
    """How far statistics have come from their initial values (0 and 1) to what the data has.

    Returns:
        The share of the way by least squares over all channels: 0 not at all, 1 there;
        None where the data has the initial values' moments itself.
    """
    way = np.concatenate([seen.mean, seen.variance - 1.0])
    come = np.concatenate([held.mean, held.variance - 1.0])
    length = float(way @ way)
    return float(come @ way) / length if length > 1e-12 else None
