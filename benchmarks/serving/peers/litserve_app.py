"""LitServe: one API process, workers with a session each; bytes come as an uploaded file."""

from __future__ import annotations

from typing import Any

import litserve
import numpy as np
from fastapi import Request, Response
from model import BODY, PORT, WORKERS, Model
from numpy.typing import NDArray


class Api(litserve.LitAPI):
    """JSON or a form in, the same way out."""

    def setup(self, device: str) -> None:
        """In each worker."""
        self.model = Model()

    def decode_request(self, request: Any) -> NDArray[np.float32]:
        """LitServe has parsed the JSON or the form already."""
        if BODY == "json":
            return self.model.of_numbers(request["data"])
        return self.model.of_bytes(request["data"].file.read())

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """One request."""
        return self.model.run(x)

    def encode_response(self, output: NDArray[np.float32]) -> Any:
        """Numbers as JSON, bytes as they are."""
        if BODY == "json":
            return {"data": output.ravel().tolist()}
        return Response(output.tobytes(), media_type="application/octet-stream")


# LitServe hands over whole requests only where the annotation says Request.
Api.decode_request.__annotations__["request"] = Request

if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
