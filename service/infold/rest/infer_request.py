"""A decoded infer request of protocol v2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infold.rest.parameters import OutputParameters
from infold.tensors import Tensors

__all__ = ["MAX_ID_BYTES", "InferRequest"]

MAX_ID_BYTES = 256


@dataclass(slots=True, eq=False)
class InferRequest:
    """What is asked.

    Attributes:
        tensors: Inputs by name, of the model's dtypes.
        outputs: Names wanted, in order; None means all.
        id: The caller's own id of it.
        wishes: How outputs are wanted, by name.
        is_binary: An output whose wish says nothing comes as bytes.
        timeout_s: Longest time it may wait for a run; None leaves it to the service.
    """

    tensors: Tensors
    outputs: tuple[str, ...] | None = None
    id: str | None = None
    wishes: Mapping[str, OutputParameters] = field(default_factory=dict)
    is_binary: bool = False
    timeout_s: float | None = None
