"""Every error infold raises on purpose.

Errors carry facts as attributes and build their message from them. They know
no status codes and no exit codes: those tables live at the edges
(`rest/problems.py`, `cli/main.py`).

InfoldError
├── SourceError            a model file that cannot be read or is no usable model
│   └── FrameworkError         ... because its framework failed on it
├── TargetError            a place that cannot be written
├── SamplesError           sample inputs that do not fit the model
├── ProofError             folded and unfolded do not agree
│   └── NothingToProveError    ... because the unfolded side alone gives nothing to agree with
├── DisagreementError      a model that answers otherwise when it is run otherwise
├── GoldenError            a version that does not answer as its golden samples say
├── ConfigError            a setting, a flag or a model's configuration that makes no sense
├── RepositoryError        a model repository that cannot be listed
├── ServerError            another server that cannot be reached, or answers what it should not
├── RuntimeMissingError    no onnxruntime is installed
├── DeviceError            the device that was asked for is not to be had
├── WorkerError            a process of several that cannot start, or is lost
├── SessionError           onnxruntime would not load or run a graph
│   ├── NoKernelError      ... because it has no implementation of an operator
│   └── RuntimeCrashError  ... because the process it ran in died
└── RequestError           what a caller can get wrong, or meet
    ├── InvalidInputError      the tensors do not fit the model
    │   ├── UnknownTensorError     ... because one is not the model's
    │   ├── MissingInputError      ... because one is not there
    │   ├── DatatypeError          ... because one is of another type
    │   ├── ShapeError             ... or of another shape
    │   └── HalfInJsonError        ... or comes as JSON and must not
    ├── MalformedBodyError     the body is no request
    ├── BodyTooLargeError      the body is above the limit
    ├── BodyTimeoutError       the body does not come
    ├── UnsupportedMediaError  a content type or encoding that is not served
    │   └── UnsupportedCodingError ... because it is compressed in a way that is not
    ├── ModelNotFoundError     no such model or version
    ├── ModelNotReadyError     there is one, but it cannot answer now
    ├── LoadError              a model asked for by name cannot be loaded, or unloaded
    ├── ModelControlError      models are not loaded by name here
    ├── NotServedError         a part of the protocol that is left out
    ├── QueueFullError         the model's queue is at its capacity
    ├── OverloadedError        the service holds as many bytes of requests as it may
    ├── DeadlineExceededError  the answer would come, or came, too late
    │   └── QueueTooLongError      ... because those before it take longer than it has
    ├── AbandonedError         nobody waits for the answer any more
    └── AccessError            refused before anything of it is read
        ├── KeyRefusedError        no key, or none that holds
        ├── ScopeMissingError      a key that does not go so far
        ├── QuotaExceededError     a key that has been used too often
        ├── CertificateMissingError    no client certificate where one is needed
        └── OtherPortError         served, but not on this port
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import ClassVar

__all__ = [
    "AbandonedError",
    "AccessError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "CertificateMissingError",
    "ConfigError",
    "DatatypeError",
    "DeadlineExceededError",
    "DeviceError",
    "DisagreementError",
    "FrameworkError",
    "GoldenError",
    "HalfInJsonError",
    "InfoldError",
    "InvalidInputError",
    "KeyRefusedError",
    "LoadError",
    "MalformedBodyError",
    "MissingInputError",
    "ModelControlError",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "NoKernelError",
    "NotServedError",
    "NothingToProveError",
    "OtherPortError",
    "OverloadedError",
    "ProofError",
    "QueueFullError",
    "QueueTooLongError",
    "QuotaExceededError",
    "RepositoryError",
    "RequestError",
    "RuntimeCrashError",
    "RuntimeMissingError",
    "SamplesError",
    "ScopeMissingError",
    "ServerError",
    "SessionError",
    "ShapeError",
    "SourceError",
    "TargetError",
    "UnknownTensorError",
    "UnsupportedCodingError",
    "UnsupportedMediaError",
    "WorkerError",
    "reason_of",
]

Path = str | PathLike[str]


class InfoldError(Exception):
    """Root of everything infold raises on purpose; `str()` of it is one clear line.

    Attributes:
        reason: In a word, for whoever counts what was refused; every error of a request has its own.
        asked_of: Model and version that the request was for, once that is known to be one of ours.
    """

    reason: ClassVar[str] = "internal"
    asked_of: tuple[str, int | None] | None = None


def reason_of(failure: BaseException) -> str:
    """Why a request was not answered, in a word of ours; other libraries' errors may have a reason, too."""
    return failure.reason if isinstance(failure, InfoldError) else InfoldError.reason


