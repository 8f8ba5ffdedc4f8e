"""Versions that come, go and are replaced while they are asked."""

from __future__ import annotations

from faults.models import BROAD, LINE, MODELS, PAIR, graph
from faults.stage import Stage

__all__ = ["away_and_back", "reload", "swap"]


def swap(stage: Stage) -> str:
    """The next version takes the place of the oldest."""
    (name,) = stage.dice.choices(MODELS, (4, 4, 1))
    stage.swap(name)
    return name


def reload(stage: Stage) -> str:
    """The newest version is put there once more, and swapped in: it answers all the time."""
    name = stage.dice.choice([LINE, PAIR])
    version = stage.newest[name]
    stage.shelf.put(name, version, graph=graph(name, version).SerializeToString())
    status, text = stage.order("load", name)
    assert status == 200, text
    return name


def away_and_back(stage: Stage) -> str:
    """A model is unloaded and loaded again: meanwhile callers are refused, and told why."""
    name = stage.dice.choice([BROAD, PAIR])
    versions = stage.timeline.living(name)
    for version in (None, *versions):
        stage.timeline.is_doubtful(name, version)
    status, text = stage.order("unload", name)
    assert status == 200, text
    for version in (None, *versions):
        stage.timeline.vanishes(name, version)
    for version in (None, *versions):
        stage.timeline.appears(name, version)
    status, text = stage.order("load", name)
    assert status == 200, text
    for version in (None, *versions):
        stage.timeline.is_sure(name, version)
    return name
