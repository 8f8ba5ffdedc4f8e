"""No framework at all: what HTTP, JSON and the run cost under uvicorn, and nothing besides.

`BENCH_THREADS` = 0 runs the model on the event loop; otherwise on that many threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
from model import PORT, WORKERS, Model
from numpy.typing import NDArray

THREADS = int(os.environ.get("BENCH_THREADS", "0"))
JSON, RAW = b"application/json", b"application/octet-stream"


def make() -> Callable[..., Awaitable[None]]:
    """The application of one process."""
    model = Model()
    pool = ThreadPoolExecutor(THREADS) if THREADS else None

    def as_json(y: NDArray[np.float32]) -> bytes:
        return orjson.dumps({"data": y.ravel()}, option=orjson.OPT_SERIALIZE_NUMPY)

    def of_json(body: bytes) -> bytes:
        return as_json(model.run(model.of_numbers(orjson.loads(body)["data"])))

    def of_jpeg(body: bytes) -> bytes:
        return as_json(model.run(model.of_picture(body)))

    def of_raw(body: bytes) -> bytes:
        return model.run(model.of_bytes(body)).tobytes()

    answers = {"/json": (of_json, JSON), "/jpeg": (of_jpeg, JSON), "/raw": (of_raw, RAW)}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        answer, kind = answers.get(scope["path"], (of_raw, RAW))
        if scope["method"] == "GET":
            content = b"ready"
        elif pool is None:
            content = answer(body)
        else:
            content = await asyncio.get_running_loop().run_in_executor(pool, answer, body)
        fields = [(b"content-type", kind), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": content})

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        "floor:make",
        factory=True,
        port=PORT,
        workers=WORKERS,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
