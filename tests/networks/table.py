"""Measures every network and writes docs/networks.md; give names to measure only those."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import onnxruntime  # noqa: E402 - after the path
import torch  # noqa: E402 - after the path

from networks.architectures import NETWORKS  # noqa: E402 - after the path
from networks.measure import HEADER, Measured, measure  # noqa: E402 - after the path

PAGE = """# Networks

What folding makes of whole networks, all of them built in torch at their real depth and width with
statistics like those of a trained one, exported to ONNX with every norm in place, converted and
proven on {rows} rows of small images. Written by `python tests/networks/table.py`; checked by
`pytest -m networks`. Python {python}, torch {torch}, onnxruntime {onnxruntime}.

{table}

- *error*: largest difference between folded and unfolded, relative to the largest |output|; *error
  against torch*: that between the folded model and torch itself.
- *site error / bound*: the largest of any folded norm; above 1 the proof would fail. Near 1 means
  that what arrived from earlier norms outweighs what a norm with few taps (a depthwise convolution)
  may add, not that the norm adds much.
- *output error / bound*: the same at the output.
- *seconds*: `infold convert`, proof included.

The norms that stay stand between a value that others read too (the running sum of a residual
network, the growing join of a dense one) and a ReLU. Neither side can take them: absorbing one into
the producer would change what the other readers see, and a shift does not pass a ReLU.
*Crossings* is no published network: its norms stand behind a shuffle, a join, a sum, an average or
`DepthToSpace`, or in front of a convolution without padding and of a flattened dense layer.
"""


def page(found: Sequence[Measured]) -> str:
    """The whole page."""
    rows = [HEADER, ["---"] * len(HEADER), *(each.cells() for each in found)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return PAGE.format(
        rows=max(each.network.rows for each in found),
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
        table=table,
    )


def main(names: Sequence[str]) -> None:
    """Measure one network after another; all of them go to the file, some of them to the screen."""
    found = []
    for network in NETWORKS:
        if names and network.name not in names:
            continue
        with TemporaryDirectory(prefix="infold-networks-") as folder:
            found.append(measure(network, Path(folder)))
        print(" | ".join(found[-1].cells()), file=sys.stderr, flush=True)
    if names:
        print(page(found), end="")
    else:
        (ROOT / "docs" / "networks.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
