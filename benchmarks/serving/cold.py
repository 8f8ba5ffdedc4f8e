"""How long until a model is served, and what a second session on it costs in memory.

    python benchmarks/serving/cold.py          # digits and ResNet-50, five starts each

A process that does nothing but load the model into onnxruntime is the baseline, started in turn with
the service in the same run. *First* is with an empty cache: the model is optimized, run and measured.
*Known* is every start after that, from the start of the process to its line that it serves. (On a
busy machine the second start measures once more, so one is left out.) Memory is PSS of an idle
service, shared pages counted once, with `session.wide` set to never and to always.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import descendants, pss_mib

from networks import write

ROOT = Path(__file__).parents[2]
ROUNDS = 5
BARE = """import sys, onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def served(repository: Path, cache: Path) -> tuple[float, float]:
    """Seconds until a repository is served, and MiB of the service then."""
    command = [sys.executable, "-m", "infold", "serve", str(repository), "--port", "0"]
    environment = os.environ | {"INFOLD_CACHE_DIR": str(cache), "INFOLD_LOG_LEVEL": "error"}
    began = time.perf_counter()
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert service.stdout is not None
    try:
        if not any("serves" in line for line in service.stdout):
            sys.exit(f"{repository} is not served")
        seconds = time.perf_counter() - began
        return seconds, pss_mib({service.pid, *descendants(service.pid)})
    finally:
        service.terminate()
        service.wait()
        service.stdout.close()


def loaded(model: Path) -> float:
    """Seconds of a process that loads a model and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", BARE, str(model)], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print a row for each model."""
    print("| model | first, s | known, s | bare process, s | known / bare | MiB, one session | MiB, two |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, model in (("digits", ROOT / "models/digits/1/model.onnx"), ("resnet50", write("resnet50"))):
        with tempfile.TemporaryDirectory() as folder:
            repository, cache = Path(folder) / "models", Path(folder) / "cache"
            version = repository / name / "1"
            version.mkdir(parents=True)
            shutil.copy(model, version / "model.onnx")
            first, _ = served(repository, cache)
            served(repository, cache)
            known, bare = [], []
            for _ in range(ROUNDS):
                known.append(served(repository, cache)[0])
                bare.append(loaded(model))
            memory = []
            for wide in ("never", "always"):
                (repository / name / "model.toml").write_text(f'[session]\nwide = "{wide}"\n')
                memory.append(served(repository, cache)[1])
        once, plain = statistics.median(known), statistics.median(bare)
        print(
            f"| {name} | {first:.2f} | {once:.2f} ({min(known):.2f}..{max(known):.2f}) "
            f"| {plain:.2f} ({min(bare):.2f}..{max(bare):.2f}) | {once / plain:.2f} "
            f"| {memory[0]:.0f} | {memory[1]:.0f} |"
        )


if __name__ == "__main__":
    main()
