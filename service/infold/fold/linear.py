"""One canonical view of every linear operator, and the two ways an affine goes into it.

    y[o] = out_scale[o] * sum over i, k of W[o, i, k] * in_scale[i] * x[i, k]  +  bias[..., o]

The stored weight is never multiplied on the way: scales collect in float64
beside it, and the product is rounded to the weight's own type once, block by
block, when the model is written. Folding two norms into one weight therefore
rounds no more often than folding one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from infold.fold.affine import F64, Affine
from infold.fold.report import Reason, Refused
from infold.fold.rounding import rounded
from infold.tensors import Array

__all__ = ["Border", "FoldedBias", "FoldedTensor", "Linear", "Weight"]

Float = TypeVar("Float", bound=np.floating[Any])

# Elements of one float64 block: 1 MiB, which stays in a core's own cache from one step to the next.
BLOCK_ELEMENTS = 2**17
# Bytes read of a mapped file before its pages are given back.
RELEASE_BYTES = 64 * 2**20

# Largest finite and smallest normal number of each storage dtype.
LIMITS: Mapping[ir.DataType, tuple[float, float]] = {
    ir.DataType.FLOAT16: (65504.0, 2.0**-14),
    ir.DataType.BFLOAT16: ((2 - 2.0**-7) * 2.0**127, 2.0**-126),
    ir.DataType.FLOAT: ((2 - 2.0**-23) * 2.0**127, 2.0**-126),
    ir.DataType.DOUBLE: (float(np.finfo(np.float64).max), 2.0**-1022),
}


class Sink(Protocol):
    """What a weight is written to: a file, or whatever else takes bytes."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take these bytes."""


