"""Mosec: a Rust front, workers with a session each; bytes where the body is binary."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from model import BATCH, BODY, WORKERS, Model
from mosec import Server, Worker
from numpy.typing import NDArray

MAX_WAIT_MS = 2


class OfJson(Worker):
    """JSON in and out, as Worker does it by itself."""

    def __init__(self) -> None:
        self.model = Model()

    def forward(self, data: Any) -> Any:
        """One request, or as many as were put together."""
        if BATCH == 1:
            return {"data": self.model.run(self.model.of_numbers(data["data"])).ravel().tolist()}
        x = np.concatenate([self.model.of_numbers(each["data"]) for each in data])
        return [{"data": y.tolist()} for y in self.model.run(x)]


class OfBytes(Worker):
    """Float32 values in and out."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        self.model = Model()

    def deserialize(self, data: bytes) -> NDArray[np.float32]:
        """The tensor of one request."""
        return self.model.of_bytes(data)

    def serialize(self, data: NDArray[np.float32]) -> bytes:
        """The answer to one request."""
        return data.tobytes()

    def forward(self, data: Any) -> Any:
        """One request, or as many as were put together."""
        return self.model.run(data) if BATCH == 1 else list(self.model.run(np.concatenate(data)))


class OfPictures(Worker):
    """A picture in, JSON out."""

    def __init__(self) -> None:
        self.model = Model()

    def deserialize(self, data: bytes) -> NDArray[np.float32]:
        """The picture of one request."""
        return self.model.of_picture(data)

    def forward(self, data: Any) -> Any:
        """One request, or as many as were put together."""
        if BATCH == 1:
            return {"data": self.model.run(data).ravel().tolist()}
        return [{"data": y.tolist()} for y in self.model.run(np.concatenate(data))]


WORKER = {"json": OfJson, "binary": OfBytes, "jpeg": OfPictures}[BODY]

if __name__ == "__main__":
    os.environ.setdefault("MOSEC_TIMEOUT", "60000")
    server = Server()
    wait = {"max_wait_time": MAX_WAIT_MS} if BATCH > 1 else {}
    server.append_worker(WORKER, num=WORKERS, max_batch_size=BATCH, **wait)
    server.run()
