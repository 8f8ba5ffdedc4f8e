"""An affine on its way through a graph: scale and shift laid out along the axes of a value.

A site's affine varies along one axis. Crossing a Reshape it may come to vary
along two (a channel shuffle) or along longer ones (a Flatten), so what travels
is a pair of arrays of the value's rank, every axis of length 1 or the value's
own. Only where it is absorbed must it vary along a single axis again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from infold.fold.affine import F64, Affine
from infold.tensors import Dim

__all__ = ["Field", "regroup"]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """`y = scale * x + shift`, both broadcastable to x.

    Attributes:
        scale: float64, rank of the value, each axis of length 1 or the value's.
        shift: The same.
    """

    scale: F64
    shift: F64

    @classmethod
    def of(cls, affine: Affine, axis: int | None, rank: int) -> Self:
        """The affine laid out along `axis` of a value of that rank; None where it is the same everywhere."""
        shape = [1] * rank
        if axis is not None:
            shape[axis] = affine.channels
        return cls(affine.scale.reshape(shape), affine.shift.reshape(shape))

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.scale.ndim

    @property
    def is_pure_scale(self) -> bool:
        """The shift is zero everywhere."""
        return not self.shift.any()

    @property
    def is_monotone(self) -> bool:
        """No scale is negative, so that order is kept."""
        return bool((self.scale >= 0).all())

    def axes(self) -> tuple[int, ...]:
        """The axes along which it varies."""
        lengths = np.maximum(self.scale.shape, self.shift.shape)
        return tuple(int(axis) for axis in np.flatnonzero(lengths > 1))

    def along(self, axis: int) -> Affine | None:
        """The affine along one axis, or None if it varies along any other."""
        if any(each != axis for each in self.axes()):
            return None
        return Affine.of(self.scale.reshape(-1), self.shift.reshape(-1))

    def mapped(self, function: Callable[[F64], F64]) -> Field:
        """The same rearrangement of both arrays, axes that no longer vary shrunk to length 1."""
        return Field(_shrunk(function(self.scale)), _shrunk(function(self.shift)))

    def without_shift(self) -> Field:
        """The scale alone."""
        return Field(self.scale, np.zeros([1] * self.rank))

    def over(self, axis: int, length: int) -> Field:
        """Written out along one axis, which has that length."""

        def widen(array: F64) -> F64:
            shape = list(array.shape)
            shape[axis] = length
            return np.broadcast_to(array, shape)

        return Field(widen(self.scale), widen(self.shift))

    def embedded(self, axis: int, indices: Sequence[int] | np.ndarray, length: int) -> Field:
        """This field at some places of a longer axis, and no change at all others."""

        def place(array: F64, neutral: float) -> F64:
            shape = list(array.shape)
            shape[axis] = length
            result = np.full(shape, neutral)
            index: list[object] = [slice(None)] * array.ndim
            index[axis] = np.asarray(indices, np.int64)
            result[tuple(index)] = array  # type: ignore[index]  # slices and numbers
            return result

        return Field(_shrunk(place(self.scale, 1.0)), _shrunk(place(self.shift, 0.0)))

    def picked(self, axis: int, indices: Sequence[int] | np.ndarray) -> Field:
        """This field at the chosen places of an axis."""
        places = np.asarray(indices, np.int64)

        def pick(array: F64) -> F64:
            return array if array.shape[axis] == 1 else np.take(array, places, axis=axis)

        return self.mapped(pick)


def _shrunk(array: F64) -> F64:
    for axis, length in enumerate(array.shape):
        if length > 1:
            first = np.take(array, [0], axis=axis)
            if (array == first).all():
                array = first
    return array


def regroup(field: Field, source: Sequence[Dim], target: Sequence[Dim]) -> Field | None:
    """Carry a field across a Reshape, from a value of shape `source` to one of shape `target`.

    Axes are matched in groups of equal product. Within a group the field is written
    out and reshaped, so a channel axis that is split, merged or flattened is followed
    exactly.

    Returns:
        The field for `target`, or None where a group in which it varies has a length
        that is not known.
    """
    groups = _groups(source, target)
    scale, shift = (_regrouped(array, source, target, groups) for array in (field.scale, field.shift))
    if scale is None or shift is None:
        return None
    return Field(_shrunk(scale), _shrunk(shift))


Groups = list[tuple[list[int], list[int]]]


def _groups(source: Sequence[Dim], target: Sequence[Dim]) -> Groups:
    """Runs of source axes and target axes with equal products, in order.

    A Reshape keeps the number of elements, so whatever is left when equal ends have
    been taken off is equal in product too, known or not.
    """
    left, right = _tokens(source, target)
    ends = 0
    while ends < min(len(left), len(right)) and left[-1 - ends] == right[-1 - ends]:
        ends += 1
    groups: Groups = []
    i = j = 0
    stop_i, stop_j = len(left) - ends, len(right) - ends
    while i < stop_i or j < stop_j:
        a, b = min(i + 1, stop_i), min(j + 1, stop_j)
        while (a, b) != (stop_i, stop_j) and _product(left[i:a]) != _product(right[j:b]):
            ahead = _product(left[i:a])[0] > _product(right[j:b])[0]
            if (ahead and b < stop_j) or a == stop_i:
                b += 1
            else:
                a += 1
        groups.append((list(range(i, a)), list(range(j, b))))
        i, j = a, b
    groups += [([len(left) - n], [len(right) - n]) for n in range(ends, 0, -1)]
    return groups


def _tokens(source: Sequence[Dim], target: Sequence[Dim]) -> tuple[list[int | str], list[int | str]]:
    """Lengths with open ones named; one open length on each side must be the same one."""
    sides: list[list[int | str]] = []
    for which, dims in enumerate((source, target)):
        sides.append([d if isinstance(d, int) else f"{d or f'?{which}.{n}'}" for n, d in enumerate(dims)])
    left, right = sides
    open_left = [d for d in left if isinstance(d, str)]
    open_right = [d for d in right if isinstance(d, str)]
    known = [int(np.prod([d for d in side if isinstance(d, int)], dtype=np.int64)) for side in sides]
    if len(open_left) == len(open_right) == 1 and known[0] == known[1]:
        left[left.index(open_left[0])] = right[right.index(open_right[0])] = "the open one"
    return left, right


def _product(dims: Sequence[int | str]) -> tuple[int, tuple[str, ...]]:
    known = int(np.prod([d for d in dims if isinstance(d, int)], dtype=np.int64))
    return known, tuple(sorted(d for d in dims if isinstance(d, str)))


def _regrouped(array: F64, source: Sequence[Dim], target: Sequence[Dim], groups: Groups) -> F64 | None:
    shape: list[int] = []
    full: list[int] = []
    for ours, theirs in groups:
        varies = any(array.shape[axis] > 1 for axis in ours)
        lengths = [source[axis] for axis in ours]
        wanted = [target[axis] for axis in theirs]
        if not varies:
            full += [1] * len(ours)
            shape += [1] * len(theirs)
        elif len(ours) == len(theirs) == 1:
            full.append(array.shape[ours[0]])
            shape.append(array.shape[ours[0]])
        elif all(isinstance(d, int) for d in (*lengths, *wanted)):
            full += lengths  # type: ignore[arg-type]  # all are whole numbers
            shape += wanted  # type: ignore[arg-type]  # the same
        else:
            return None
    return np.broadcast_to(array, full).reshape(shape)
