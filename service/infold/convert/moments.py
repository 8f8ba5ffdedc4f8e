"""Moments of data per channel, gathered batch by batch; pure numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infold.convert.frontends.exported import Convention
from infold.fold.affine import F64
from infold.tensors import Array

__all__ = ["Moments", "Momentum", "Settled", "Statistics", "moments", "settled"]


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
        mask: Which positions count, [rows] or [rows, positions...]; None counts all. Where
            positions were merged into the rows, or pooled away, it is laid out anew.

    Raises:
        ValueError: The mask cannot be laid over the data: its positions are not those of the
            data, of which a layer before may have left fewer.
    """
    last = np.moveaxis(data, axis, -1).astype(np.float64)
    rows = last.reshape(-1, last.shape[-1])
    if mask is not None:
        rows = last[_laid_over(last.shape[:-1], mask.astype(bool))].reshape(-1, last.shape[-1])
    if not len(rows):
        zero = np.zeros(last.shape[-1])
        return Moments(0, zero, zero)
    return Moments(len(rows), rows.mean(axis=0), rows.var(axis=0))


def _laid_over(shape: tuple[int, ...], mask: Array) -> Array:
    """The mask for data of that shape, its channel axis left out."""
    if mask.shape == shape[: mask.ndim]:
        return mask
    if mask.size == shape[0]:  # positions were merged into the rows
        return mask.reshape(-1)
    if shape[0] == len(mask) and len(shape) == 1:  # pooled away: a row counts if any position does
        return np.asarray(mask.reshape(len(mask), -1).any(axis=1))
    if mask.ndim == 1 and shape[0] % len(mask) == 0:  # each row has become several
        return np.repeat(mask, shape[0] // len(mask))
    remedy = f"; give a mask of whole rows, [{len(mask)}]" if mask.ndim > 1 else ""
    raise ValueError(
        f"a mask of shape {list(mask.shape)} cannot be laid over data of shape {list(shape)}{remedy}"
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """How far statistics have come from their initial values (0 and 1) to the moments of some data.

    Attributes:
        share: Of the way, by least squares over channels that count alike: 0 not at all, 1 there;
            beyond where the samples are not what the network was trained on. None where the data
            has the initial values' moments itself.
        apart: Largest distance of any channel's mean from the data's, in the data's deviations.
        channel: Which one.
    """

    share: float | None
    apart: float
    channel: int


def settled(held: Statistics, seen: Moments, epsilon: float) -> Settled:
    """Hold moving statistics against the moments of data.

    Args:
        held: The statistics.
        seen: What their norm sees.
        epsilon: Of the norm: what a channel that hardly varies is measured by.
    """
    variance = seen.variance + epsilon
    way = np.concatenate([seen.mean / np.sqrt(variance), (seen.variance - 1.0) / variance])
    come = np.concatenate([held.mean / np.sqrt(variance), (held.variance - 1.0) / variance])
    apart = np.abs(held.mean - seen.mean) / np.sqrt(variance)
    length = float(way @ way)
    share = float(come @ way) / length if length > 1e-12 else None
    return Settled(share, float(apart.max()), int(apart.argmax()))
