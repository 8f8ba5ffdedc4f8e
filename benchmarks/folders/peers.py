"""The folders that are compared, each in a virtual environment of its own.

    python benchmarks/folders/peers.py [name ...]

makes what is missing under `build/peers/<name>` with plain pip. A peer that does not install
stays in the registry and becomes a row with the reason. `driver` is the function in
`drivers.py` that runs the peer on IN.onnx OUT.onnx, in the peer's own interpreter.
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
ENVIRONMENTS = ROOT / "build" / "peers"
DRIVERS = Path(__file__).with_name("drivers.py")


@dataclass(frozen=True)
class Peer:
    """One folder: what to install, and which driver runs it."""

    name: str
    driver: str
    environment: str
    requirements: tuple[str, ...]
    is_engine: bool = False  # gives no ONNX back; judged by its own runtime

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ENVIRONMENTS / self.environment / "bin" / "python"

    def command(self, source: Path, target: Path) -> list[str]:
        """What to run to fold `source` into `target`."""
        return [str(self.python), str(DRIVERS), self.driver, str(source), str(target)]

    def missing(self) -> str | None:
        """Why it cannot be run; None if it can."""
        failure = self._failure
        if failure.exists():
            return failure.read_text().strip()
        return None if self._versions.exists() else "not set up: run peers.py"

    def versions(self) -> str:
        """What was installed in the end."""
        found: dict[str, str] = json.loads(self._versions.read_text())
        wanted = (re.split(r"[=<>\[]", each)[0] for each in self.requirements)
        return ", ".join(f"{each} {found[each.lower()]}" for each in wanted if each.lower() in found)

    def version(self) -> str:
        """That of the folder itself."""
        return self.versions().split(", ")[0].split(" ")[-1]

    @property
    def _failure(self) -> Path:
        return ENVIRONMENTS / f"{self.environment}.failure.txt"

    @property
    def _versions(self) -> Path:
        return ENVIRONMENTS / f"{self.environment}.versions.json"

    def set_up(self) -> str | None:
        """Make the environment; the reason if that fails."""
        if self._versions.exists():
            return None
        folder = ENVIRONMENTS / self.environment
        self._failure.unlink(missing_ok=True)
        venv.create(folder, with_pip=True, clear=folder.exists())
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "install", "--quiet", *self.requirements], capture_output=True, text=True, cwd=ROOT
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = (
                " ".join((lines or done.stderr.splitlines()[-1:])[:1]) or f"pip ended with {done.returncode}"
            )
            self._failure.write_text(reason + "\n")
            return reason
        listing = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True)
        versions = {each["name"].lower(): each["version"] for each in json.loads(listing.stdout)}
        self._versions.write_text(json.dumps(versions, indent=1))
        return None


ONNX, NUMPY, RUNTIME = "onnx==1.22.0", "numpy==2.4.6", "onnxruntime==1.31.1"

# infold itself is run from the checkout (see `run.py --service`); here are what it needs and the
# runtime on which every result is judged.
INFOLD = Peer("infold", "infold", "infold", (NUMPY, "onnx>=1.21,<1.24", "onnx-ir>=1.1,<1.2", RUNTIME,
              "msgspec", "orjson", "pydantic", "pydantic-settings", "typer"))  # fmt: skip

PEERS = (
    INFOLD,
    Peer("onnxruntime basic", "ort_basic", "onnxruntime", (RUNTIME, NUMPY)),
    Peer("onnxruntime all", "ort_all", "onnxruntime", (RUNTIME, NUMPY)),
    Peer("onnxsim", "onnxsim", "onnxsim", ("onnxsim==0.8.1",)),
    Peer("onnxslim", "onnxslim", "onnxslim", ("onnxslim==0.1.98",)),
    Peer("onnxscript", "onnxscript", "onnxscript", ("onnxscript==0.7.2",)),
    Peer("onnxoptimizer", "onnxoptimizer", "onnxoptimizer", ("onnxoptimizer==0.4.2",)),
    Peer("openvino", "openvino", "openvino", ("openvino==2026.4.1", NUMPY), is_engine=True),
)


def main() -> None:
    wanted = set(sys.argv[1:])
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    for peer in PEERS:
        if not wanted or peer.name in wanted or peer.environment in wanted:
            reason = peer.set_up()
            print(f"{peer.name:20}{reason or peer.versions()}", flush=True)


if __name__ == "__main__":
    main()