class Border(Enum):
    """Which output elements see fewer taps than others.

    Members:
        NONE: None: each sees the whole weight.
        PADDED: Those at a padded edge see zeros in place of data.
        SCATTERED: A transposed convolution: the number of taps differs by position.
    """

    NONE = "none"
    PADDED = "padded"
    SCATTERED = "scattered"

    @property
    def reason(self) -> Reason:
        """Why a shift in front cannot be absorbed."""
        return Reason.SCATTERED_BORDER if self is Border.SCATTERED else Reason.ZERO_PADDING


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A stored weight and how its axes are to be read.

    One of the two channel axes may hold only a group's share of the channels
    (the input axis of Conv, the output axis of ConvTranspose).

    Attributes:
        stored: The elements as stored, in the storage dtype.
        dtype: The storage dtype.
        out_axis, in_axis: Which stored axis counts outputs, and which inputs.
        groups: Number of groups.
    """

    stored: Array
    dtype: ir.DataType
    out_axis: int
    in_axis: int
    groups: int = 1

    @property
    def outputs(self) -> int:
        """Number of output channels, all groups together."""
        return self._full(self.out_axis)

    @property
    def inputs(self) -> int:
        """Number of input channels, all groups together."""
        return self._full(self.in_axis)

    @property
    def fan_in(self) -> int:
        """Number of products summed up for one output element."""
        others = int(self.stored.size // max(1, self.stored.shape[self.out_axis]))
        grouped_out = self.stored.shape[self.out_axis] != self.outputs
        return others // self.groups if grouped_out else others

    def _full(self, axis: int) -> int:
        length = int(self.stored.shape[axis])
        other = self.in_axis if axis == self.out_axis else self.out_axis
        return length * self.groups if self._is_share(axis, other) else length

    def _is_share(self, axis: int, other: int) -> bool:
        # Conv and ConvTranspose both keep the whole count on axis 0 and a group's share on axis 1.
        return self.groups > 1 and axis > other

    def along(self, channels: F64, axis: int) -> F64:
        """Per-channel factors laid out so that they broadcast against the stored weight.

        Args:
            channels: [O] when axis is the output axis, [I] when it is the input axis.
            axis: `out_axis` or `in_axis`.

        Returns:
            An array of the stored rank; every axis that does not matter has length 1.
        """
        other = self.in_axis if axis == self.out_axis else self.out_axis
        shape = [1] * self.stored.ndim
        shape[axis] = self.stored.shape[axis]
        if self._is_share(axis, other):
            shape[other] = self.stored.shape[other]
            per_group = channels.reshape(self.groups, 1, -1)
            members = self.stored.shape[other] // self.groups
            channels = np.repeat(per_group, members, axis=1)
        return channels.reshape(shape)

    def blocks(self) -> Iterator[tuple[slice, F64]]:
        """The weight in float64, a few rows of stored axis 0 at a time."""
        return self._blocks_in(np.float64)

    def _blocks_in(self, dtype: type[Float]) -> Iterator[tuple[slice, NDArray[Float]]]:
        """The weight in any dtype.

        Every block is the same scratch memory: whoever wants to keep one copies it. Pages
        of a mapped file are given back as they have been read.
        """
        row = self.stored[:1].size
        step = min(max(1, BLOCK_ELEMENTS // max(1, row)), max(1, self.stored.shape[0]))
        scratch = np.empty((step, *self.stored.shape[1:]), dtype)
        read = 0
        for start in range(0, self.stored.shape[0], step):
            rows = slice(start, min(start + step, self.stored.shape[0]))
            block = scratch[: rows.stop - rows.start]
            np.copyto(block, self.stored[rows], casting="unsafe")
            yield rows, block
            read += block.size * self.stored.itemsize
            if read > RELEASE_BYTES:
                _release_pages(self.stored)
                read = 0
        _release_pages(self.stored)

    def peaks(self) -> F64:
        """The largest magnitude of each output channel, float64 [O]."""
        found = np.zeros(self.outputs)
        # A magnitude is exact in the type it is stored in; but numpy is slow at computing with halves.
        dtype = np.float32 if self.stored.dtype == np.float32 else np.float64
        for rows, block in self._blocks_in(dtype):
            self.raise_peaks(found, rows, np.abs(block, out=block))
        return found

    def raise_peaks(self, peaks: F64, rows: slice, block: Array) -> None:
        """Lift `peaks` [O] to the largest element of each output channel in a block of rows."""
        kept = {0, self.out_axis} if self._is_share(self.out_axis, self.in_axis) else {self.out_axis}
        found = block.max(axis=tuple(axis for axis in range(block.ndim) if axis not in kept))
        if len(kept) == 2:  # rows are inputs, each sees its own group's outputs only
            group = np.arange(rows.start, rows.stop) * self.groups // self.stored.shape[0]
            np.maximum.at(peaks.reshape(self.groups, -1), group, found)
        elif self.out_axis == 0:
            peaks[rows] = found
        else:
            np.maximum(peaks, found, out=peaks)


def _release_pages(array: Array) -> None:
    """Give back what has been read of a mapped file; it is read again when it is needed again."""
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _rows(factor: F64, rows: slice) -> F64:
    return factor if factor.shape[0] == 1 else factor[rows]


class FoldedTensor(ir.LazyTensor):
    """A weight with scales folded in, multiplied and rounded only when it is read.

    Keeps the stored weight and the float64 scales, so that folding again starts
    from them and not from rounded numbers.
    """

    __slots__ = ("in_scale", "out_scale", "weight")

    def __init__(self, weight: Weight, out_scale: F64, in_scale: F64) -> None:
        self.weight = weight
        self.out_scale = out_scale
        self.in_scale = in_scale
        super().__init__(self._product, weight.dtype, ir.Shape(weight.stored.shape))

    def exact_blocks(self) -> Iterator[tuple[slice, F64]]:
        """The product in float64, unrounded, block by block along stored axis 0."""
        sides = ((self.out_scale, self.weight.out_axis), (self.in_scale, self.weight.in_axis))
        factors = [self.weight.along(scale, axis) for scale, axis in sides if (scale != 1).any()]
        for rows, block in self.weight.blocks():
            for factor in factors:
                block *= _rows(factor, rows)
            yield rows, block

    def exact(self) -> F64:
        """The whole product in float64."""
        product = np.empty(self.weight.stored.shape)
        for rows, block in self.exact_blocks():
            product[rows] = block
        return product

    def peaks(self) -> F64:
        """The largest magnitude of each output channel, float64 [O]."""
        if (self.in_scale == 1).all():  # a factor for the whole channel leaves the peak where it is
            return self.weight.peaks() * np.abs(self.out_scale)
        found = np.zeros(self.weight.outputs)
        for rows, block in self.exact_blocks():
            self.weight.raise_peaks(found, rows, np.abs(block, out=block))
        return found

    def sum_over_inputs(self) -> F64:
        """The sum over inputs and taps for each output, float64 [O].

        Only for a weight whose out axis counts all outputs.
        """
        axis = self.weight.out_axis
        total = np.zeros(self.weight.outputs)
        for rows, block in self.exact_blocks():
            part = block.sum(axis=tuple(each for each in range(block.ndim) if each != axis))
            if axis == 0:
                total[rows] += part
            else:
                total += part
        return total

    def _product(self) -> ir.TensorProtocol:
        product = np.empty(self.weight.stored.shape, self.weight.dtype.numpy())
        for rows, block in self.exact_blocks():
            product[rows] = rounded(block, self.weight.dtype)
        return ir.Tensor(product, dtype=self.weight.dtype, name=self.name)

    def tofile(self, file: Sink) -> None:
        """Write the rounded bytes block by block, so that no whole copy is ever held."""
        dtype = self.weight.dtype
        for _, block in self.exact_blocks():
            array = np.ascontiguousarray(rounded(block, dtype))
            file.write(array.view(np.uint8).reshape(-1).data)


class FoldedBias(ir.LazyTensor):
    """A bias in float64 that is rounded only when it is read."""

    __slots__ = ("exact",)

    def __init__(self, exact: F64, dtype: ir.DataType) -> None:
        self.exact = exact
        super().__init__(self._rounded, dtype, ir.Shape(exact.shape))

    def _rounded(self) -> ir.TensorProtocol:
        return ir.Tensor(rounded(self.exact, self.dtype), dtype=self.dtype, name=self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear operator's numbers, whatever its operator type.

    Attributes:
        weight: The stored weight.
        out_scale: float64 [O].
        in_scale: float64 [I].
        bias: float64 [..., O]; leading axes where the bias differs by row.
        border: Whether every output element sees every tap of the weight.
    """

    weight: Weight
    out_scale: F64
    in_scale: F64
    bias: F64
    border: Border = Border.NONE

    @classmethod
    def of(
        cls,
        weight: Weight,
        bias: F64 | None = None,
        alpha: float = 1.0,
        border: Border = Border.NONE,
    ) -> Linear:
        """The linear op as it stands, nothing absorbed; `alpha` multiplies the weight."""
        zero = np.zeros(weight.outputs)
        return cls(
            weight,
            np.full(weight.outputs, alpha, np.float64),
            np.ones(weight.inputs),
            zero if bias is None else np.asarray(bias, np.float64) + zero,
            border,
        )

    def absorb_output(self, affine: Affine) -> Linear:
        """The linear op followed by the affine, as one linear op.

        Args:
            affine: One channel per output, or one for all.
        """
        return replace(
            self,
            out_scale=self.out_scale * affine.scale,
            bias=self.bias * affine.scale + affine.shift,
        )

    def absorb_input(self, affine: Affine, at: str | None = None) -> Linear:
        """The linear op with the affine in front of it, as one linear op.

        Args:
            affine: One channel per input, or one for all.
            at: Name of the op, for a refusal.

        Raises:
            Refused: `zero-padding` or `scattered-border`, when there is a shift and not
                every output element sees every tap: the padding would need it too.
        """
        affine = affine.over(self.weight.inputs)
        bias = self.bias
        if not affine.is_pure_scale:
            if self.border is not Border.NONE:
                raise Refused(self.border.reason, at, "the shift is not 0")
            shifted = FoldedTensor(self.weight, self.out_scale, self.in_scale * affine.shift)
            bias = bias + shifted.sum_over_inputs()
        return replace(self, in_scale=self.in_scale * affine.scale, bias=bias)

    @property
    def has_bias(self) -> bool:
        """Some bias is not zero."""
        return bool(self.bias.any())

    def weight_tensor(self, at: str | None) -> FoldedTensor:
        """The weight to write.

        Raises:
            Refused: `not-representable`, naming the first channel whose weights
                overflow the storage dtype or vanish below its normal numbers.
        """
        tensor = FoldedTensor(self.weight, self.out_scale, self.in_scale)
        _require_representable(tensor.peaks(), self.weight.dtype, at, "weight")
        return tensor

    def bias_tensor(self, at: str | None, shape: tuple[int, ...] | None = None) -> FoldedBias:
        """The bias to write, in the weight's dtype, reshaped where the operator wants that.

        Raises:
            Refused: `not-representable`, naming the channel that overflows.
        """
        peaks = np.abs(self.bias).reshape(-1, self.bias.shape[-1]).max(axis=0, initial=0.0)
        _require_representable(peaks, self.weight.dtype, at, "bias", may_vanish=True)
        bias = self.bias if shape is None else self.bias.reshape(shape)
        return FoldedBias(bias, self.weight.dtype)


def _require_representable(
    peaks: F64, dtype: ir.DataType, at: str | None, what: str, *, may_vanish: bool = False
) -> None:
    """Refuse magnitudes that the storage dtype cannot hold.

    A channel whose largest weight lies below the smallest normal number would
    keep only a few of its bits; zero itself is exact.
    """
    largest, smallest = LIMITS[dtype]
    over = np.flatnonzero(~(peaks <= largest))
    if over.size:
        raise Refused(
            Reason.NOT_REPRESENTABLE,
            at,
            f"{what} of channel {over[0]} would be {peaks[over[0]]:.3g}, "
            f"above the largest {dtype.name.lower()} {largest:.3g}",
        )
    under = np.flatnonzero((peaks > 0) & (peaks < smallest))
    if under.size and not may_vanish:
        raise Refused(
            Reason.NOT_REPRESENTABLE,
            at,
            f"{what} of channel {under[0]} would be at most {peaks[under[0]]:.3g}, "
            f"below the smallest normal {dtype.name.lower()} {smallest:.3g}",
        )
