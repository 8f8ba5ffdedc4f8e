"""Whole networks from Keras and PyTorch: every norm found again, folded as far as algebra allows, proven.

Takes minutes. `make zoo` measures all of them and writes docs/networks.md.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

if any(find_spec(framework) is None for framework in ("torch", "keras", "onnxscript")):
    pytest.skip("whole networks need torch and keras: make networks", allow_module_level=True)

from networks.architectures import NETWORKS, Network
from networks.keras_applications import APPLICATIONS
from networks.zoo import Entry, Row, measure, of_keras, of_torch

pytestmark = [
    pytest.mark.networks,
    pytest.mark.filterwarnings("ignore"),  # the frameworks' own, of which there are many
    pytest.mark.timeout(900),
]

# `make zoo` has all ten; EfficientNet begins with a Normalization layer, which is no batch norm.
KERAS = ("MobileNetV2", "MobileNetV3Small", "EfficientNetB0")


def converted(entry: Entry, folder: Path) -> Row:
    """Convert, and check what must hold for every network."""
    row = measure(entry, folder)
    print("\n" + " | ".join(row.cells()))
    report, proof, steps = row.conversion.report, row.conversion.proof, row.conversion.framework
    assert proof is not None and proof.passed
    assert steps is not None and steps.passed
    assert row.conversion.json["framework"]["norms"] == entry.norms
    assert row.conversion.json["framework"]["not_found_in_graph"] == []
    assert len(steps.layers) == entry.norms
    # A layer that only normalizes its input is an affine too, and counts as a site.
    assert {layer.name for layer in steps.layers} <= {each.site for each in report.norms}
    assert len(report.folded) == len(report.norms) - sum(row.kept.values())
    assert report.nodes_after <= report.nodes_before
    return row


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_network_of_pytorch_folds_as_far_as_algebra_allows(network: Network, tmp_path: Path) -> None:
    """What stays, stays for the reasons written down beside the network."""
    assert converted(of_torch(network), tmp_path).kept == network.kept


@pytest.mark.parametrize("name", KERAS)
def test_a_network_of_keras_folds_whole(name: str, tmp_path: Path) -> None:
    """Every norm, through the Transposes around its convolution."""
    application = next(each for each in APPLICATIONS if each.name == name)
    assert not converted(of_keras(application), tmp_path).kept
