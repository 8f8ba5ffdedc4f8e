"""The folders that are compared, each in a virtual environment of its own.

    python benchmarks/folders/peers.py [name ...]

makes what is missing under `build/peers/<name>`. `driver` is the function in `drivers.py` that runs the
peer on IN.onnx OUT.onnx, in the peer's own interpreter.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # a script's own folder alone is on the path
from environments import ROOT, Environment

__all__ = ["INFOLD", "PEERS", "ROOT", "Peer"]

ENVIRONMENTS = ROOT / "build" / "peers"
DRIVERS = Path(__file__).with_name("drivers.py")


@dataclass(frozen=True)
class Peer:
    """One folder: where it is installed, and which driver runs it."""

    name: str
    driver: str
    environment: Environment
    is_engine: bool = False  # gives no ONNX back; judged by its own runtime

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.environment.python

    def command(self, source: Path, target: Path) -> list[str]:
        """What to run to fold `source` into `target`."""
        return [str(self.python), str(DRIVERS), self.driver, str(source), str(target)]

    def missing(self) -> str | None:
        """Why it cannot be run; None if it can."""
        return self.environment.missing()


NUMPY, RUNTIME = "numpy==2.4.6", "onnxruntime==1.31.1"

# infold itself is run from the checkout (see `run.py --service`); here are what it needs and the
# runtime on which every result is judged.
INFOLD = Peer("infold", "infold", Environment(ENVIRONMENTS / "infold",
              (NUMPY, "onnx>=1.21,<1.24", "onnx-ir>=1.1,<1.2", RUNTIME,
               "msgspec", "orjson", "pydantic", "pydantic-settings", "typer")))  # fmt: skip
ONNXRUNTIME = Environment(ENVIRONMENTS / "onnxruntime", (RUNTIME, NUMPY))
OPENVINO = Environment(ENVIRONMENTS / "openvino", ("openvino==2026.4.1", NUMPY))


def alone(name: str, version: str) -> Peer:
    """A peer in an environment of the same name that holds it and what it asks for."""
    return Peer(name, name, Environment(ENVIRONMENTS / name, (f"{name}=={version}",)))


PEERS = (
    INFOLD,
    Peer("onnxruntime basic", "ort_basic", ONNXRUNTIME),
    Peer("onnxruntime all", "ort_all", ONNXRUNTIME),
    alone("onnxsim", "0.8.1"),
    alone("onnxslim", "0.1.98"),
    alone("onnxscript", "0.7.2"),
    alone("onnxoptimizer", "0.4.2"),
    Peer("openvino", "openvino", OPENVINO, is_engine=True),
)


def main() -> None:
    wanted = set(sys.argv[1:])
    for peer in PEERS:
        if not wanted or peer.name in wanted or peer.environment.name in wanted:
            reason = peer.environment.set_up()
            versions = ", ".join(" ".join(each) for each in peer.environment.versions().items())
            print(f"{peer.name:20}{reason or versions}", flush=True)


if __name__ == "__main__":
    main()
