"""`--keep-unfolded`: the model as it was trained, beside the one that is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from command_line import infold
from graphs import conv_norm, model, normal
from infold.convert import convert_to_repository, twin, writing
from infold.errors import ProofError
from infold.runtime import ShadowConfig, read_config
from oracle import run

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "source.onnx"
    onnx.save(proto, str(path))
    return path


def test_the_unfolded_model_lies_beside_the_folded_one(tmp_path: Path) -> None:
    """It computes what the source does, bit by bit, and `model.toml` names it."""
    done = convert_to_repository(save(conv_norm(), tmp_path), tmp_path / "models", "net", keeps_unfolded=True)
    folder = done.destination.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "golden.npz", "model.fold-report.json", "model.onnx", "model.toml", "unfolded.onnx",
    ]  # fmt: skip
    kept = onnx.load(str(folder / "unfolded.onnx"))
    onnx.checker.check_model(kept, full_check=True)
    assert [node.op_type for node in kept.graph.node] == ["Conv", "BatchNormalization"]
    assert list(kept.graph.input) == list(conv_norm().graph.input)
    x = {"x": normal(3, 2, 6, 6)}
    assert (run(kept, x)[0] == run(conv_norm(), x)[0]).all()
    assert read_config(folder / "model.toml").shadow == ShadowConfig("unfolded.onnx")
    assert [node.op_type for node in onnx.load(str(done.destination)).graph.node] == ["Conv"]


def test_it_goes_with_what_else_a_version_s_model_toml_says(tmp_path: Path) -> None:
    """An optimizer that had to be switched off."""
    proto = model(
        """g (float[N,2,6,6] x) => (float[N,2,3,3] y) {
            c = Conv (x, w)  s = Sigmoid (c)  n = Neg (s)
            p = Pad (n, pads)  y = MaxPool <kernel_shape=[3,3], strides=[2,2]> (p) }""",
        {"w": normal(2, 2, 1, 1), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )
    done = convert_to_repository(save(proto, tmp_path), tmp_path / "models", "net", keeps_unfolded=True)
    config = read_config(done.destination.with_name("model.toml"))
    assert config.session.disabled_optimizers == ("Pad_Fusion",)
    assert config.shadow == ShadowConfig("unfolded.onnx")


def test_without_a_proof_it_is_kept_too(tmp_path: Path) -> None:
    """Then the proof is what happens while it serves."""
    source = save(conv_norm(), tmp_path)
    done = convert_to_repository(source, tmp_path / "models", "net", prove_it=False, keeps_unfolded=True)
    assert sorted(path.name for path in done.destination.parent.iterdir()) == [
        "model.fold-report.json", "model.onnx", "model.toml", "unfolded.onnx",
    ]  # fmt: skip


def test_large_weights_go_into_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of the folded model do; the two do not meet."""
    monkeypatch.setattr(writing, "INLINE_LIMIT_BYTES", 0)
    source = save(conv_norm(), tmp_path)
    done = convert_to_repository(source, tmp_path / "models", "net", keeps_unfolded=True)
    folder = done.destination.parent
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.onnx", "model.onnx.data", "unfolded.onnx", "unfolded.onnx.data"}
    x = {"x": normal(3, 2, 6, 6)}
    kept = onnx.load(str(folder / "unfolded.onnx"))  # its external data with it
    assert (run(kept, x)[0] == run(conv_norm(), x)[0]).all()


def test_weights_that_lie_outside_the_source_come_along(tmp_path: Path) -> None:
    """The version stands by itself: the source may go."""
    source = tmp_path / "source.onnx"
    onnx.save(conv_norm(), str(source), save_as_external_data=True, location="w.bin", size_threshold=0)
    done = convert_to_repository(source, tmp_path / "models", "net", keeps_unfolded=True)
    (tmp_path / "w.bin").unlink()
    x = {"x": normal(3, 2, 6, 6)}
    kept = onnx.load(str(done.destination.with_name("unfolded.onnx")))
    assert (run(kept, x)[0] == run(conv_norm(), x)[0]).all()


def test_a_twin_that_is_not_what_was_folded_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing appears, as with every failed proof."""
    real = twin.write_model

    def wrong(source, unfolded, outcome, target):  # type: ignore[no-untyped-def]
        written = real(source, unfolded, outcome, target)
        proto = onnx.load(str(target))
        (bias,) = [each for each in proto.graph.initializer if each.name == "beta"]
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, "beta"))
        onnx.save(proto, str(target))
        return written

    monkeypatch.setattr(twin, "write_model", wrong)
    (tmp_path / "models").mkdir()
    with pytest.raises(ProofError, match="the unfolded model as written is off by 1"):
        convert_to_repository(save(conv_norm(), tmp_path), tmp_path / "models", "net", keeps_unfolded=True)
    assert list((tmp_path / "models").iterdir()) == []


def test_on_the_command_line(tmp_path: Path) -> None:
    """It goes with a repository, and says what it did."""
    source, models = DIGITS / "digits.onnx", tmp_path / "models"
    done = infold("convert", source, "--repository", models, "--name", "digits", "--keep-unfolded")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        f"wrote {models / 'digits/1/model.onnx'}",
        f"wrote {models / 'digits/1/unfolded.onnx'}, its shadow: a share of the requests is run on both",
    ]
    assert (models / "digits/1/unfolded.onnx").is_file()
    refused = infold("convert", source, tmp_path / "folded.onnx", "--keep-unfolded")
    assert refused.returncode == 2
    assert "--keep-unfolded" in refused.stderr
    assert "--repository" in refused.stderr