class SourceError(InfoldError):
    """A model file cannot be read, or is no model that infold can work with."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"{path}: {detail}")


class FrameworkError(SourceError):
    """A training framework failed on a source, or died.

    Attributes:
        log: The last lines it printed.
    """

    def __init__(self, path: Path, detail: str, log: str) -> None:
        self.log = log
        super().__init__(path, detail)


class TargetError(InfoldError):
    """A result cannot be written where it was asked for."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"{path}: {detail}")


class SamplesError(InfoldError):
    """Sample inputs do not fit the model they are meant for."""


class ProofError(InfoldError):
    """Folded and unfolded differ by more than rounding explains, or could not be compared.

    Attributes:
        site: Name of the first value that is off, or None where no run came that far.
    """

    def __init__(self, detail: str, site: str | None = None) -> None:
        self.detail = detail
        self.site = site
        super().__init__(detail)


class NothingToProveError(ProofError):
    """The unfolded side does not run, or gives nothing finite: there is nothing to compare with."""


class DisagreementError(InfoldError):
    """A model answers otherwise in larger runs, or on other threads."""

    def __init__(self, model: Path, detail: str) -> None:
        self.model = model
        self.detail = detail
        super().__init__(f"{model}: {detail}")


class GoldenError(InfoldError):
    """A version does not answer as its golden samples say, or they do not fit it; names the number."""

    def __init__(self, place: str, detail: str) -> None:
        self.place = place
        self.detail = detail
        super().__init__(f"{place}: {detail}")


class ConfigError(InfoldError):
    """A setting makes no sense; the message names where it stands."""

    def __init__(self, place: str, detail: str) -> None:
        self.place = place
        self.detail = detail
        super().__init__(f"{place}: {detail}")


