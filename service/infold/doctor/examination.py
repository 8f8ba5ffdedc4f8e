"""Everything that is looked at, in one order; a look that fails is a finding, and not the end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from infold import __version__
from infold.doctor import installed, machine, reaching, told
from infold.doctor.findings import Finding, Level, bad
from infold.doctor.models import Shelf, check_models
from infold.runtime import Placement
from infold.settings import Settings

__all__ = ["Examination", "examine"]


# Looks that need the settings and nothing else.
_SETTLED: tuple[tuple[str, Callable[[Settings], list[Finding]]], ...] = (
    ("cpu", machine.check_cpu),
    ("memory", machine.check_memory),
    ("descriptors", machine.check_descriptors),
    ("cache", machine.check_cache),
    ("access", reaching.check_access),
    ("port", reaching.check_ports),
)


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of it.

    Attributes:
        findings: In the order in which they were made.
        models: Names of models that would answer.
    """

    findings: tuple[Finding, ...]
    models: tuple[str, ...]

    @property
    def would_serve(self) -> bool:
        """Nothing stops the service."""
        return all(each.level is not Level.BAD for each in self.findings)

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "infold": __version__,
            "would_serve": self.would_serve,
            "models": list(self.models),
            "findings": [each.json() for each in self.findings],
        }

    def text(self) -> str:
        """For people."""
        width = max(len(each.topic) for each in self.findings)
        return "\n".join([*(line for each in self.findings for line in each.lines(width)), self.sentence()])

    def sentence(self) -> str:
        """What it comes to."""
        if self.would_serve:
            return f"would serve {', '.join(self.models) or 'no models'}"
        count = sum(each.level is Level.BAD for each in self.findings)
        return f"would not serve: {count} of these stop{'s' if count == 1 else ''} it"


def examine(settings: Settings, flags: Collection[str] = (), *, opens_models: bool = True) -> Examination:
    """Look at everything the service depends on; nothing is changed, served or kept.

    Args:
        settings: As the service would have them.
        flags: Names of those that were given on the command line.
        opens_models: Each model is opened in a child process, which takes memory and a few seconds.
    """
    placements: list[Placement | None] = [None]
    shelves: list[Shelf] = []

    def device() -> list[Finding]:
        found, placements[0] = machine.check_device(settings)
        return found

    def models() -> list[Finding]:
        shelves.append(check_models(settings, placements[0], why_closed))
        return shelves[0].findings

    found = _looked("infold", installed.check_infold) + _looked("packages", installed.check_packages)
    found += (runtime := _looked("onnxruntime", installed.check_runtime))
    has_runtime = all(each.level is not Level.BAD for each in runtime)
    found += _looked("device", device) if has_runtime else []
    why_closed = "" if opens_models else "as asked"
    if placements[0] is None:
        why_closed = "there is no device to run them on" if has_runtime else "onnxruntime does not work"
    for topic, look in _SETTLED:
        found += _looked(topic, partial(look, settings))
    found += _looked("setting", partial(told.check_settings, settings, flags))
    found += _looked("repository", models)
    return Examination(tuple(found), tuple(shelves[0].ready) if shelves else ())


def _looked(topic: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as failure:  # a part of the service that is missing, or a mistake of ours
        text = f"could not be looked at: {type(failure).__name__}: {failure}"
        return [bad(topic, text, "the service would most likely meet the same")]
