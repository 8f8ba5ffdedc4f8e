"""A model's signature as its `config.pbtxt` declares it, held against the model's own.

What is declared may say less than the model: fixed lengths where the model's are
open, and not every output. It may not say anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infold.errors import ConfigError
from infold.runtime import TritonConfig, TritonTensor, type_name
from infold.tensors import Dim, Signature, TensorSpec

__all__ = ["Declared", "Shapes", "declared"]


@dataclass(frozen=True, slots=True)
class Shapes:
    """A tensor's shape on the wire and in the model; -1 is open, and open axes keep their order."""

    wire: tuple[int, ...]
    model: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """A model as callers see it.

    Attributes:
        signature: Its inputs and outputs, in the order in which they are declared.
        inputs: Those that the model takes in another shape, by name.
        outputs: Those that it gives in another shape, by name.
    """

    signature: Signature
    inputs: Mapping[str, Shapes]
    outputs: Mapping[str, Shapes]


def declared(triton: TritonConfig, model: Signature) -> Declared:
    """The signature that a `config.pbtxt` declares.

    Args:
        triton: The declaration.
        model: The model's own signature.

    Raises:
        ConfigError: It does not fit the model; names both.
    """
    has_rows = triton.max_batch_size > 0 or (not triton.is_complete and model.is_batched)
    _check_names(triton.inputs, model.inputs, f"{triton.place}: input", all_of_them=True)
    _check_names(triton.outputs, model.outputs, f"{triton.place}: output", all_of_them=False)
    inputs = [
        _tensor(each, model.input(each.name), f"{triton.place}: input", has_rows=has_rows, is_exact=False)
        for each in triton.inputs
    ] or [_kept(spec, triton) for spec in model.inputs]
    outputs = [
        _tensor(each, model.output(each.name), f"{triton.place}: output", has_rows=has_rows, is_exact=True)
        for each in triton.outputs
    ] or [_kept(spec, triton) for spec in model.outputs]
    return Declared(
        Signature(tuple(spec for spec, _ in inputs), tuple(spec for spec, _ in outputs), has_rows),
        {spec.name: shapes for spec, shapes in inputs if shapes is not None},
        {spec.name: shapes for spec, shapes in outputs if shapes is not None},
    )


def _check_names(
    given: Sequence[TritonTensor], specs: Sequence[TensorSpec], place: str, *, all_of_them: bool
) -> None:
    known, names = [spec.name for spec in specs], [each.name for each in given]
    for name in names:
        if name not in known:
            listed = ", ".join(f"'{each}'" for each in known)
            raise ConfigError(f"{place} '{name}'", f"the model has none of that name; it has {listed}")
    missing = [name for name in known if name not in names]
    if missing and names and all_of_them:
        raise ConfigError(place, f"the model's '{missing[0]}' is not declared")


def _kept(spec: TensorSpec, triton: TritonConfig) -> tuple[TensorSpec, None]:
    """One that is as the model has it, where none are declared."""
    if triton.max_batch_size and spec.shape is not None and not spec.has_batch_axis:
        detail = f"{triton.max_batch_size}, but the model's '{spec.name}' has shape {spec.wire_shape()}"
        raise ConfigError(f"{triton.place}: max_batch_size", detail)
    return spec, None


def _tensor(
    given: TritonTensor, spec: TensorSpec | None, place: str, *, has_rows: bool, is_exact: bool
) -> tuple[TensorSpec, Shapes | None]:
    """One that is declared, and its shapes where the two differ.

    Args:
        given: As it is declared.
        spec: As the model has it.
        place: For errors.
        has_rows: Its first axis, which is not declared, is that of the rows.
        is_exact: What is open in the model must be declared so: it cannot be promised.
    """
    assert spec is not None
    place = f"{place} '{given.name}'"
    if (own := type_name(spec.dtype)) != given.data_type:
        raise ConfigError(f"{place}.data_type", f"{given.data_type} declared, the model's is {own}")
    rows = (-1,) if has_rows else ()
    wire = (*rows, *given.dims)
    inner = wire if given.reshape is None else (*rows, *given.reshape)
    if spec.shape is None:
        return TensorSpec(spec.name, spec.dtype, _open(wire, ())), _shapes(wire, inner)
    if spec.shape == () and not has_rows and all(dim == 1 for dim in inner):
        return TensorSpec(spec.name, spec.dtype, wire), _shapes(wire, ())
    if not _fits(inner, spec.shape, has_rows=has_rows, is_exact=is_exact):
        field = "dims" if given.reshape is None else "reshape.shape"
        said = f"{list(inner)} with the axis of the batch" if has_rows else f"{list(inner)}"
        raise ConfigError(f"{place}.{field}", f"{said} declared, the model's shape is {spec.wire_shape()}")
    symbols = [own for own, dim in zip(spec.shape, inner, strict=True) if dim == -1]
    return TensorSpec(spec.name, spec.dtype, _open(wire, symbols)), _shapes(wire, inner)


def _fits(inner: Sequence[int], shape: Sequence[Dim], *, has_rows: bool, is_exact: bool) -> bool:
    if len(inner) != len(shape) or (has_rows and isinstance(shape[0], int)):
        return False
    return all(
        own == dim if isinstance(own, int) else dim == -1 or not is_exact
        for own, dim in zip(shape, inner, strict=True)
    )


def _open(wire: Sequence[int], symbols: Sequence[Dim]) -> tuple[Dim, ...]:
    """A shape with the model's symbols, in their order, where it is open."""
    left = iter(symbols)
    return tuple(next(left, None) if dim == -1 else dim for dim in wire)


def _shapes(wire: tuple[int, ...], inner: tuple[int, ...]) -> Shapes | None:
    return None if wire == inner else Shapes(wire, inner)