class RepositoryError(InfoldError):
    """A model repository cannot be listed."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"{path}: {detail}")


class ServerError(InfoldError):
    """A server that infold asks cannot be reached, or does not answer as it should."""

    def __init__(self, url: str, detail: str) -> None:
        self.url = url
        self.detail = detail
        super().__init__(f"{url}: {detail}")


class WorkerError(InfoldError):
    """One of several worker processes cannot start, or was lost while it drained.

    Attributes:
        worker: Its number; None if what is wrong would be wrong in any.
    """

    def __init__(self, detail: str, worker: int | None = None) -> None:
        self.detail = detail
        self.worker = worker
        super().__init__(detail if worker is None else f"worker {worker} {detail}")


class RuntimeMissingError(InfoldError):
    """Neither onnxruntime nor onnxruntime-gpu is installed."""

    def __init__(self) -> None:
        super().__init__(
            "onnxruntime is not installed: pip install 'infold[cpu]', "
            "or 'infold[gpu]' on a machine with an NVIDIA GPU (never both)"
        )


class DeviceError(InfoldError):
    """The device that was asked for is not to be had; infold never takes another silently."""

    def __init__(self, device: str, detail: str) -> None:
        self.device = device
        self.detail = detail
        super().__init__(f"device {device}: {detail}")


class SessionError(InfoldError):
    """onnxruntime would not load or run a graph."""

    reason = "session_failed"

    def __init__(self, model: str, detail: str) -> None:
        self.model = model
        self.detail = detail
        super().__init__(f"{model}: {detail}")


class NoKernelError(SessionError):
    """onnxruntime implements an operator of the graph not at all, or not in this type."""


class RuntimeCrashError(SessionError):
    """The process in which onnxruntime ran died, or took too long."""


class RequestError(InfoldError):
    """Anything that a caller of the service can get wrong, or meet through no fault of theirs."""


class InvalidInputError(RequestError):
    """The tensors of a request do not fit the model's signature.

    Attributes:
        place: Where in the request, in the wire's own words (`inputs[0].data[7]`).
    """

    reason = "invalid_input"

    def __init__(self, place: str, detail: str) -> None:
        self.place = place
        self.detail = detail
        super().__init__(f"{place}: {detail}")


class UnknownTensorError(InvalidInputError):
    """A request names a tensor that the model does not have.

    Attributes:
        role: `input` or `output`.
    """

    def __init__(self, place: str, role: str, name: str, known: Sequence[str]) -> None:
        self.role = role
        self.name = name
        have = ", ".join(f"'{each}'" for each in known)
        super().__init__(f"{place}.name", f"the model has no {role} '{name}'; it has {have}")


class MissingInputError(InvalidInputError):
    """A request does not give every input of the model."""

    def __init__(self, wanted: Sequence[str], given: Sequence[str]) -> None:
        self.wanted = wanted
        self.given = given
        self.missing = [name for name in wanted if name not in given]
        super().__init__("inputs", f"'{self.missing[0]}' is missing")


class DatatypeError(InvalidInputError):
    """An input is of another datatype than the model's; both in the wire's words."""

    def __init__(self, place: str, name: str, expected: str, got: str) -> None:
        self.name = name
        self.expected = expected
        self.got = got
        super().__init__(f"{place}.datatype", f"{got} given, the model takes {expected}")


class ShapeError(InvalidInputError):
    """An input is of another shape than the model's, in which -1 is any length."""

    def __init__(self, place: str, name: str, expected: Sequence[int], got: Sequence[int]) -> None:
        self.name = name
        self.expected = expected
        self.got = got
        detail = f"shape {list(got)} given, the model takes {list(expected)}"
        super().__init__(f"{place}.shape", detail)


class HalfInJsonError(InvalidInputError):
    """A tensor of 16-bit floats comes or would go as JSON, where that is not allowed.

    Attributes:
        role: `input` or `output`.
    """

    def __init__(self, place: str, role: str, name: str, datatype: str) -> None:
        self.role = role
        self.name = name
        self.datatype = datatype
        super().__init__(place, f"{role} '{name}' of {datatype} has no JSON here; bytes have")


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


class AccessError(RequestError):
    """A request is refused for who sent it or where to, before anything of it is read."""

    reason = "forbidden"


class KeyRefusedError(AccessError):
    """There is no key, or none that holds."""

    reason = "unauthorized"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class ScopeMissingError(AccessError):
    """The key is good, but not for this.

    Attributes:
        key: Its name.
        scope: What it lacks.
        scopes: What it has.
    """

    def __init__(self, key: str, scope: str, scopes: Sequence[str]) -> None:
        self.key = key
        self.scope = scope
        self.scopes = tuple(scopes)
        super().__init__(f"this takes the scope '{scope}'; key '{key}' has {', '.join(scopes)}")


class QuotaExceededError(AccessError):
    """The key has been used more often than it may.

    Attributes:
        key: Its name.
        retry_after_s: Seconds after which it may be used again.
    """

    reason = "over_quota"

    def __init__(self, key: str, requests_per_s: float, retry_after_s: float) -> None:
        self.key = key
        self.requests_per_s = requests_per_s
        self.retry_after_s = retry_after_s
        super().__init__(f"key '{key}' may be used {requests_per_s:g} times a second, and has been")


class CertificateMissingError(AccessError):
    """The second port serves this to those alone who show a certificate."""

    reason = "no_certificate"

    def __init__(self) -> None:
        super().__init__("this takes a client certificate; health alone takes none on this port")


class OtherPortError(AccessError):
    """This is served, but not on the port that was asked."""

    reason = "other_port"

    def __init__(self, path: str, port: int) -> None:
        self.path = path
        self.port = port
        super().__init__(f"{path} is served on port {port}, not here")
