"""Requests that cannot be answered, or not now."""

from __future__ import annotations

from collections.abc import Sequence

from infold.errors.tensors import RequestError

__all__ = [
    "AbandonedError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "DeadlineExceededError",
    "LoadError",
    "MalformedBodyError",
    "ModelControlError",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "NotServedError",
    "OverloadedError",
    "QueueFullError",
    "QueueTooLongError",
    "UnsupportedCodingError",
    "UnsupportedMediaError",
]


class MalformedBodyError(RequestError):
    """The body is no request of this protocol."""

    reason = "malformed"


class BodyTooLargeError(RequestError):
    """The body is above the limit.

    Attributes:
        limit_bytes: The most it may have.
        is_decompressed: It came whole, and was above the limit only before it was compressed.
    """

    reason = "body_too_large"

    def __init__(self, limit_bytes: int, is_decompressed: bool = False) -> None:
        self.limit_bytes = limit_bytes
        self.is_decompressed = is_decompressed
        what = "the decompressed request body" if is_decompressed else "the request body"
        super().__init__(f"{what} exceeds the maximum allowed {limit_bytes} bytes")


class BodyTimeoutError(RequestError):
    """The body did not come in the time it is given."""

    reason = "body_timeout"

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(f"the request body did not come within {timeout_s:g} s")


class UnsupportedMediaError(RequestError):
    """The body comes in a type or an encoding that is not served."""

    reason = "unsupported_media"


class UnsupportedCodingError(UnsupportedMediaError):
    """The body is compressed in a way that is not served.

    Attributes:
        coding: The way, as the request has it.
        served: Those that are.
    """

    def __init__(self, coding: str, served: Sequence[str]) -> None:
        self.coding = coding
        self.served = tuple(served)
        super().__init__(f"content-encoding '{coding}' is not served; one of {', '.join(served)} is")


class ModelNotFoundError(RequestError):
    """There is no such model, or no such version of it."""

    reason = "not_found"

    def __init__(self, model: str, version: str | int | None = None) -> None:
        self.model = model
        self.version = version
        what = f"'{model}'" if version is None else f"'{model}' version {version}"
        super().__init__(f"Request for unknown model: {what} is not found")


class ModelNotReadyError(RequestError):
    """The model is known, but cannot answer at present.

    Attributes:
        is_of_version: That very version was asked for.
    """

    reason = "not_ready"

    def __init__(self, model: str, version: int | None, state: str, *, is_of_version: bool = False) -> None:
        self.model = model
        self.version = version
        self.state = state
        self.is_of_version = is_of_version
        self.asked_of = model, version
        what = f"model '{model}'" if version is None else f"model '{model}' version {version}"
        super().__init__(f"{what} is not ready: {state}")


class LoadError(RequestError):
    """A model that was asked for by name cannot be loaded; what was served before still is.

    Attributes:
        what: `load`, or `unload` where that is what was asked.
    """

    reason = "load_failed"

    def __init__(self, model: str, detail: str, what: str = "load") -> None:
        self.model = model
        self.detail = detail
        self.what = what
        super().__init__(f"failed to {what} '{model}', {detail}")


class ModelControlError(RequestError):
    """Models are not loaded and unloaded by name here."""

    reason = "control_not_allowed"

    def __init__(self) -> None:
        super().__init__(
            "explicit model load / unload is not allowed; start infold with INFOLD_ADMIN=true"
            " or --model-control explicit"
        )


class NotServedError(RequestError):
    """A part of the protocol that infold leaves out."""

    reason = "not_served"

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} is not served by infold")


class QueueFullError(RequestError):
    """The model's queue is at its capacity.

    Attributes:
        retry_after_s: Seconds after which there is likely room again.
    """

    reason = "queue_full"

    def __init__(self, capacity_rows: int, retry_after_s: float = 1.0) -> None:
        self.capacity_rows = capacity_rows
        self.retry_after_s = retry_after_s
        super().__init__(f"the queue is full ({capacity_rows} rows wait already)")


class OverloadedError(RequestError):
    """The bodies of requests that are not answered yet have as many bytes together as they may.

    Attributes:
        limit_bytes: The most they may have.
        retry_after_s: Seconds after which there is likely room again.
    """

    reason = "in_flight_bytes"

    def __init__(self, limit_bytes: int, retry_after_s: float = 1.0) -> None:
        self.limit_bytes = limit_bytes
        self.retry_after_s = retry_after_s
        super().__init__(
            f"the requests in flight would exceed the maximum allowed {limit_bytes} bytes together"
        )


class DeadlineExceededError(RequestError):
    """The answer would come, or came, after the request's deadline."""

    reason = "deadline"

    def __init__(self, waited_s: float, detail: str = "") -> None:
        self.waited_s = waited_s
        super().__init__(detail or f"the deadline passed after {waited_s:.3f} s")


class QueueTooLongError(DeadlineExceededError):
    """Those that wait already take longer than the request has left; it was not queued.

    Attributes:
        queue_s: Seconds that they will take, by what runs took lately.
        left_s: Seconds until its deadline.
        retry_after_s: Seconds after which they are likely through.
    """

    reason = "queue_too_long"

    def __init__(self, queue_s: float, left_s: float, retry_after_s: float) -> None:
        self.queue_s = queue_s
        self.left_s = left_s
        self.retry_after_s = retry_after_s
        super().__init__(
            0.0, f"those that wait take about {queue_s:.3f} s, and the deadline is in {max(left_s, 0):.3f} s"
        )


class AbandonedError(RequestError):
    """Whoever asked has left before there was an answer."""

    reason = "abandoned"

    def __init__(self) -> None:
        super().__init__("nobody waits for the answer any more")
