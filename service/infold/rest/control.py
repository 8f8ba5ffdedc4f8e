"""Loading and unloading by name, in every worker of the service.

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

__all__ = ["Control", "asked_at_start"]

TOPIC = "control"
LONGEST_S = 600.0  # that all workers together may take


class _Order(msgspec.Struct):
    model: str
    is_load: bool
    config: str | None = None


class _Done(msgspec.Struct):
    """What came of an order.

    Attributes:
        asked: Everything this worker has been asked for, with what overrides its configuration.
        problem: Why it was not done.
        is_unknown: Because nobody knows the model.
    """

    asked: Mapping[str, str | None]
    problem: str | None = None
    is_unknown: bool = False


def asked_at_start(settings: Settings, peers: Peers) -> Mapping[str, str | None] | None:
    """What a service that loads by name begins with; None for one that does not."""
    if settings.model_control is not ModelControl.EXPLICIT:
        return None
    if TOPIC in peers.earlier:
        return msgspec.convert(peers.earlier[TOPIC], _Done).asked
    return dict.fromkeys(settings.load_models)


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
        await self._give(_Order(model, is_load=True, config=config))

    async def unload(self, model: str) -> None:
        """The model is served by no worker.

        Raises:
            ModelControlError: Callers may not.
            ModelNotFoundError: It was never loaded, in no worker.
            LoadError: A worker did not say that it has.
        """
        await self._give(_Order(model, is_load=False))

    async def _give(self, order: _Order) -> None:
        if not self._is_allowed:
            raise ModelControlError
        answers = await self._peers.gather(TOPIC, msgspec.to_builtins(order), LONGEST_S, shared=True)
        done = [msgspec.convert(answer, _Done) for answer in answers if answer is not None]
        problems = [each.problem for each in done if each.problem is not None]
        if len(done) < len(answers):
            problems.append("not all workers have answered")
        if problems:
            raise LoadError(order.model, problems[0], "load" if order.is_load else "unload")
        if all(each.is_unknown for each in done):  # one that was started since may never have known it
            raise ModelNotFoundError(order.model)

    async def _obey(self, payload: object) -> object:
        order = msgspec.convert(payload, _Order)
        problem, is_unknown = None, False
        try:
            if order.is_load:
                await self._manager.load(order.model, order.config)
            else:
                await self._manager.unload(order.model)
        except LoadError as failure:
            problem = failure.detail
        except ModelNotFoundError:
            is_unknown = True
        except InfoldError as failure:
            problem = str(failure)
        return msgspec.to_builtins(_Done(self._manager.asked, problem, is_unknown))
