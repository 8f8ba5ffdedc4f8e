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

from infold.errors.access import (
    AccessError,
    CertificateMissingError,
    KeyRefusedError,
    OtherPortError,
    QuotaExceededError,
    ScopeMissingError,
)
from infold.errors.base import InfoldError, reason_of
from infold.errors.files import (
    DisagreementError,
    FrameworkError,
    GoldenError,
    NothingToProveError,
    ProofError,
    SamplesError,
    SourceError,
    TargetError,
)
from infold.errors.requests import (
    AbandonedError,
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineExceededError,
    LoadError,
    MalformedBodyError,
    ModelControlError,
    ModelNotFoundError,
    ModelNotReadyError,
    NotServedError,
    OverloadedError,
    QueueFullError,
    QueueTooLongError,
    UnsupportedCodingError,
    UnsupportedMediaError,
)
from infold.errors.running import (
    ConfigError,
    DeviceError,
    NoKernelError,
    RepositoryError,
    RuntimeCrashError,
    RuntimeMissingError,
    ServerError,
    SessionError,
    WorkerError,
)
from infold.errors.tensors import (
    DatatypeError,
    HalfInJsonError,
    InvalidInputError,
    MissingInputError,
    RequestError,
    ShapeError,
    UnknownTensorError,
)

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
