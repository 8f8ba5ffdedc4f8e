"""Loading, unloading and rolling back by name, in every worker of the service.

Each worker does what is asked and answers with all that it has been asked for, so
that one that starts later begins with the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from infold.errors import InfoldError, LoadError, ModelControlError, ModelNotFoundError
from infold.rest.peers import Peers
from infold.serving import ModelManager
from infold.settings import ModelControl, Settings

__all__ = ["Control", "asked_at_start", "rejected_at_start"]

TOPIC = "control"
LONGEST_S = 600.0  # that all workers together may take


class _Order(msgspec.Struct):
    """What is to be done.

    Attributes:
        model: With which model.
        what: `load`, `unload` or `roll back`.
        config: To load it, what replaces the configuration beside it.
        version: To roll it back, the version that is bad.
    """

    model: str
    what: str
    config: str | None = None
    version: int = 0


class _Done(msgspec.Struct):
    """What came of an order.

    Attributes:
        asked: Everything this worker has been asked for, with what overrides its configuration.
        rejected: Of each model, versions it has been rolled back from.
        problem: Why it was not done.
        is_unknown: Because nobody knows the model.
    """

    asked: Mapping[str, str | None]
    rejected: Mapping[str, list[int]] = {}
    problem: str | None = None
    is_unknown: bool = False


def asked_at_start(settings: Settings, peers: Peers) -> Mapping[str, str | None] | None:
    """What a service that loads by name begins with; None for one that does not."""
    if settings.model_control is not ModelControl.EXPLICIT:
        return None
    if TOPIC in peers.earlier:
        return msgspec.convert(peers.earlier[TOPIC], _Done).asked
    return dict.fromkeys(settings.load_models)


def rejected_at_start(peers: Peers) -> Mapping[str, list[int]]:
    """Versions that the service has been rolled back from before this worker was started."""
    if TOPIC not in peers.earlier:
        return {}
    return msgspec.convert(peers.earlier[TOPIC], _Done).rejected


class Control:
    """Orders of callers, carried out by all workers.

    Args:
        manager: Of this process.
        peers: All processes.
        is_allowed: Whether callers may give orders at all.
    """

    def __init__(self, manager: ModelManager, peers: Peers, *, is_allowed: bool) -> None:
        self._manager = manager
        self._peers = peers
        self._is_allowed = is_allowed
        peers.on(TOPIC, self._obey)

    async def load(self, model: str, config: str | None) -> None:
        """The model is loaded by every worker.

        Args:
            model: Its name.
            config: Replaces the configuration beside it, as Triton's JSON.

        Raises:
            ModelControlError: Callers may not.
            LoadError: A worker cannot, or did not say.
        """
        await self._give(_Order(model, "load", config))

    async def unload(self, model: str) -> None:
        """The model is served by no worker.

        Raises:
            ModelControlError: Callers may not.
            ModelNotFoundError: It was never loaded, in no worker.
            LoadError: A worker did not say that it has.
        """
        await self._give(_Order(model, "unload"))

    async def roll_back(self, model: str, version: int | None) -> tuple[int, int]:
        """A version of the model is served by no worker, and another one by all.

        Args:
            model: Its name.
            version: The one that is bad; by default the newest that answers.

        Returns:
            The version that is bad, and the one that answers now.

        Raises:
            ModelControlError: Callers may not.
            ModelNotFoundError: There is no such model or version.
            LoadError: There is no other version, or a worker cannot load it, or did not say.
        """
        self._check_allowed()
        bad = self._manager.catalogue.find(model, version).version.number
        await self._give(_Order(model, "roll back", version=bad))
        return bad, self._manager.catalogue.find(model).version.number

    def _check_allowed(self) -> None:
        if not self._is_allowed:
            raise ModelControlError

    async def _give(self, order: _Order) -> None:
        self._check_allowed()
        answers = await self._peers.gather(TOPIC, msgspec.to_builtins(order), LONGEST_S, shared=True)
        done = [msgspec.convert(answer, _Done) for answer in answers if answer is not None]
        problems = [each.problem for each in done if each.problem is not None]
        if len(done) < len(answers):
            problems.append("not all workers have answered")
        if problems:
            raise LoadError(order.model, problems[0], order.what)
        if all(each.is_unknown for each in done):  # one that was started since may never have known it
            raise ModelNotFoundError(order.model)

    async def _obey(self, payload: object) -> object:
        order = msgspec.convert(payload, _Order)
        problem, is_unknown = None, False
        try:
            if order.what == "load":
                await self._manager.load(order.model, order.config)
            elif order.what == "unload":
                await self._manager.unload(order.model)
            else:
                await self._manager.roll_back(order.model, order.version)
        except LoadError as failure:
            problem = failure.detail
        except ModelNotFoundError:
            is_unknown = True
        except InfoldError as failure:
            problem = str(failure)
        return msgspec.to_builtins(_Done(self._manager.asked, self._manager.rejected, problem, is_unknown))
