"""Runs whose inputs and outputs lie in buffers that are used again, bound to the session.

An input is copied into its buffer before it is bound: binding is what takes it to the GPU. An answer is
copied out of its buffer before the next run may write there. A binding itself lives for one run, so that
nothing of a run is left for the next. Nothing here knows of a GPU: buffers come from whoever asks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infold.runtime.pinned import Take
from infold.tensors import BFLOAT16, Array, Signature, Tensors, TensorSpec

__all__ = ["BoundRuns", "can_bind"]

# Larger ones are bound where they are: memory that is locked is taken from everybody, and kept.
LARGEST_BYTES = 64 * 2**20
KEPT_SETS = 2
KNOWN_SHAPES = 1024

Shapes = tuple[tuple[int, ...], ...]


def can_bind(signature: Signature) -> bool:
    """All that goes in and comes out are numbers that numpy has."""
    specs = (*signature.inputs, *signature.outputs)
    return not any(spec.dtype == np.object_ or spec.dtype == BFLOAT16 for spec in specs)


class _Buffers:
    """One buffer for each name, as large as the largest that was asked for."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._buffers: dict[tuple[str, str], NDArray[np.uint8]] = {}

    def view(self, role: str, name: str, dtype: np.dtype[np.generic], shape: Sequence[int]) -> Array | None:
        """Memory for an array; None for one that has no place in a buffer."""
        size = math.prod(shape) * dtype.itemsize
        if not 0 < size <= LARGEST_BYTES:
            return None
        buffer = self._buffers.get((role, name))
        if buffer is None or buffer.nbytes < size:
            self._buffers.pop((role, name), None)  # gone before the larger one comes
            buffer = self._buffers[role, name] = self._take(size)
        return buffer[:size].view(dtype).reshape(shape)


class BoundRuns:
    """Runs of one session; from several threads at once, each run has buffers of its own.

    Args:
        native: onnxruntime's session.
        signature: Its inputs and outputs; see `can_bind`.
        take: Gives memory for buffers.
    """

    def __init__(self, native: Any, signature: Signature, take: Take) -> None:
        self._native = native
        self._take = take
        self._inputs = signature.inputs
        self._outputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in signature.outputs}
        self._free: list[_Buffers] = []  # appended and popped in one step of the interpreter each
        # Of inputs of these shapes: the outputs that had the shape which the signature lets expect.
        self._as_expected: dict[Shapes, frozenset[str]] = {}

    def run(self, names: Sequence[str], tensors: Tensors, switch: Any) -> list[Array]:
        """Outputs in the order asked, in memory of their own.

        Args:
            names: Of the outputs.
            tensors: All inputs, as the signature says.
            switch: onnxruntime's options of this run, or None.
        """
        try:
            buffers = self._free.pop()
        except IndexError:
            buffers = _Buffers(self._take)
        shapes = tuple(tensors[spec.name].shape for spec in self._inputs)
        expected = self._expected(shapes)
        proven = self._as_expected.get(shapes, frozenset())
        bound = {name: expected[name] for name in names if name in proven}
        try:
            results = self._ran(names, tensors, switch, buffers, bound)
        except Exception:
            # A shape that depends on the numbers may be another this time; the buffers go with the failure.
            if not bound or (switch is not None and switch.terminate):
                raise
            buffers = _Buffers(self._take)
            results = self._ran(names, tensors, switch, buffers, {})
            self._as_expected[shapes] = frozenset()
        if shapes not in self._as_expected and len(self._as_expected) < KNOWN_SHAPES:
            pairs = zip(names, results, strict=True)
            same = frozenset(name for name, array in pairs if expected.get(name) == array.shape)
            if len(names) == len(self._outputs):
                self._as_expected[shapes] = same
        if len(self._free) < KEPT_SETS:
            self._free.append(buffers)
        return results

    def _expected(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs, as far as they follow from those of the inputs."""
        lengths: dict[Any, int] = {}
        for spec, shape in zip(self._inputs, shapes, strict=True):
            if spec.shape is not None:
                lengths |= {dim: n for dim, n in zip(spec.shape, shape, strict=True) if isinstance(dim, str)}
        found = {}
        for name, spec in self._outputs.items():
            if spec.shape is not None:
                dims = [dim if isinstance(dim, int) else lengths.get(dim, -1) for dim in spec.shape]
                if -1 not in dims:
                    found[name] = tuple(dims)
        return found

    def _ran(
        self,
        names: Sequence[str],
        tensors: Tensors,
        switch: Any,
        buffers: _Buffers,
        expected: Mapping[str, tuple[int, ...]],
    ) -> list[Array]:
        binding = self._native.io_binding()
        held: list[Array] = []  # what is bound by its address, until the run is over
        for spec in self._inputs:
            array = tensors[spec.name]
            place = buffers.view("input", spec.name, spec.dtype, array.shape)
            if place is None:
                place = np.asarray(array, order="C")
            else:
                np.copyto(place, array)
            held.append(place)
            binding.bind_cpu_input(spec.name, place)
        for name in names:
            dtype, shape = self._outputs[name].dtype, expected.get(name)
            given = None if shape is None else buffers.view("output", name, dtype, shape)
            if given is None:
                binding.bind_output(name, "cpu")
            else:
                binding.bind_output(name, "cpu", 0, dtype.type, shape, given.ctypes.data)
                held.append(given)
        self._native.run_with_iobinding(binding, switch)
        results: list[Array] = []
        for value in binding.get_outputs():  # an input that is an output too is not where it was bound
            array = value.numpy()
            is_ours = any(np.may_share_memory(array, each) for each in held)
            results.append(array.copy() if is_ours else array)
        return results
