"""Whole architectures straight from Keras and PyTorch, through the command's own way: `make zoo`.

    python tests/networks/zoo.py [name ...]

builds each with random weights and settled moments, converts it as `infold convert` does, and
writes docs/networks.md; names measure only those, and print.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import keras  # noqa: E402 - after the path
import onnxruntime  # noqa: E402 - after the path
import torch  # noqa: E402 - after the path

from infold.convert import Conversion, Sampling, convert  # noqa: E402 - after the path
from networks.architectures import NETWORKS, Network  # noqa: E402 - after the path
from networks.factories import factory_name  # noqa: E402 - after the path
from networks.keras_applications import APPLICATIONS, Application  # noqa: E402 - after the path

__all__ = ["ZOO", "Entry", "Row", "measure", "of_keras", "of_torch"]

HEADER = (
    "network",
    "norms",
    "folded",
    "kept: producer / consumer",
    "nodes",
    "framework to unfolded",
    "framework to folded",
    "worst layer",
    "unfolded to folded",
    "site error / bound",
    "MB",
    "seconds",
)
PAGE = """# Networks

Whole networks straight from Keras and PyTorch, at their real depth and width, with random weights,
moments as a forward pass leaves them and gammas of both signs: saved to a file (Keras) or named as
code (PyTorch), then converted and proven as `infold convert` does. Written by `make zoo`; checked by
`make networks`. Python {python}, keras {keras}, torch {torch}, onnxruntime {onnxruntime}.

{table}

- *norms*: batch normalizations in the framework's own model; every one of them was found again in the
  exported graph, by the value it computes (Keras' EfficientNet has one affine more: its `Normalization`).
- Errors are largest differences over the largest |output|. *Worst layer*: the largest distance of any
  norm's value in the unfolded ONNX from what that very layer gave in the framework.
- *site error / bound*: the largest of any folded norm; above 1 the proof would fail. Near 1 means that
  what arrived from earlier norms outweighs what a norm with few taps (a depthwise convolution) may
  add, not that the norm adds much.
- *seconds*: the whole conversion: starting the framework, export, its own inference, folding, proof.

The norms that stay stand between a value that others read too (the running sum of a residual
network, the growing join of a dense one) and a ReLU. Neither side can take them: absorbing one into
the producer would change what the other readers see, and a shift does not pass a ReLU.
*Crossings* is no published network: its norms stand behind a shuffle, a join, a sum, an average or
`DepthToSpace`, or in front of a convolution without padding and of a flattened dense layer. Keras'
networks are channels-last, with a Transpose around every convolution.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One architecture.

    Attributes:
        name: As the table calls it.
        norms: Batch normalizations in the framework's model.
        source: Makes the source in a folder: a file, or `package.module:factory`.
        sampling: Shape of what it is run on.
    """

    name: str
    norms: int
    source: Callable[[Path], Path | str]
    sampling: Sampling


def of_keras(application: Application) -> Entry:
    """An architecture of `keras.applications`, by way of a `.keras` file."""
    return Entry(f"keras {application.name}", application.norms, application.write, Sampling())


def of_torch(network: Network) -> Entry:
    """A network of PyTorch, by way of the code that builds it."""
    code = f"networks.factories:{factory_name(network.name)}"
    shapes = {"": (network.rows, *network.shape)}
    return Entry(f"torch {network.name}", network.norms, lambda _: code, Sampling(shapes=shapes))


ZOO = (*map(of_keras, APPLICATIONS), *map(of_torch, NETWORKS))


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One architecture's numbers."""

    entry: Entry
    conversion: Conversion
    seconds: float
    megabytes: float

    @property
    def kept(self) -> Counter[str]:
        """Kept norms by their reasons, producer first."""
        return Counter(
            " / ".join(refusal.reason for refusal in each.refusals) for each in self.conversion.report.kept
        )

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADER`."""
        report, proof, steps = self.conversion.report, self.conversion.proof, self.conversion.framework
        assert proof is not None
        assert steps is not None
        return (
            self.entry.name,
            str(len(report.norms)),
            str(len(report.folded)),
            ", ".join(f"{count} {reasons}" for reasons, count in sorted(self.kept.items())) or "-",
            f"{report.nodes_before} -> {report.nodes_after}",
            f"{max(each.unfolded for each in steps.outputs):.1e}",
            f"{max(each.folded for each in steps.outputs):.1e}",
            f"{max(layer.error for layer in steps.layers):.1e}",
            f"{proof.worst_relative:.1e}",
            f"{max((each.comparison.exceeded for each in proof.sites), default=0.0):.2f}",
            f"{self.megabytes:.1f}",
            f"{self.seconds:.0f}",
        )


def measure(entry: Entry, folder: Path) -> Row:
    """Build one architecture and convert it.

    Raises:
        InfoldError: Conversion failed; above all a `ProofError`.
    """
    source = entry.source(folder)
    before = Path.cwd()
    os.chdir(ROOT / "tests")  # where `networks.factories` can be imported
    try:
        began = time.perf_counter()
        conversion = convert(source, folder / "folded.onnx", entry.sampling)
        seconds = time.perf_counter() - began
    finally:
        os.chdir(before)
    return Row(entry, conversion, seconds, (folder / "folded.onnx").stat().st_size / 1e6)


def main(names: Sequence[str]) -> None:
    """Measure one after another; all of them go to the file, some of them to the screen."""
    rows = []
    for entry in ZOO:
        if names and entry.name not in names:
            continue
        with TemporaryDirectory(prefix="infold-zoo-") as folder:
            rows.append(measure(entry, Path(folder)))
        print(" | ".join(rows[-1].cells()), file=sys.stderr, flush=True)
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    page = PAGE.format(
        python=platform.python_version(),
        keras=keras.__version__,
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
        table="\n".join(f"| {' | '.join(line)} |" for line in lines),
    )
    if names:
        print(page, end="")
    else:
        (ROOT / "docs" / "networks.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
