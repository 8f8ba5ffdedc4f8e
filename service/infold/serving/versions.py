"""Which version to load or unload next: a pure function of what there is and what is held.

It is asked again after each action, forgets nothing in between because it
remembers nothing, and returns None when all is as it should be. New versions
are loaded before old ones go, so that a model is never without an answer.

Source: the aspired-version policies of TensorFlow Serving, as an idea.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from infold.serving.lifecycle import State

__all__ = ["Load", "Unload", "plan", "wanted"]


@dataclass(frozen=True, slots=True)
class Load:
    """Load this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload this version."""

    version: int


def wanted(found: Collection[int], policy: str | tuple[int, ...]) -> list[int]:
    """The versions a policy asks for, newest first.

    Args:
        found: Versions on disk.
        policy: `latest`, `latest:N`, `all`, or the numbers themselves.
    """
    newest_first = sorted(found, reverse=True)
    if isinstance(policy, tuple):
        return [version for version in newest_first if version in policy]
    if policy == "all":
        return newest_first
    _, _, count = policy.partition(":")
    return newest_first[: int(count or 1)]


def plan(
    found: Collection[int],
    held: Mapping[int, State],
    policy: str | tuple[int, ...],
    changed: Collection[int] = (),
) -> Load | Unload | None:
    """The next action for one model, or None.

    Args:
        found: Versions on disk.
        held: State of every version the manager knows of.
        policy: See `wanted`.
        changed: Versions that are not on disk any more as they were when they were tried last.
    """
    aspired = wanted(found, policy)
    for version in aspired:
        if version not in held or held[version] is State.UNLOADED or version in changed:
            return Load(version)
    if any(held.get(version) is State.LOADING for version in aspired):
        return None
    unwanted = [v for v, state in held.items() if v not in aspired and state is State.READY]
    # While nothing of what is wanted answers, the old stays.
    if aspired and not any(held[version] is State.READY for version in aspired):
        return None
    return Unload(min(unwanted)) if unwanted else None
