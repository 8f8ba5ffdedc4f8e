"""A request as the serving floor sees it: how to read it, what to answer with, how long it may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from infold.serving.took import Took
from infold.tensors import Array, Tensors

__all__ = ["Asked", "Work"]

Answer = TypeVar("Answer")


@dataclass(eq=False, slots=True)
class Asked:
    """A decoded request.

    Attributes:
        tensors: All inputs by name.
        outputs: Outputs wanted, in that order; None means all.
        timeout_s: Longest time it may wait for its run; None for as long as the service lets it.
    """

    tensors: Tensors
    outputs: Sequence[str] | None = None
    timeout_s: float | None = None


@dataclass(eq=False, slots=True)
class Work(Generic[Answer]):
    """A request still on the wire, and the way back to it.

    Both functions are called once, in any thread.

    Attributes:
        decode: What is asked; raises what is wrong with it.
        encode: The answer, of the outputs by name.
        is_cheap: Decoding takes less than handing it to another thread.
        identity: What the log calls the request; a runner does not know whose it is otherwise.
        took: Where its time went; only once there is an answer.
    """

    decode: Callable[[], Asked]
    encode: Callable[[dict[str, Array]], Answer]
    is_cheap: bool = True
    identity: str = ""
    took: Took = field(init=False)
