"""Attributes of a node, with their defaults.

Inside a model-local function an attribute may be set by the caller; its value is
not known then, and whoever asks for it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from infold.fold.report import Reason, Refused

__all__ = ["float_of", "int_of", "ints_of", "string_of"]


def int_of(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute. Raises Refused `not-constant` if the caller of a function sets it."""
    attribute = _known(node, name)
    return default if attribute is None else attribute.as_int()


def float_of(node: ir.Node, name: str, default: float) -> float:
    """A float attribute. Raises Refused `not-constant` if the caller of a function sets it."""
    attribute = _known(node, name)
    # A default is a float32 like what is given: 1e-5 is 9.99999975e-06, which float64 models can tell.
    return float(np.float32(default)) if attribute is None else attribute.as_float()


def string_of(node: ir.Node, name: str, default: str) -> str:
    """A string attribute. Raises Refused `not-constant` if the caller of a function sets it."""
    attribute = _known(node, name)
    return default if attribute is None else attribute.as_string()


def ints_of(node: ir.Node, name: str, default: Sequence[int]) -> Sequence[int]:
    """An attribute of several integers. Raises Refused `not-constant` if the caller sets it."""
    attribute = _known(node, name)
    return default if attribute is None else attribute.as_ints()


def _known(node: ir.Node, name: str) -> ir.Attr | None:
    attribute = node.attributes.get(name)
    if attribute is not None and attribute.is_ref():
        raise Refused(Reason.NOT_CONSTANT, node.name, f"attribute {name} is set by the caller")
    return attribute
