"""The classes that a network finds most likely."""

from __future__ import annotations

from collections.abc import Sequence

from infold.tensors import Array

__all__ = ["top_classes"]


def top_classes(
    array: Array, top: int, labels: Sequence[str] | None
) -> list[list[tuple[float, int, str | None]]]:
    """The largest values of each row with their index and label, largest first."""
    return []
