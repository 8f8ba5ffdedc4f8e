"""The servers infold is compared with, each in a virtual environment of its own.

    python benchmarks/serving/peers.py [name ...]

makes what is missing under `build/peers-serving/<name>` with plain pip. A peer that does not
install keeps its reason beside it and becomes a row with that reason. infold, the floors and the
plain FastAPI app run in the interpreter that runs the benchmark.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "build" / "peers-serving"


@dataclass(frozen=True)
class Environment:
    """What one peer needs; the first requirement is the peer itself."""

    name: str
    requirements: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether it is the project's own environment: nothing is installed for it."""
        return not self.requirements

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return Path(sys.executable) if self.is_own else ENVIRONMENTS / self.name / "bin" / "python"

    def missing(self) -> str | None:
        """Why it cannot be used; None if it can."""
        if self.is_own:
            return None
        if self._failure.exists():
            return self._failure.read_text().strip()
        return None if self._versions.exists() else "not set up: run peers.py"

    def version(self) -> str:
        """The peer's version as installed; empty for the project's own environment."""
        if self.is_own or not self._versions.exists():
            return ""
        found: dict[str, str] = json.loads(self._versions.read_text())
        return found.get(re.split(r"[=<>\[]", self.requirements[0])[0].lower(), "")

    def set_up(self) -> str | None:
        """Make the environment; the reason if that fails."""
        if self.is_own or self._versions.exists():
            return None
        folder = ENVIRONMENTS / self.name
        ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
        self._failure.unlink(missing_ok=True)
        venv.create(folder, with_pip=True, clear=folder.exists())
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "install", "--quiet", *self.requirements], capture_output=True, text=True, cwd=ROOT
        )
        if done.returncode:
            words = done.stderr.splitlines() or [f"pip ended with {done.returncode}"]
            reason = next((line for line in words if line.startswith("ERROR")), words[-1])
            self._failure.write_text(reason + "\n")
            return reason
        listing = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True)
        versions = {each["name"].lower(): each["version"] for each in json.loads(listing.stdout)}
        self._versions.write_text(json.dumps(versions, indent=1))
        return None

    @property
    def _failure(self) -> Path:
        return ENVIRONMENTS / f"{self.name}.failure.txt"

    @property
    def _versions(self) -> Path:
        return ENVIRONMENTS / f"{self.name}.versions.json"


RUNTIME, NUMPY = "onnxruntime==1.31.1", "numpy==2.4.6"
HTTP = ("uvloop==0.23.0", "httptools==0.9.0")

OWN = Environment("own")
# Multipart bodies are LitServe's only way to take bytes, and it does not install their parser.
LITSERVE = Environment("litserve", ("litserve==0.2.19", "python-multipart==0.0.34", *HTTP, RUNTIME, NUMPY))
# As installed BentoML answers over asyncio and h11; uvicorn takes these two where they are found.
BENTOML = Environment("bentoml", ("bentoml==1.4.39", *HTTP, RUNTIME, NUMPY))
MOSEC = Environment("mosec", ("mosec==0.9.8", RUNTIME, NUMPY))
RAY = Environment("ray", ("ray[serve]==2.60.0", "orjson==3.13.0", *HTTP, RUNTIME, NUMPY))
# Its processes do not start with a newer uvloop.
MLSERVER = Environment("mlserver", ("mlserver==1.7.1", "uvloop==0.21.0", RUNTIME, NUMPY))

PEERS = (MOSEC, LITSERVE, BENTOML, MLSERVER, RAY)


def main() -> None:
    wanted = set(sys.argv[1:])
    for peer in PEERS:
        if not wanted or peer.name in wanted:
            reason = peer.set_up()
            print(f"{peer.name:12}{reason or peer.version()}", flush=True)


if __name__ == "__main__":
    main()
