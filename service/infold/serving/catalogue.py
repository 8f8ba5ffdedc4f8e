"""What is loaded, by model and version: who asks for a model finds it here, without waiting."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from infold.errors import InfoldError, ModelNotFoundError, ModelNotReadyError
from infold.serving.lifecycle import Servable, State
from infold.serving.repository import ModelVersion

__all__ = ["ALL", "Catalogue", "Held", "ModelState"]

# In the place of names: every model.
ALL = "*"
CANARY, STABLE = "canary", "stable"


@dataclass(frozen=True, slots=True)
class ModelState:
    """Where one version of a model is, or a model of which nothing is known but its name.

    Attributes:
        version: None where no version was ever loaded.
        state: None likewise.
        reason: Why it is so, where that is not plain.
    """

    model: str
    version: int | None = None
    state: State | None = None
    reason: str = ""


@dataclass(slots=True)
class Held:
    """One model of a catalogue.

    Attributes:
        servables: By version.
        tried: What each version was on disk when it was tried last.
        refusal: Why its folder cannot be read; None if it can.
        turn: How much of a request the canary is owed.
    """

    servables: dict[int, Servable]
    tried: dict[int, ModelVersion]
    refusal: InfoldError | None = None
    turn: float = 0.0

    @property
    def states(self) -> dict[int, State]:
        """Of each version."""
        return {number: servable.state for number, servable in self.servables.items()}

    @property
    def is_unloaded(self) -> bool:
        """Nobody wants it any more."""
        return self.refusal is None and all(state is State.UNLOADED for state in self.states.values())

    @property
    def ready(self) -> list[Servable]:
        """Versions that answer."""
        return [servable for servable in self.servables.values() if servable.state is State.READY]


class Catalogue:
    """All servables.

    Args:
        required: Names of models without which the service is not ready; `*` is all.

    Attributes:
        held: By the model's name.
        is_draining: The service is going down.
    """

    def __init__(self, required: Collection[str] = (ALL,)) -> None:
        self._required = frozenset(required)
        self.held: dict[str, Held] = {}
        self.is_draining = False

    @property
    def is_ready(self) -> bool:
        """Every model that is required has a version that answers, and the service is not going down."""
        return not self.is_draining and not self.missing()

    def missing(self) -> list[str]:
        """Names of models that are required and do not answer, sorted."""
        silent = {n for n, model in self.held.items() if not (model.ready or model.is_unloaded)}
        if ALL in self._required:
            return sorted(silent)
        unknown = {name for name in self._required if name not in self.held}
        return sorted(self._required & silent | unknown)

    @property
    def load(self) -> dict[tuple[str, int], tuple[int, int, int]]:
        """Of each model and version that is loaded: requests in flight, rows and requests that wait."""
        return {
            (name, number): (servable.in_flight, servable.waiting_rows, servable.waiting_requests)
            for name, model in self.held.items()
            for number, servable in model.servables.items()
            if servable.state in (State.READY, State.DRAINING)
        }

    def begin_drain(self) -> None:
        """Turn not ready, so that load balancers look elsewhere; requests are still answered."""
        self.is_draining = True

    def models(self) -> list[str]:
        """Names of all models that are served or should be, sorted."""
        return sorted(name for name, model in self.held.items() if not model.is_unloaded)

    def versions(self, name: str) -> list[Servable]:
        """All versions of a model, oldest first.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        if name not in self.held:
            raise ModelNotFoundError(name)
        return [servable for _, servable in sorted(self.held[name].servables.items())]

    def states(self) -> list[ModelState]:
        """Of every version that was ever loaded, and of every model whose folder cannot be read."""
        found = []
        for name, model in sorted(self.held.items()):
            if model.refusal is not None:
                found.append(ModelState(name, None, State.FAILED, str(model.refusal)))
            for number, servable in sorted(model.servables.items()):
                found.append(ModelState(name, number, servable.state, servable.remark))
        return found

    def find(self, name: str, version: int | None = None) -> Servable:
        """The version asked for, or the newest that is ready.

        Raises:
            ModelNotFoundError: No such model or version.
            ModelNotReadyError: It is there, but cannot answer.
        """
        model = self.held.get(name)
        if model is None:
            raise ModelNotFoundError(name)
        versions = model.servables
        if len(versions) == 1 and version is None:
            (only,) = versions.values()
            if only.state is State.READY:
                return only
        if version is not None:
            servable = versions.get(version)
            if servable is None or servable.state is State.UNLOADED:
                raise ModelNotFoundError(name, version)
        else:
            ready = [number for number, each in versions.items() if each.state is State.READY]
            if not ready and model.is_unloaded:
                raise ModelNotFoundError(name)
            if not versions:
                raise ModelNotReadyError(name, None, State.FAILED)
            servable = versions[max(ready or versions)]
        if servable.state is not State.READY:
            number = servable.version.number
            raise ModelNotReadyError(name, number, servable.state, is_of_version=version is not None)
        return servable

    def lease(self, name: str, version: int | None = None) -> Servable:
        """As `find`, to be held at once in a `with`, so that it is not unloaded meanwhile.

        Of requests that name no version a canary gets its share, in turn and not by chance.

        Raises:
            As `find`.
        """
        servable = self.find(name, version)
        if version is None and (share := servable.version.config.canary.share) < 1:
            model = self.held[name]
            if (stable := _before(model, servable)) is not None:
                model.turn += share
                if model.turn < 1:
                    return stable
                model.turn -= 1
        return servable

    def labelled(self, name: str, label: str) -> int:
        """The version that a model's `model.toml` gives a label.

        While there is a canary it is called so, and the version beside it `stable`, where these
        labels are not given to others.

        Raises:
            ModelNotFoundError: No such model or label.
        """
        ready = [each for each in reversed(self.versions(name)) if each.state is State.READY]
        for servable in ready:
            labels = servable.version.config.version_labels
            if label in labels:
                return labels[label]
        if len(ready) > 1 and ready[0].version.config.canary.share < 1 and label in (CANARY, STABLE):
            return ready[label == STABLE].version.number
        raise ModelNotFoundError(name, label)


def _before(model: Held, newest: Servable) -> Servable | None:
    """The newest version that answers, of those older than this one."""
    older = [each for each in model.ready if each.version.number < newest.version.number]
    return max(older, key=lambda each: each.version.number, default=None)
