"""What folding makes of one network: exported, folded, proven, and compared with torch itself."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from infold.convert import Conversion, Sampling, convert
from networks.architectures import NORMS, Network
from networks.export import export

__all__ = ["HEADER", "Measured", "measure"]

HEADER = (
    "network",
    "norms",
    "folded",
    "kept: producer / consumer",
    "nodes",
    "error",
    "error against torch",
    "site error / bound",
    "output error / bound",
    "seconds",
)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One network's numbers.

    Attributes:
        network: Which.
        modules: Norm modules in torch.
        nodes: BatchNormalization nodes in the export.
        conversion: What `convert` gave.
        torch_unfolded, torch_folded: Largest difference from torch, over the largest |output|.
        seconds: What `convert` took.
    """

    network: Network
    modules: int
    nodes: int
    conversion: Conversion
    torch_unfolded: float
    torch_folded: float
    seconds: float

    @property
    def kept(self) -> Counter[str]:
        """Kept norms by their reasons, producer first."""
        return Counter(
            " / ".join(refusal.reason for refusal in each.refusals) for each in self.conversion.report.kept
        )

    def cells(self) -> tuple[str, ...]:
        """One row of the table, in the order of `HEADER`."""
        report, proof = self.conversion.report, self.conversion.proof
        assert proof is not None
        kept = ", ".join(f"{count} {reasons}" for reasons, count in sorted(self.kept.items()))
        return (
            self.network.name,
            str(len(report.norms)),
            str(len(report.folded)),
            kept or "-",
            f"{report.nodes_before} -> {report.nodes_after}",
            f"{proof.worst_relative:.1e}",
            f"{self.torch_folded:.1e}",
            f"{max((each.comparison.exceeded for each in proof.sites), default=0.0):.2f}",
            f"{max(each.exceeded for each in proof.outputs):.2f}",
            f"{self.seconds:.1f}",
        )


def measure(network: Network, folder: Path) -> Measured:
    """Export, convert and run one network.

    Raises:
        InfoldError: Conversion failed; above all a `ProofError`.
    """
    torch.set_num_threads(1)
    module = network.build()
    data = network.samples()
    source, target = folder / "unfolded.onnx", folder / "folded.onnx"
    proto = export(module, data, source)
    began = time.perf_counter()
    conversion = convert(source, target, Sampling(shapes={"x": tuple(data.shape)}))
    seconds = time.perf_counter() - began
    with torch.no_grad():
        want = module(data).numpy()
    return Measured(
        network,
        sum(isinstance(each, NORMS) for each in module.modules()),
        count_norms(proto),
        conversion,
        _difference(want, _run(source, data)),
        _difference(want, _run(target, data)),
        seconds,
    )


def count_norms(proto: onnx.ModelProto) -> int:
    """BatchNormalization nodes of the main graph."""
    return sum(node.op_type == "BatchNormalization" for node in proto.graph.node)


def _run(path: Path, data: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": data.numpy()})[0])


def _difference(want: np.ndarray, got: np.ndarray) -> float:
    exact = want.astype(np.float64)
    return float(np.abs(got - exact).max() / np.abs(exact).max())
