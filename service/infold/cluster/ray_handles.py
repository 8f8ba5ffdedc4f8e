"""Ray's handles as infold sees them: its errors are ours from here on, and no traceback leaves."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from infold.cluster.failures import QueuesFullError, ReplicaLostError, UnavailableError
from infold.cluster.questions import Answer, Question, Told

__all__ = ["Replicas", "gather", "meaning_of"]

log = logging.getLogger(__name__)

# What a replica is given to tell of itself; with one that is slower Ray tells nothing of the others either.
TELL_S = 2.0


class Replicas:
    """The replicas of one model, behind Ray's handle.

    Args:
        model: Its name.
        handle: Of its deployment.
    """

    def __init__(self, model: str, handle: DeploymentHandle[Any]) -> None:
        self._model = model
        self._handle = handle
        self._ask = handle.options(method_name="ask")

    async def ask(self, question: Question, body: bytes) -> Answer:
        """As `Deployed.ask`."""
        response = self._ask.remote(tuple(question), body)
        try:
            status, headers, answer = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except Exception as failure:
            raise meaning_of(failure, self._model) from failure
        return Answer(status, headers, answer)

    async def tell(self) -> list[Told]:
        """As `Deployed.tell`."""
        return await gather(self._handle, "tell")


async def gather(handle: DeploymentHandle[Any], method: str) -> list[Any]:
    """What each replica of a deployment returns; those that fail are left out, all if one is late."""
    try:
        found = await handle.broadcast(method).results_async(timeout_s=TELL_S, return_exceptions=True)
    except (TimeoutError, RayError, RayServeException) as failure:
        log.warning(
            "replicas not heard", extra={"deployment": handle.deployment_name, "reason": str(failure)}
        )
        return []
    return [each for each in found if not isinstance(each, BaseException)]


def meaning_of(failure: Exception, model: str) -> Exception:
    """What an error of Ray's means to whoever asked; itself if it was the replica's own.

    Args:
        failure: Raised by a handle.
        model: Whose.
    """
    if isinstance(failure, BackPressureError):
        return QueuesFullError(model, failure.args[0], failure.retry_after_s or 1.0)
    if isinstance(failure, DeploymentUnavailableError):
        return UnavailableError(model)
    if isinstance(failure, RequestCancelledError):
        return ReplicaLostError(model)
    is_bug = isinstance(failure, RayTaskError)  # raised by our own code in the replica
    if isinstance(failure, RayError | RayServeException) and not is_bug:
        return ReplicaLostError(model)
    return failure
