"""Whole architectures straight from Keras and PyTorch, through the command's own way: `make zoo`.

    python tests/networks/zoo.py [name ...]

builds each with random weights and settled moments, converts it as `infold convert` does, and
writes docs/zoo.md; names measure only those, and print.
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
from networks.architectures import NETWORKS  # noqa: E402 - after the path
from networks.keras_applications import APPLICATIONS  # noqa: E402 - after the path

__all__ = ["ZOO", "Entry", "Row", "measure"]

# What `networks.factories` calls the networks of PyTorch.
FACTORIES = {
    "ResNet-18": "resnet_18",
    "MobileNet v2": "mobilenet_v2",
    "UNet": "unet",
    "ResNet-18 1d": "resnet_1d",
    "R3D-18": "resnet_3d",
    "PointNet": "pointnet",
}
HEADER = (
    "network",
    "norms in the framework",
    "found",
    "folded",
    "kept: producer / consumer",
    "framework to unfolded",
    "unfolded to folded",
    "framework to folded",
    "worst layer",
    "nodes",
    "MB",
    "seconds",
)
PAGE = """# The zoo

Whole architectures straight from Keras and PyTorch, with random weights, moments as a forward pass
leaves them, and gammas of both signs: saved or named as code, converted as `infold convert` does.
Written by `make zoo`. Python {python}, keras {keras}, torch {torch}, onnxruntime {onnxruntime}.

{table}

- Errors are largest differences over the largest |output|. *Worst layer* is the largest distance of
  any norm's value in the unfolded ONNX from what that very layer gave in the framework, over its
  largest magnitude.
- *seconds* is the whole conversion: starting the framework, export, its own inference, folding, proof.
- Keras models stand for channels-last networks with a Transpose around every convolution; images are
  96 to 128 pixels wide. Where a norm stays, neither neighbour can take it: in front of it a value that
  others read too, behind it a ReLU or a padded convolution ([reasons](reasons.md)).
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


def _torch(name: str, factory: str) -> Entry:
    network = next(each for each in NETWORKS if each.name == name)
    shapes = {"": (network.rows, *network.shape)}
    code = f"networks.factories:{factory}"
    return Entry(f"torch {name}", network.norms, lambda _: code, Sampling(shapes=shapes))


ZOO = (
    *(Entry(f"keras {each.name}", each.norms, each.write, Sampling()) for each in APPLICATIONS),
    *(_torch(name, factory) for name, factory in FACTORIES.items()),
)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One architecture's numbers."""

    entry: Entry
    conversion: Conversion
    seconds: float
    megabytes: float

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADER`."""
        report, proof, steps = self.conversion.report, self.conversion.proof, self.conversion.framework
        assert proof is not None
        assert steps is not None
        kept = Counter(" / ".join(refusal.reason for refusal in each.refusals) for each in report.kept)
        return (
            self.entry.name,
            str(self.conversion.json["framework"]["norms"]),
            str(sum(bool(layer.value) for layer in steps.layers)),
            str(len(report.folded)),
            ", ".join(f"{count} {reasons}" for reasons, count in sorted(kept.items())) or "-",
            f"{max(each.unfolded for each in steps.outputs):.1e}",
            f"{proof.worst_relative:.1e}",
            f"{max(each.folded for each in steps.outputs):.1e}",
            f"{max(layer.error for layer in steps.layers):.1e}",
            f"{report.nodes_before} -> {report.nodes_after}",
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
        (ROOT / "docs" / "zoo.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
