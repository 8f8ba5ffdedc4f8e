"""Whole PyTorch networks straight from the code that builds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from infold.convert.frontends.source import open_source
from infold.fold import fold_batch_norms
from networks.architectures import NETWORKS, NORMS
from oracle import session

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]

AGREES = 1e-4


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        ("resnet_18", "ResNet-18"),
        ("mobilenet_v2", "MobileNet v2"),
        ("unet", "UNet"),
        ("resnet_1d", "ResNet-18 1d"),
        ("resnet_3d", "R3D-18"),
        ("pointnet", "PointNet"),
    ],
)
def test_a_whole_network_keeps_its_norms_and_its_answers(
    factory: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norms found are the norms of the module; each is in the graph; unfolded and folded agree with torch."""
    monkeypatch.chdir(Path(__file__).parents[1])
    network = next(each for each in NETWORKS if each.name == name)
    module = network.build()
    own = {path: each for path, each in module.named_modules() if isinstance(each, NORMS)}
    assert len(own) == network.norms
    with open_source(f"networks.factories:{factory}", shapes={"": (network.rows, *network.shape)}) as source:
        assert source.framework is not None
        assert [norm.layer for norm in source.framework.norms] == list(own)
        for norm in source.framework.norms:
            np.testing.assert_array_equal(norm.variance, own[norm.layer].running_var.double().numpy())
        assert len(source.framework.answer.calls) == network.norms
        nodes = [node for node in source.proto.graph.node if node.op_type == "BatchNormalization"]
        assert len(nodes) == network.norms
        assert not any("training mode" in note for note in source.framework.notes)
        (want,) = source.framework.answer.outputs.values()
        folded, report = fold_batch_norms(source.ir())
        assert len(report.folded) == network.norms - sum(network.kept.values())
        errors = []
        for model in (source.proto, ir.to_proto(folded)):
            got = session(model).run(None, dict(source.framework.samples))[0]
            errors.append(float(np.abs(got - want).max() / np.abs(want).max()))
        print(f"{name}: {network.norms} norms, errors {errors[0]:.1e} and {errors[1]:.1e}")
        assert errors[0] <= AGREES and errors[1] <= max(AGREES, 10 * errors[0])
