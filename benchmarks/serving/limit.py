"""The bare loop as the benchmark sees it: the limit that shares are shares of."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogue import NETWORKS

LOOP = Path(__file__).with_name("bare.py")
BATCHES = {"tiny": 32}  # 8 for the others


@dataclass(frozen=True)
class Bare:
    """The bare loop's layouts, timed at one moment; see bare.py."""

    loops: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any]:
        """The layout with most images a second."""
        return max(self.loops, key=lambda each: each["images_per_s"])

    @property
    def images_per_s(self) -> float:
        """The limit."""
        return float(self.best["images_per_s"])

    @property
    def images_per_cpu_s(self) -> float:
        """Of the same layout."""
        return 1 / float(self.best["cpu_s_per_image"])

    @property
    def wide_p50_ms(self) -> float:
        """Of one run at a time on all cores."""
        return float(next(each for each in self.loops if each["name"].startswith("intra"))["p50_ms"])


def bare(network: str, seconds: float) -> Bare:
    """Times the bare loop."""
    shape = ",".join(str(each) for each in NETWORKS[network].shape)
    command = [sys.executable, str(LOOP), str(NETWORKS[network].file), "--shape", shape]
    command += ["--seconds", str(seconds), "--batch", str(BATCHES.get(network, 8))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the bare loop failed on {network}: {done.stderr[-500:]}")
    return Bare(json.loads(done.stdout))
