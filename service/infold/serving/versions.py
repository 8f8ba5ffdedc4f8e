"""Which version to load or unload next: a pure function of what there is and what is held.

It is asked again after each action, forgets nothing in between because it
remembers nothing, and returns None when all is as it should be. New versions
are loaded before old ones go, so that a model is never without an answer. Where
one of the newest does not load, the one before takes its place.

Source: the aspired-version policies of TensorFlow Serving, as an idea.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from infold.serving.lifecycle import State

__all__ = ["Load", "Policy", "Unload", "fallbacks", "plan", "wanted"]

# `latest`, `latest:N`, `all`, or the numbers themselves.
Policy = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Load this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload this version."""

    version: int


def wanted(found: Collection[int], policy: Policy, rejected: Collection[int] = ()) -> list[int]:
    """The versions a policy asks for, newest first.

    Args:
        found: Versions on disk.
        policy: Whose.
        rejected: Versions that were rolled back from, which count as if they were not there.
    """
    newest_first = sorted(set(found).difference(rejected), reverse=True)
    if isinstance(policy, tuple):
        return [version for version in newest_first if version in policy]
    if policy == "all":
        return newest_first
    _, _, count = policy.partition(":")
    return newest_first[: int(count or 1)]


def plan(
    found: Collection[int],
    held: Mapping[int, State],
    policy: Policy,
    changed: Collection[int] = (),
    rejected: Collection[int] = (),
) -> Load | Unload | None:
    """The next action for one model, or None.

    Args:
        found: Versions on disk.
        held: State of every version the manager knows of.
        policy: See `wanted`.
        changed: Versions that are not on disk any more as they were when they were tried last.
        rejected: As `wanted`.
    """
    aspired = wanted(found, policy, rejected)

    def is_new(version: int) -> bool:
        return version not in held or held[version] is State.UNLOADED or version in changed

    for version in aspired:
        if is_new(version):
            return Load(version)
    if State.LOADING in held.values():
        return None
    others = [v for v, state in held.items() if v not in aspired and state is State.READY]
    others.sort(key=lambda version: (version not in rejected, version))
    missing = sum(held[version] is not State.READY for version in aspired)
    if isinstance(policy, tuple) and 0 < missing < len(aspired):
        missing = 0  # its owner wants these; others stay only while none of them answers
    # Each that has failed leaves its place to what answered before, or to an older one.
    if len(others) > missing:
        return Unload(others[0])
    if sum(version not in rejected for version in others) >= missing:
        return None
    return next((Load(v) for v in fallbacks(found, policy, rejected) if is_new(v)), None)


def fallbacks(found: Collection[int], policy: Policy, rejected: Collection[int] = ()) -> list[int]:
    """Versions to try in the place of those that have failed, newest first; none where they have names.

    Args:
        found: As `plan`.
        policy: As `plan`.
        rejected: As `plan`.
    """
    if isinstance(policy, tuple):  # its owner wants these and no others
        return []
    aspired = wanted(found, policy, rejected)
    return [version for version in wanted(found, "all", rejected) if version not in aspired]
