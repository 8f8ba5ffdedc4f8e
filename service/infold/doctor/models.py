"""What would become of each model and version: found as the service finds it, served and kept by nobody."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from infold.doctor.contents import Contents, contents_of
from infold.doctor.findings import Finding, bad, ok, shown_bytes, warn
from infold.errors import InfoldError
from infold.runtime import Cache, Placement
from infold.runtime.cores import cores_of_process
from infold.runtime.memory import machine_bytes
from infold.runtime.model_files import check_files
from infold.serving import ModelRepository, ModelVersion, State, Trial, Unload, plan
from infold.serving.catalogue import ALL
from infold.serving.preparing import options_of
from infold.serving.presenting import placed
from infold.serving.repository import Listing
from infold.settings import ModelControl, Settings

__all__ = ["Shelf", "check_models"]

MEND = "mend or replace its files; docs/loading.md says what a version must pass"


@dataclass(eq=False, slots=True)
class Shelf:
    """What was found of a repository.

    Attributes:
        findings: In the order of the models.
        ready: Names of models that would answer at the start.
        loaded_bytes: Of the files of all versions that would be loaded.
    """

    findings: list[Finding] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    loaded_bytes: int = 0


# Raises what a version would fail with.
Opens = Callable[[ModelVersion], None]


def check_models(settings: Settings, placement: Placement | None, why_closed: str = "") -> Shelf:
    """Every model of the repository, and what the service would start with.

    Args:
        settings: Of the service.
        placement: The device that runs the models; None where there is none.
        why_closed: Why no model is opened; empty to open them, each in a child process.
    """
    repository = ModelRepository(settings.repository, settings.finished_marker, settings.model_name)
    shelf = Shelf()
    try:
        names = repository.names()
    except InfoldError as failure:
        shelf.findings.append(bad("repository", str(failure), "name another folder, or mend this one"))
        return shelf
    opens = None if why_closed or placement is None else _opener(settings, placement)
    asked = _asked(settings, names)
    for name in sorted({*names, *asked}):
        _check_model(shelf, settings, repository, name, opens, is_asked=name in asked)
    shelf.findings.insert(0, _summary(settings, names, why_closed))
    shelf.findings += _missing(settings, {*names, *asked})
    if shelf.ready or shelf.loaded_bytes:
        shelf.findings.append(_size(shelf.loaded_bytes, has_opened=opens is not None))
    return shelf


def _opener(settings: Settings, placement: Placement) -> Opens:
    cores = cores_of_process().each(settings.workers)
    trial = Trial(settings.load_timeout_s, settings.load_memory_bytes)
    cache = Cache(None, or_temporary=False)  # nothing is written, and nothing believed of earlier starts

    def opens(version: ModelVersion) -> None:
        narrow = options_of(version, placed(version, placement), cores)
        check_files(version.path, root=version.root)
        trial(version, narrow, cores, cache)

    return opens


def _asked(settings: Settings, names: tuple[str, ...]) -> set[str]:
    """Models that are loaded at the start."""
    if settings.model_control is not ModelControl.EXPLICIT:
        return set(names)
    asked = set(settings.load_models)
    return asked - {ALL} | (set(names) if ALL in asked else set())


def _check_model(
    shelf: Shelf,
    settings: Settings,
    repository: ModelRepository,
    name: str,
    opens: Opens | None,
    *,
    is_asked: bool,
) -> None:
    topic = f"model {name}"
    stops = is_asked and not {ALL, name}.isdisjoint(settings.required_models)
    worst = bad if stops else warn
    try:
        listing = repository.listing(name)
    except InfoldError as failure:
        shelf.findings.append(worst(topic, str(failure), "mend that file or folder"))
        return
    if not listing.versions:
        text = f"{settings.repository / name}: there is no version in it"
        remedy = "a version is a folder with a plain number, 1 or 2, that holds model.onnx"
        if settings.finished_marker:
            remedy += f" and {settings.finished_marker}"
        by_name = is_asked and settings.model_control is ModelControl.EXPLICIT
        shelf.findings.append((worst if by_name else warn)(topic, text, remedy))
        return
    met = _settled(listing, opens)
    is_ready = State.READY in met.states.values()
    for version in listing.versions:
        shelf.findings.append(_version(version, met, is_stopping=stops and not is_ready, is_asked=is_asked))
    if not met.states:
        text = f"versions: {listing.policy} wants none of {[each.number for each in listing.versions]}"
        shelf.findings.append(warn(topic, text, "change versions in its model.toml"))
    if is_asked:
        shelf.ready += [name] if is_ready else []
        shelf.loaded_bytes += sum(
            met.contents[number].bytes for number, state in met.states.items() if state is State.READY
        )


@dataclass(eq=False, slots=True)
class _Met:
    """What became of the versions of one model."""

    states: dict[int, State]
    reasons: dict[int, str]
    contents: dict[int, Contents]
    was_opened: bool


def _settled(listing: Listing, opens: Opens | None) -> _Met:
    """Load and unload as the service would, by the same plan."""
    met = _Met({}, {}, {each.number: contents_of(each) for each in listing.versions}, opens is not None)
    on_disk = {each.number: each for each in listing.versions}
    while (action := plan(on_disk, met.states, listing.policy)) is not None:
        number = action.version
        if isinstance(action, Unload):
            met.states[number] = State.UNLOADED
            continue
        try:
            if problem := met.contents[number].problem:
                raise problem
            if opens is not None:
                opens(on_disk[number])
        except Exception as failure:  # of whatever kind: it is this version's
            is_known = isinstance(failure, InfoldError)
            met.reasons[number] = str(failure) if is_known else f"{type(failure).__name__}: {failure}"
            met.states[number] = State.FAILED
        else:
            met.states[number] = State.READY
    return met


def _version(version: ModelVersion, met: _Met, *, is_stopping: bool, is_asked: bool) -> Finding:
    number, topic = version.number, f"model {version.name}"
    state, contents = met.states.get(number), met.contents[number]
    facts = {
        "model": version.name,
        "version": number,
        "path": str(version.path),
        "state": None if state is None else str(state),
        "reason": met.reasons.get(number, ""),
        "was_opened": met.was_opened and state is not None,
        **contents.json(),
    }
    if state is State.FAILED:
        text = f"version {number} would fail: {met.reasons[number]}"
        if not is_stopping and is_asked and State.READY in met.states.values():
            text += "; another version would answer"
        return (bad if is_stopping else warn)(topic, text, MEND, **facts)
    if state is None or state is State.UNLOADED:
        return ok(topic, f"version {number} would not be loaded; {contents.text}", **facts)
    how = "would be ready" if met.was_opened else "lies there as it should; not opened"
    if not is_asked:
        how += ", but is not loaded at the start"
    if contents.doubt:
        return warn(
            topic, f"version {number} {how}; {contents.text}; {contents.doubt}", contents.remedy, **facts
        )
    return ok(topic, f"version {number} {how}; {contents.text}", **facts)


def _summary(settings: Settings, names: tuple[str, ...], why_closed: str) -> Finding:
    text = f"{settings.repository} holds {', '.join(names) or 'no models'}"
    facts = {"path": str(settings.repository), "models": list(names)}
    if not names:
        remedy = "mount models there, or name another folder; the service would start and serve nothing"
        return warn("repository", text, remedy, **facts)
    if settings.model_name and settings.model_name not in names:
        remedy = "in a repository of several models the names are those of their folders"
        return warn("repository", f"{text}, and none is called {settings.model_name}", remedy, **facts)
    return ok("repository", f"{text}; models are not opened: {why_closed}" if why_closed else text, **facts)


def _missing(settings: Settings, known: set[str]) -> list[Finding]:
    unknown = sorted({*settings.required_models} - {ALL} - known)
    return [
        bad(
            f"model {name}",
            f"{settings.repository / name}: is required, and is no model",
            "INFOLD_REQUIRED_MODELS",
        )
        for name in unknown
    ]


def _size(loaded_bytes: int, *, has_opened: bool) -> Finding:
    there = machine_bytes()
    facts = {"loaded_bytes": loaded_bytes, "memory_bytes": there}
    text = f"files of {shown_bytes(loaded_bytes)} would be loaded, of {shown_bytes(there)} of memory"
    if has_opened:
        scale = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale
        facts["largest_trial_bytes"] = peak
        text += f"; opening the largest took {shown_bytes(peak)}"
    if loaded_bytes > there:
        return warn("size", text, "more memory, fewer models, or explicit loading", **facts)
    return ok("size", text, **facts)
