"""The servers infold is compared with, each in a virtual environment of its own.

    python benchmarks/serving/peers.py [name ...]

makes what is missing under `build/peers-serving/<name>`. infold, the floors and the plain FastAPI app
run in the interpreter that runs the benchmark.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # a script's own folder alone is on the path
from environments import ROOT, Environment

__all__ = ["BENTOML", "LITSERVE", "MLSERVER", "MOSEC", "OWN", "PEERS", "RAY", "ROOT", "Environment"]

ENVIRONMENTS = ROOT / "build" / "peers-serving"
RUNTIME = ("onnxruntime==1.31.1", "numpy==2.4.6", "pillow==13.0.0")
HTTP = ("uvloop==0.23.0", "httptools==0.9.0")

OWN = Environment(ENVIRONMENTS / "own")
# Multipart bodies are LitServe's only way to take bytes, and it does not install their parser.
LITSERVE = Environment(
    ENVIRONMENTS / "litserve", ("litserve==0.2.19", "python-multipart==0.0.34", *HTTP, *RUNTIME)
)
# As installed BentoML answers over asyncio and h11; uvicorn takes these two where they are found.
BENTOML = Environment(ENVIRONMENTS / "bentoml", ("bentoml==1.4.39", *HTTP, *RUNTIME))
MOSEC = Environment(ENVIRONMENTS / "mosec", ("mosec==0.9.8", *RUNTIME))
RAY = Environment(ENVIRONMENTS / "ray", ("ray[serve]==2.60.0", "orjson==3.13.0", *HTTP, *RUNTIME))
# Its processes do not start with a newer uvloop.
MLSERVER = Environment(ENVIRONMENTS / "mlserver", ("mlserver==1.7.1", "uvloop==0.21.0", *RUNTIME))

PEERS = (MOSEC, LITSERVE, BENTOML, MLSERVER, RAY)


def main() -> None:
    wanted = set(sys.argv[1:])
    for peer in PEERS:
        if not wanted or peer.name in wanted:
            reason = peer.set_up()
            print(f"{peer.name:12}{reason or peer.version()}", flush=True)


if __name__ == "__main__":
    main()
