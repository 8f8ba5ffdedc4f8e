"""TensorFlow models become unfolded ONNX that computes what TensorFlow computes, with every norm in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
import onnx_ir as ir
import oracle
import pytest

from infold.convert.frontends.exported import Call, Convention, Exported, Norm, Options, Request
from infold.convert.frontends.formats import recognise
from infold.convert.frontends.onnx import in_memory
from infold.convert.frontends.source import open_source
from infold.convert.frontends.tidy import tidy
from infold.convert.samples import draw_samples, signature_of
from infold.errors import SourceError
from infold.fold import Outcome, fold_batch_norms
from infold.tensors import Array, Tensors

pytestmark = [
    pytest.mark.frameworks,
    # TensorFlow calls its own deprecated functions.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

import tensorflow as tf
import tf1_graphs
v1 = tf.compat.v1

EXPORT = 1e-5  # framework to unfolded, relative to the largest output
FOLD = 1e-4  # unfolded to folded


# -- the harness ----------------------------------------------------------------------------------


class Checked:
    """A model exported in this process, proven, folded and proven again."""

    def __init__(self, source: Path | str, *, tolerance: float = EXPORT, **options: object) -> None:
        from infold.convert.frontends.tensorflow import open_model

        text = str(source)
        shapes = options.pop("shapes", {})
        request = Request(text, recognise(text), Options(**options), shapes=shapes)
        self.exported: Exported = open_model(request)
        self.proto = tidy(self.exported.proto)
        onnx.checker.check_model(self.proto)
        self.samples = draw_samples(signature_of(self.proto), shapes)
        self.answer = self.exported.run(self.samples)
        self.norms = {norm.layer: norm for norm in self.exported.norms}
        self.inputs = [each.name for each in self.proto.graph.input]
        self.outputs = [each.name for each in self.proto.graph.output]
        values = every_value(self.proto, self.samples)
        assert set(self.answer.outputs) == set(self.outputs)
        self.error = max(off(values[name], self.answer.outputs[name]) for name in self.outputs)
        assert self.error <= tolerance
        folded, report = fold_batch_norms(in_memory(self.proto).ir())
        results = oracle.run(ir.to_proto(folded), self.samples)
        for name, result in zip(self.outputs, results, strict=True):
            assert off(result, values[name]) <= FOLD
        fates = {decision.output: decision.outcome for decision in report.norms}
        self.fate = {
            self.exported.norms[call.norm].layer: next(
                (fates[name] for name in found(call, values) if name in fates), None
            )
            for call in self.answer.calls
        }

    @property
    def kept(self) -> set[str]:
        return {layer for layer, outcome in self.fate.items() if outcome is Outcome.KEPT}


def off(got: Array, want: Array) -> float:
    """Largest difference, relative to the largest wanted number."""
    assert got.shape == want.shape
    wide, reference = got.astype(np.float64), want.astype(np.float64)
    return float(np.abs(wide - reference).max() / np.abs(reference).max())


def every_value(proto: onnx.ModelProto, samples: Tensors) -> dict[str, Array]:
    """Every float value of a model's main graph, unoptimized."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    names = [name for node in proto.graph.node for name in node.output if name]
    kinds = onnx.shape_inference.infer_shapes(proto)
    types = {each.name: each.type.tensor_type.elem_type for each in kinds.graph.value_info}
    given = {each.name for each in proto.graph.output}
    for name in names:
        if name not in given and types.get(name) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
    found = [each.name for each in exposed.graph.output]
    return dict(zip(found, oracle.run(exposed, samples), strict=True))


def found(call: Call, values: dict[str, Array]) -> list[str]:
    """The ONNX values that hold a norm's result, in the framework's layout or channels first."""
    value = np.asarray(call.value)
    layouts = [value, np.moveaxis(value, -1, 1), np.moveaxis(value, 1, -1)] if value.ndim > 2 else [value]
    names = [
        name
        for name, got in values.items()
        if any(each.shape == got.shape and off(got, each) < EXPORT for each in layouts)
    ]
    assert names, f"the result of norm {call.norm} is no value of the ONNX graph"
    return names


def refusal(source: Path | str, **options: object) -> str:
    """What the user reads instead of a model; one line."""
    from infold.convert.frontends.tensorflow import open_model

    text = str(source)
    with pytest.raises(SourceError) as refused:
        open_model(Request(text, options.pop("format", None) or recognise(text), Options(**options)))
    assert "\n" not in str(refused.value)
    return refused.value.detail


def assert_statistics(norm: Norm, channels: int) -> None:
    """The parameters that `tf1_graphs` gave."""
    want = tf1_graphs.parameters(channels)
    for key, got in (
        ("gamma", norm.gamma),
        ("beta", norm.beta),
        ("moving_mean", norm.mean),
        ("moving_variance", norm.variance),
    ):
        assert got is not None and got.dtype == np.float64
        np.testing.assert_array_equal(got, want[key].astype(np.float64))


# -- Keras on TensorFlow, as SavedModels ----------------------------------------------------------


@pytest.fixture(scope="module")
def keras_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    script = Path(__file__).parents[1] / "tf_saved_models.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


def test_every_image_layer_before_a_norm_is_exported_unfolded(keras_models: Path) -> None:
    """2d convolutions of all kinds, and what else can stand before a norm."""
    model = Checked(keras_models / "images")
    assert model.inputs == ["image"]
    assert len(model.outputs) == 32
    assert model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    ends = {f"bn_{name}" for name in model.outputs} - {"bn_two_of_one", "bn_nested"}
    assert set(model.norms) == ends | {"bn_again_1", "bn_two_of_one_a", "bn_two_of_one_b", "block/bn_nested"}
    assert len(model.answer.calls) == len(model.norms) + 1  # one is shared
    print(model.error, model.kept)


def test_norms_of_sequences_are_found(keras_models: Path) -> None:
    """Conv1D is an unsqueezed Conv2D in TensorFlow; a recurrent layer is a loop or an LSTM."""
    model = Checked(keras_models / "sequences")
    print(model.error, model.kept)


def test_norms_of_volumes_are_found(keras_models: Path) -> None:
    """Rank 5."""
    model = Checked(keras_models / "volumes")
    print(model.error, model.kept)


def test_norms_of_vectors_are_found(keras_models: Path) -> None:
    """Two inputs keep their names."""
    model = Checked(keras_models / "vectors")
    assert model.inputs == ["left", "right"]
    print(model.error, model.kept)


@pytest.mark.parametrize("style", tf1_graphs.STYLES, ids=str)
def test_tensorflow_1(style: object, tmp_path: Path) -> None:
    graph, session = tf1_graphs.build(style)
    print()
    for source in (
        tf1_graphs.save_checkpoint(graph, session, tmp_path / "checkpoint"),
        tf1_graphs.save_model(graph, session, tmp_path / "model"),
        tf1_graphs.save_frozen(graph, session, tmp_path / "frozen.pb", ["logits"]),
    ):
        model = Checked(source)
        print(model.error, model.kept)
