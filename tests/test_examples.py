"""What is shipped is what the code makes."""

import json
from pathlib import Path

import numpy as np
import onnx

from infold.convert import Sampling, convert
from infold.runtime import Device, Placement, RunOptions, Session, read_config
from infold.serving import classes, images
from infold.tensors import TensorSpec
from pictures import encoded

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


def test_the_shipped_model_reads_the_drawn_digit() -> None:
    """By its own model.toml: a picture of any size becomes ink on 8 x 8 pixels, and is a 7."""
    folder = ROOT / "models/digits"
    config = read_config(folder / "model.toml")
    assert config.image is not None and config.classification is not None
    session = Session(folder / "1/model.onnx", RunOptions(Placement(Device.CPU, "asked for")))
    labels = classes.read_labels(classes.labels_file(folder, config.classification.labels))
    assert images.check(config.image, session.signature) is None
    assert classes.check(config.classification, labels, session.signature) is None
    picture = (ROOT / "examples/digits/seven.png").read_bytes()
    (spec,) = session.signature.inputs
    (logits,) = session.run({spec.name: images.tensor_of([picture], config.image, spec, str)}).values()
    (row,) = classes.top_classes(classes.softmax(logits), config.classification.top, labels)
    assert [len(row), row[0][1:]] == [3, (7, "7")] and row[0][0] > 0.99


def test_the_shipped_preparation_gives_what_the_network_was_trained_on() -> None:
    """Paper is 0 and black is 1, as in its samples; a sample drawn as a picture is that sample again."""
    config = read_config(ROOT / "models/digits/model.toml").image
    assert config is not None
    ink = np.load(ROOT / "examples/digits/samples.npz")["in.image"][:, 0]
    for sample in ink:
        levels = (255 - np.rint(sample * 255)).astype(np.uint8)
        large = encoded(np.kron(levels, np.ones((5, 5), np.uint8)))
        made = images.tensor_of([large], config, TensorSpec("image", np.dtype(np.float32), None), str)
        np.testing.assert_allclose(made[0, 0], sample, atol=0.5 / 255 + 1e-6)


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


def test_make_serve_brings_along_what_pictures_need() -> None:
    """Beside the model that it converts: both files of the shipped one that serving reads."""
    recipe = (ROOT / "Makefile").read_text().partition("\nserve:")[2].partition("\n\n")[0]
    (copied,) = [line.split() for line in recipe.splitlines() if line.startswith("\tcp ")]
    folder = ROOT / "models/digits"
    assert copied[1:] == [f"models/digits/{each}" for each in ("model.toml", "labels.txt")] + [
        "build/models/digits/"
    ]
    assert {each.name for each in folder.iterdir() if each.is_file()} == {"model.toml", "labels.txt"}
    assert recipe.index("infold convert") < recipe.index("\tcp ") < recipe.index("infold serve")
