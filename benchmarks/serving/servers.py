"""Every server that is measured: how it starts, what it is asked and how its answers are read.

To add one: an environment in `peers.py`, an app in `peers/`, a row in SERVERS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalogue import CACHE, MODELS, WORK, repository
from peers import BENTOML, LITSERVE, MLSERVER, MOSEC, OWN, RAY, ROOT, Environment

APPS = Path(__file__).with_name("peers")
NUMBERS = 'json:"data":'
V2 = "/v2/models/{network}/infer"


@dataclass(frozen=True)
class Wire:
    """How one kind of body goes to one server, and how the answer is read."""

    wrapping: str  # a function in bodies.py
    path: str
    check: str


PLAIN_JSON = Wire("plain_json", "/json", NUMBERS)
RAW = Wire("raw", "/raw", "binary")
PICTURE = Wire("jpeg", "/jpeg", NUMBERS)


@dataclass(frozen=True)
class Server:
    """One server in one set-up."""

    name: str
    environment: Environment
    command: tuple[str, ...]
    wires: dict[str, Wire]  # by kind of body: json, binary, jpeg
    ready: str = "/ready"
    workers: int = 1
    variables: dict[str, str] = field(default_factory=dict)
    is_peer: bool = True  # neither infold nor a floor nor the plain app
    is_quick: bool = False  # is in the short run
    note: str = ""

    def arguments(self, networks: Sequence[str], port: int) -> list[str]:
        """The command line that serves the networks on a port."""
        words = {
            "python": str(self.environment.python),
            "bin": str(self.environment.python.parent),
            "apps": str(APPS),
            "port": str(port),
            "repository": str(repository(networks)),
            "work": str(WORK / "run"),
        }
        return [each.format(**words) for each in self.command]

    def surroundings(self, network: str, body: str, port: int) -> dict[str, str]:
        """The environment variables of the process."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BENCH_"))}
        own = {
            "BENCH_MODEL": str(MODELS / network / "1" / "model.onnx"),
            "BENCH_NETWORK": network,
            "BENCH_PORT": str(port),
            "BENCH_WORKERS": str(self.workers),
            "BENCH_BODY": body,
            "PYTHONPATH": str(APPS),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{self.environment.python.parent}{os.pathsep}{kept.get('PATH', '')}",
        }
        return kept | own | self.variables

    def can_hold(self, networks: Sequence[str]) -> bool:
        """Whether one process serves several networks; of ours and the peers' apps only infold's does."""
        return len(networks) == 1 or "{repository}" in self.command


INFOLD = ("{python}", "-m", "infold", "serve", "{repository}", "--port", "{port}", "--log-level", "warning")
INFOLD_WIRES = {
    "json": Wire("v2_json", V2, NUMBERS),
    "binary": Wire("v2_binary", V2, "binary"),
    "jpeg": Wire("jpeg", V2, NUMBERS),
}
INFOLD_PATH = {"PYTHONPATH": str(ROOT / "service"), "INFOLD_CACHE_DIR": str(CACHE)}
FLOOR, PLAIN = ("{python}", "{apps}/floor.py"), ("{python}", "{apps}/plain.py")
ALL = {"json": PLAIN_JSON, "binary": RAW, "jpeg": PICTURE}
MOSEC_COMMAND = (
    "{python}", "{apps}/mosec_app.py", "--address", "127.0.0.1", "--port", "{port}",
    "--timeout", "60000", "--log-level", "warning",
)  # fmt: skip
MOSEC_WIRES = {
    "json": Wire("plain_json", "/inference", NUMBERS),
    "binary": Wire("raw", "/inference", "binary"),
    "jpeg": Wire("jpeg", "/inference", NUMBERS),
}
LITSERVE_WIRES = {
    "json": Wire("plain_json", "/predict", NUMBERS),
    "binary": Wire("multipart", "/predict", "binary"),
    "jpeg": Wire("jpeg_form", "/predict", NUMBERS),
}
MLSERVER_COMMAND = ("{python}", "{apps}/mlserver_app.py", "{work}/mlserver")
MLSERVER_WIRES = {"json": Wire("v2_json", V2, NUMBERS), "jpeg": Wire("jpeg_base64", V2, NUMBERS)}
BENTO_COMMAND = ("{bin}/bentoml", "serve", "bentoml_app:Bench", "--host", "127.0.0.1", "--port", "{port}",
         "--working-dir", "{apps}")  # fmt: skip

SERVERS = (
    Server("infold", OWN, INFOLD, INFOLD_WIRES, "/v2/health/ready",
           variables=INFOLD_PATH, is_peer=False, is_quick=True),
    Server("infold, 2 workers", OWN, (*INFOLD, "--workers", "2"), INFOLD_WIRES, "/v2/health/ready", 2,
           INFOLD_PATH, is_peer=False),
    Server("bare ASGI", OWN, FLOOR, ALL, is_peer=False, is_quick=True,
           note="floor: uvicorn, no framework, runs on the event loop"),
    Server("bare ASGI, 2 workers", OWN, FLOOR, ALL, workers=2, is_peer=False, note="the same twice"),
    Server("bare ASGI, 2 threads", OWN, FLOOR, ALL, variables={"BENCH_THREADS": "2"}, is_peer=False,
           note="floor of one process: one session, runs on two threads"),
    Server("plain", OWN, PLAIN, ALL, is_peer=False, is_quick=True,
           note="FastAPI and pydantic, session as onnxruntime makes it"),
    Server("plain, 2 workers", OWN, PLAIN, ALL, workers=2, is_peer=False),
    Server("mosec", MOSEC, MOSEC_COMMAND, MOSEC_WIRES, "/metrics", 2),
    Server("mosec, batches", MOSEC, MOSEC_COMMAND, MOSEC_WIRES, "/metrics", 2, {"BENCH_BATCH": "8"},
           note="up to 8, waits up to 2 ms"),
    Server("LitServe", LITSERVE, ("{python}", "{apps}/litserve_app.py"),
           LITSERVE_WIRES, "/health", 2, note="bytes as an uploaded file; it has no other way"),
    Server("BentoML", BENTOML, BENTO_COMMAND, ALL, "/readyz", 2),
    Server("MLServer", MLSERVER, MLSERVER_COMMAND, MLSERVER_WIRES, "/v2/health/ready",
           note="JSON only over HTTP, pictures as base64 in it"),
    Server("MLServer, 2 workers", MLSERVER, MLSERVER_COMMAND, MLSERVER_WIRES, "/v2/health/ready", 2),
    Server("Ray Serve", RAY, ("{python}", "{apps}/ray_app.py"), ALL, "/-/healthz", 2,
           {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_USAGE_STATS_ENABLED": "0"},
           note="with its throughput switches and HAProxy"),
)  # fmt: skip


def named(name: str) -> Server:
    """The server of that name."""
    return next(each for each in SERVERS if each.name == name)
