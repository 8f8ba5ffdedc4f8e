"""What is shipped is what the code makes."""

import json
from pathlib import Path

import numpy as np
import onnx

from infold.convert import Sampling, convert

ROOT = Path(__file__).parents[1]


def test_converting_the_digits_again_gives_the_shipped_model(tmp_path: Path) -> None:
    """Same nodes and same tensors as in models/; bytes may differ by version stamps."""
    samples = Sampling(ROOT / "examples/digits/samples.npz")
    convert(ROOT / "examples/digits/digits.onnx", tmp_path / "model.onnx", samples)
    made, shipped = onnx.load(tmp_path / "model.onnx"), onnx.load(ROOT / "models/digits/1/model.onnx")
    assert list(made.graph.node) == list(shipped.graph.node)
    assert list(made.graph.input) == list(shipped.graph.input)
    assert list(made.graph.output) == list(shipped.graph.output)
    tensors = [{t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (made, shipped)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, array in tensors[0].items():
        np.testing.assert_array_equal(array, tensors[1][name])


def test_the_shipped_report_speaks_of_the_shipped_files() -> None:
    """Digests match, all five norms are folded, and the proof passed."""
    report = json.loads((ROOT / "models/digits/1/model.fold-report.json").read_text())
    for key, path in (("source", "examples/digits/digits.onnx"), ("result", "models/digits/1/model.onnx")):
        from hashlib import sha256

        assert report[key]["sha256"] == sha256((ROOT / path).read_bytes()).hexdigest()
    assert (report["folded"], report["kept"], report["proof"]["verified"]) == (5, 0, True)


def test_the_moving_statistics_of_the_shipped_network_are_trained() -> None:
    """Not a network with numbers made up: means and variances have left 0 and 1."""
    model = onnx.load(ROOT / "examples/digits/digits.onnx")
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 5
    for node in norms:
        mean, variance = tensors[node.input[3]], tensors[node.input[4]]
        assert np.count_nonzero(mean) == mean.size
        assert np.ptp(variance) > 0.01
