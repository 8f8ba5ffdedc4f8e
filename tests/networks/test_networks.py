"""Whole networks: trained-like in torch, exported unfolded, folded, proven, compared with torch.

Needs torch and onnxscript; takes minutes. `python tests/networks/table.py` writes the same
measurements to docs/networks.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="whole networks are built in torch")
pytest.importorskip("onnxscript", reason="torch exports through onnxscript")

from networks.architectures import NETWORKS, Network
from networks.measure import measure

pytestmark = [
    pytest.mark.networks,
    pytest.mark.filterwarnings("ignore"),  # the exporter's own, of which there are many
    pytest.mark.timeout(900),
]

# Largest difference from torch, over the largest |output|; where the unfolded model itself
# is further away from torch than that, ten times its own difference.
AGREES = 1e-4


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_folds_as_many_norms_as_algebra_allows(network: Network, tmp_path: Path) -> None:
    found = measure(network, tmp_path)
    print("\n" + " | ".join(found.cells()))
    report, proof = found.conversion.report, found.conversion.proof

    assert found.nodes == found.modules == network.norms, "the export is not the unfolded network"
    assert len(report.norms) == network.norms
    assert found.kept == network.kept
    assert len(report.folded) == network.norms - sum(network.kept.values())

    assert proof is not None and proof.passed
    assert len(proof.sites) + len(proof.unseen) >= len(report.folded)
    assert found.torch_folded <= max(AGREES, 10 * found.torch_unfolded)
    assert report.nodes_after <= report.nodes_before
