"""Ray Serve: one replica per worker, a core each."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson
import ray
from model import PORT, WORKERS, Model
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0.5})
class Bench:
    """Any path but /json and /jpeg takes bytes."""

    def __init__(self) -> None:
        self.model = Model()

    async def __call__(self, request: Request) -> Response:
        """One request."""
        if request.method == "GET":
            return Response(b"ready")
        body = await request.body()
        if request.url.path == "/json":
            x = self.model.of_numbers(orjson.loads(body)["data"])
        elif request.url.path == "/jpeg":
            x = self.model.of_picture(body)
        else:
            y = self.model.run(self.model.of_bytes(body))
            return Response(y.tobytes(), media_type="application/octet-stream")
        y = self.model.run(x)
        return Response(orjson.dumps({"data": y.ravel().tolist()}), media_type="application/json")


if __name__ == "__main__":
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(include_dashboard=False, logging_level="warning", runtime_env=here)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Bench.bind(), name="bench", route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
