"""LitServe: one API process, workers with a session each; bytes and pictures come as an uploaded file."""

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
        content = request["data"].file.read()
        return self.model.of_picture(content) if BODY == "jpeg" else self.model.of_bytes(content)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """One request."""
        return self.model.run(x)

    def encode_response(self, output: NDArray[np.float32]) -> Any:
        """Bytes as they are, the rest as JSON."""
        if BODY == "binary":
            return Response(output.tobytes(), media_type="application/octet-stream")
        return {"data": output.ravel().tolist()}


# LitServe hands over whole requests only where the annotation says Request.
Api.decode_request.__annotations__["request"] = Request

if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
