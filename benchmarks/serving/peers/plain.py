"""The service most people write first: FastAPI, pydantic, `session.run` in a `def` route.

One worker leaves the session as onnxruntime makes it (all cores inside one run); several workers
get a thread each.
"""

from __future__ import annotations

from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from model import PORT, WORKERS, Model
from pydantic import BaseModel

app = FastAPI()
model = Model(intra_threads=0 if WORKERS == 1 else 1)


class Numbers(BaseModel):
    """A tensor as one flat list, both ways."""

    data: list[float]


async def content_of(request: Request) -> bytes:
    """The body as it came."""
    return await request.body()


@app.get("/ready")
def ready() -> str:
    """The process has its model."""
    return "ready"


@app.post("/json")
def of_json(numbers: Numbers) -> Numbers:
    """JSON in and out."""
    return Numbers(data=model.run(model.of_numbers(numbers.data)).ravel().tolist())


@app.post("/raw")
def of_raw(content: Annotated[bytes, Depends(content_of)]) -> Response:
    """Bytes in and out."""
    return Response(model.run(model.of_bytes(content)).tobytes(), media_type="application/octet-stream")


@app.post("/jpeg")
def of_jpeg(content: Annotated[bytes, Depends(content_of)]) -> Numbers:
    """A picture in, JSON out."""
    return Numbers(data=model.run(model.of_picture(content)).ravel().tolist())


if __name__ == "__main__":
    uvicorn.run("plain:app", port=PORT, workers=WORKERS, log_level="warning", access_log=False)
