"""What keeps a model from being run: settings, folders, processes, devices, onnxruntime."""

from __future__ import annotations

from os import PathLike

from infold.errors.base import InfoldError

__all__ = [
    "ConfigError",
    "DeviceError",
    "NoKernelError",
    "RepositoryError",
    "RuntimeCrashError",
    "RuntimeMissingError",
    "ServerError",
    "SessionError",
    "WorkerError",
]

Path = str | PathLike[str]


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
