"""What is served is proven too, and a wrong optimizer of the runtime is found out."""

from pathlib import Path

import numpy as np
import onnx
from numpy.lib import npyio

from graphs import conv_norm, model, normal
from infold.convert import Sampling, convert, convert_to_repository
from infold.runtime import Run, add_disabled_optimizers, read_config, run_isolated


def padded_pool() -> onnx.ModelProto:
    """Zero padding in front of a MaxPool over negative numbers: onnxruntime 1.31 merges them wrongly."""
    return model(
        """g (float[N,2,6,6] x) => (float[N,2,3,3] y) {
            c = Conv (x, w)  s = Sigmoid (c)  n = Neg (s)
            p = Pad (n, pads)  y = MaxPool <kernel_shape=[3,3], strides=[2,2]> (p) }""",
        {"w": normal(2, 2, 1, 1), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )


def test_a_wrong_optimizer_is_named_and_switched_off(tmp_path: Path) -> None:
    """The proof holds, serving does not: the version's model.toml makes it hold."""
    source = tmp_path / "pool.onnx"
    onnx.save(padded_pool(), source)
    done = convert_to_repository(source, tmp_path / "models", "pool")
    assert done.serving is not None
    assert done.serving.disabled_optimizers == ("Pad_Fusion",)
    assert (done.serving.without_them or 0) > 0.1
    assert done.json["serving"]["disabled_optimizers"] == ["Pad_Fusion"]
    config = read_config(done.destination.with_name("model.toml"))
    with np.load(done.destination.with_name("golden.npz")) as golden:
        assert isinstance(golden, npyio.NpzFile)
        samples, wanted = {"x": golden["in.x"]}, golden["out.y"]
    run = Run("served", done.destination, samples, True, config.session.disabled_optimizers)
    np.testing.assert_allclose(run_isolated([run])[0]["y"], wanted, rtol=2.0**-20)


def test_a_model_that_serves_well_gets_no_model_toml(tmp_path: Path) -> None:
    """Nothing is written that is not needed."""
    source = tmp_path / "net.onnx"
    onnx.save(conv_norm(), source)
    done = convert_to_repository(source, tmp_path / "models", "net")
    assert done.serving is not None
    assert done.serving.disabled_optimizers == ()
    assert not done.destination.with_name("model.toml").exists()


def test_beside_a_plain_destination_the_report_tells(tmp_path: Path) -> None:
    """There is no model.toml to write, so the report and the terminal say it."""
    source = tmp_path / "pool.onnx"
    onnx.save(padded_pool(), source)
    done = convert(source, tmp_path / "out.onnx", Sampling())
    assert done.serving is not None
    assert done.serving.disabled_optimizers == ("Pad_Fusion",)


def test_model_toml_is_merged_never_overwritten(tmp_path: Path) -> None:
    """What an owner wrote stays, comments included."""
    path = tmp_path / "model.toml"
    path.write_text(
        '# ours\nversions = "all"\n\n[session]\nintra_op_threads = 3\n\n[batching]\nmax_rows = 9\n'
    )
    add_disabled_optimizers(path, ["Pad_Fusion"])
    add_disabled_optimizers(path, ["Pad_Fusion", "ConvAddFusion"])
    config = read_config(path)
    assert config.session.disabled_optimizers == ("Pad_Fusion", "ConvAddFusion")
    assert (config.versions, config.session.intra_op_threads, config.batching.max_rows) == ("all", 3, 9)
    assert path.read_text().startswith("# ours\n")
