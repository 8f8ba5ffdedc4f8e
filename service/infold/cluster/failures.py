"""What a caller is told where a cluster, and not a model, is why there is no answer."""

from __future__ import annotations

from infold.errors import ModelControlError, ModelNotReadyError, QueueFullError, RequestError

__all__ = ["FixedModelsError", "QueuesFullError", "ReplicaLostError", "UnavailableError"]


class QueuesFullError(QueueFullError):
    """As many requests for the model wait for a replica as may."""

    def __init__(self, model: str, waiting: int, retry_after_s: float = 1.0) -> None:
        self.model = model
        self.capacity_rows = waiting
        self.retry_after_s = retry_after_s
        RequestError.__init__(
            self, f"model '{model}': {waiting} requests wait for a replica already, and no more may"
        )


class ReplicaLostError(ModelNotReadyError):
    """The replica that had the request is gone; asked again, another one answers."""

    def __init__(self, model: str) -> None:
        super().__init__(model, None, "the replica that had the request is gone")


class UnavailableError(ModelNotReadyError):
    """No replica of the model runs, and none is being started."""

    def __init__(self, model: str) -> None:
        super().__init__(model, None, "none of its replicas runs")


class FixedModelsError(ModelControlError):
    """One replica would obey, and the others not."""

    def __init__(self) -> None:
        RequestError.__init__(
            self, "a cluster does not load and unload by request; change user_config in the Serve config"
        )
