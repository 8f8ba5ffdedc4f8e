"""Runs of a model whose tensors have other shapes on the wire than in the graph.

Only models that declare so come here; nothing is copied, as long as the tensors
lie in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from infold.errors import SessionError
from infold.runtime import Stop
from infold.serving.declared import Declared, Shapes
from infold.tensors import Array, Tensors

__all__ = ["as_declared"]

Run = Callable[[Tensors, Sequence[str] | None, Stop | None], dict[str, Array]]


def as_declared(run: Run, model: str, own_outputs: Sequence[str], declared: Declared) -> Run:
    """A run that takes and gives tensors as they are declared.

    Args:
        run: Of the model itself.
        model: To name in errors.
        own_outputs: All of the model's outputs.
        declared: What callers see.

    Returns:
        The very run that was given, where there is nothing to do.
    """
    names = [spec.name for spec in declared.signature.outputs]
    if not declared.inputs and not declared.outputs and names == list(own_outputs):
        return run

    def reshaped(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
        inner = dict(tensors)
        for name, shapes in declared.inputs.items():
            inner[name] = inner[name].reshape(_filled(shapes.model, shapes.wire, inner[name].shape))
        results = run(inner, names if outputs is None else outputs, stop)
        for name, shapes in declared.outputs.items():
            if name in results:
                results[name] = _given(model, name, results[name], shapes)
        return results

    return reshaped


def _given(model: str, name: str, array: Array, shapes: Shapes) -> Array:
    """An output in its shape on the wire.

    Raises:
        SessionError: The model gave another shape than it has.
    """
    fits = array.ndim == len(shapes.model) and all(
        dim in (-1, length) for dim, length in zip(shapes.model, array.shape, strict=True)
    )
    if not fits:
        detail = f"output '{name}' has shape {list(array.shape)}, declared is {list(shapes.model)}"
        raise SessionError(model, detail)
    return array.reshape(_filled(shapes.wire, shapes.model, array.shape))


def _filled(wanted: Sequence[int], pattern: Sequence[int], shape: Sequence[int]) -> list[int]:
    """A shape whose open axes have the lengths of those of another, in their order."""
    lengths = iter([length for dim, length in zip(pattern, shape, strict=True) if dim == -1])
    return [next(lengths) if dim == -1 else dim for dim in wanted]
