"""TensorFlow models become unfolded ONNX that computes what TensorFlow computes, with every norm in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tensorflow as tf

import oracle
from frontends import tf1_graphs
from infold.convert.frontends.exported import Call, Convention, Exported, Norm, Options, Request
from infold.convert.frontends.formats import Format, recognise
from infold.convert.frontends.onnx import in_memory
from infold.convert.frontends.source import open_source
from infold.convert.frontends.tensorflow import open_model
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

v1 = tf.compat.v1

EXPORT = 1e-5  # framework to unfolded, relative to the largest output
FOLD = 1e-4  # unfolded to folded


# -- the harness ----------------------------------------------------------------------------------


class Checked:
    """A model exported in this process, proven, folded and proven again."""

    def __init__(self, source: Path | str, *, tolerance: float = EXPORT, **options: object) -> None:
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
            assert off(result, values[name]) <= max(FOLD, tolerance)
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
    script = Path(__file__).with_name("tf_saved_models.py")
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
    # A rectifier, a maximum, zeros of padding, sums and positions do block.
    assert model.kept <= {
        f"bn_{name}"
        for name in (
            "activated",
            "flattened",
            "height",
            "only",
            "pooled",
            "shared_conv",
            "two_of_one_a",
            "two_of_one_b",
            "upsampled",
            "zero_padded",
        )
    }
    frozen, scale, center = (model.norms[f"bn_{name}"] for name in ("frozen", "no_scale", "no_center"))
    assert (frozen.trainable, model.norms["bn_conv"].trainable) == (False, True)
    assert np.all(scale.gamma == 1) and np.all(center.beta == 0)
    assert model.norms["bn_epsilon"].epsilon == 0.25
    assert model.norms["bn_height"].axis == 1
    assert model.norms["bn_conv"].axis == 3
    assert model.norms["bn_conv"].gamma[0] == 0
    assert model.norms["bn_conv"].convention is Convention.OF_THE_OLD


def test_norms_of_sequences_are_found(keras_models: Path) -> None:
    """Conv1D is an unsqueezed Conv2D in TensorFlow; a recurrent layer is an LSTM or a loop."""
    model = Checked(keras_models / "sequences")
    assert len(model.norms) == 6
    assert model.kept <= {"bn_lstm"}


def test_norms_of_volumes_are_found(keras_models: Path) -> None:
    """Rank 5, transposed too."""
    model = Checked(keras_models / "volumes")
    assert set(model.norms) == {"bn_conv3d", "bn_conv3d_no_bias", "bn_transposed3d"}
    assert not model.kept


def test_norms_of_vectors_are_found(keras_models: Path) -> None:
    """Two inputs keep their names."""
    model = Checked(keras_models / "vectors")
    assert model.inputs == ["left", "right"]
    assert model.kept == {"bn_summed"}


def test_a_model_in_half_precision_is_exported_as_it_computes(keras_models: Path) -> None:
    """Float16 convolutions, float32 norms."""
    model = Checked(keras_models / "half", tolerance=5e-3)
    assert set(model.norms) == {"bn_half"}


def test_a_norm_that_trains_for_good_is_explained(keras_models: Path) -> None:
    """Its moments are those of the batch: there is nothing to fold, and the user reads why."""
    model = Checked(keras_models / "hard")
    norm = model.norms["bn_live"]
    assert norm.mean is None and norm.variance is None
    assert norm.gamma.shape == (4,) and norm.gamma[0] == 0
    (note,) = model.exported.notes
    assert "bn_live" in note and "statistics of each batch" in note


def test_a_trained_network_keeps_its_accuracy_and_its_statistics(keras_models: Path) -> None:
    """Trained on the digits, opened from its SavedModel by way of the child process."""
    with np.load(keras_models / "digits.npz") as saved:
        facts = dict(saved)
    samples = keras_models / "samples.npz"
    np.savez(samples, image=facts["image"])
    with open_source(keras_models / "digits", samples=samples) as source:
        assert source.framework is not None
        assert source.framework.name.startswith("tensorflow 2.")
        (logits,) = source.framework.answer.outputs.values()
        assert off(logits, facts["logits"]) < EXPORT
        folded, report = fold_batch_norms(source.ir())
        assert len(report.norms) == 3
        assert not [decision for decision in report.norms if decision.outcome is Outcome.KEPT]
        (result,) = oracle.run(ir.to_proto(folded), {"image": facts["image"]})
        norms = {norm.layer: norm for norm in source.framework.norms}
        calls = [call.norm for call in source.framework.answer.calls]
    assert off(result, facts["logits"]) < FOLD
    hits = np.mean(result.argmax(1) == facts["label"])
    assert hits == np.mean(facts["logits"].argmax(1) == facts["label"])
    assert hits > 0.8
    assert list(norms) == ["bn1", "bn2", "bn3"]
    assert calls == [0, 1, 2]
    np.testing.assert_array_equal(norms["bn1"].variance, facts["moving_variance"].astype(np.float64))


# -- TensorFlow 2 without Keras -------------------------------------------------------------------


class Norm2(tf.Module):
    """As people write it: variables without names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        given = tf1_graphs.parameters(channels)
        self.gamma = tf.Variable(given["gamma"])
        self.beta = tf.Variable(given["beta"])
        self.mean = tf.Variable(given["moving_mean"], trainable=False)
        self.variance = tf.Variable(given["moving_variance"], trainable=False)

    def __call__(self, x: object, training: object = None) -> object:
        mean, variance = self.mean.read_value(), self.variance.read_value()
        if training is not None:

            def moments() -> object:
                m, v = tf.nn.moments(x, [0])
                self.mean.assign(self.mean * 0.9 + m * 0.1)
                self.variance.assign(self.variance * 0.9 + v * 0.1)
                return m, v

            mean, variance = tf.cond(training, moments, lambda: (mean, variance))
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, 1e-3)


class Plain(tf.Module):
    """Three signatures, one of them with a training argument."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([3, 4], [1, 2]))
        self.bn1 = Norm2(4)
        self.bn2 = Norm2(6)
        self.filters = tf.Variable(tf.random.stateless_normal([3, 3, 2, 6], [3, 4]))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "features")])
    def dense(self, features: object) -> object:
        return {"scores": self.bn1(features @ self.kernel)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, "features"),
            tf.TensorSpec([], tf.bool, "training"),
        ]
    )
    def train(self, features: object, training: object) -> object:
        return {"scores": self.bn1(features @ self.kernel, training)}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 2], tf.float32, "image")])
    def fused(self, image: object) -> object:
        y, _, _ = v1.nn.fused_batch_norm(
            tf.nn.conv2d(image, self.filters, 1, "SAME"),
            self.bn2.gamma,
            self.bn2.beta,
            mean=self.bn2.mean,
            variance=self.bn2.variance,
            epsilon=1e-3,
            is_training=False,
        )
        return {"map": y, "top": tf.reduce_max(y, [1, 2])}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "model"
    module = Plain()
    signatures = {"dense": module.dense, "train": module.train, "fused": module.fused}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def test_a_plain_module_is_named_after_its_attributes(plain: Path) -> None:
    """Its variables are all called "Variable"; `self.bn1` is the name the user knows."""
    model = Checked(plain, signature="dense")
    assert (model.inputs, model.outputs) == (["features"], ["scores"])
    assert set(model.norms) == {"bn1"}
    assert_statistics(model.norms["bn1"], 4)
    assert model.norms["bn1"].trainable is True
    assert model.norms["bn1"].momentum is None
    assert not model.kept and not model.exported.notes


def test_a_fused_norm_becomes_one_node(plain: Path) -> None:
    """Inputs stay channels-last; the norm is a BatchNormalization node, not folded."""
    model = Checked(plain, signature="fused")
    assert [node.op_type for node in model.proto.graph.node].count("BatchNormalization") == 1
    assert model.outputs == ["map", "top"]
    assert model.norms["bn2"].kind == "FusedBatchNormV3"
    assert_statistics(model.norms["bn2"], 6)
    assert not model.kept


def test_a_training_argument_is_held_at_false(plain: Path) -> None:
    """No If and no boolean input is left, and the user is told."""
    model = Checked(plain, signature="train")
    assert model.inputs == ["features"]
    assert "If" not in [node.op_type for node in model.proto.graph.node]
    assert_statistics(model.norms["bn1"], 4)
    assert ["training" in note for note in model.exported.notes] == [True]


# -- TensorFlow 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("style", tf1_graphs.STYLES, ids=str)
def test_a_flag_is_pinned_in_every_style_and_file(style: tf1_graphs.Style, tmp_path: Path) -> None:
    """Checkpoint, SavedModel and frozen graph: one input, no branches, each norm with its statistics."""
    graph, session = tf1_graphs.build(style)
    checkpoint = tf1_graphs.save_checkpoint(graph, session, tmp_path / "checkpoint")
    saved = tf1_graphs.save_model(graph, session, tmp_path / "model")
    frozen = tf1_graphs.save_frozen(graph, session, tmp_path / "frozen.pb", ["logits"])
    for source, names in (
        (checkpoint, (["x"], ["logits"])),
        (saved, (["image"], ["scores"])),
        (frozen, (["x"], ["logits"])),
    ):
        model = Checked(source)
        assert (model.inputs, model.outputs) == names
        operators = {node.op_type for node in model.proto.graph.node}
        assert not operators & {"If", "Loop", "RandomUniformLike", "Dropout"}
        assert set(model.norms) == {"bn1", "head/bn"}
        assert_statistics(model.norms["bn1"], 4)
        assert_statistics(model.norms["head/bn"], 5)
        assert [call.norm for call in model.answer.calls] == [0, 1]
        assert not model.kept
        assert any("'training' was held at False" in note for note in model.exported.notes)
        is_frozen = source is frozen
        for norm in model.norms.values():
            assert norm.momentum == (None if is_frozen else tf1_graphs.MOMENTUM)
            assert norm.trainable is (None if is_frozen else True)


def test_one_step_of_momentum_one_half_is_half_the_way(tmp_path: Path) -> None:
    """The question users ask: "my moving mean is 0.35 after one step, the batch's was 0.7"."""
    for runs_updates, mean in ((True, 0.35), (False, 0.0)):
        graph = tf.Graph()
        with graph.as_default():
            x = v1.placeholder(tf.float32, [None, 3], name="x")
            flag = v1.placeholder_with_default(False, [], name="is_training")
            with v1.variable_scope("bn1"):
                gamma = v1.get_variable("gamma", initializer=np.ones(3, np.float32))
                beta = v1.get_variable("beta", initializer=np.zeros(3, np.float32))
                moving_mean = v1.get_variable("moving_mean", initializer=np.zeros(3, np.float32))
                variance = v1.get_variable("moving_variance", initializer=np.ones(3, np.float32))
            m, _ = tf.nn.moments(x, [0])
            update = v1.assign_sub(moving_mean, (moving_mean - m) * (1 - 0.5))
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
            used = v1.cond(flag, lambda m=m: m, lambda v=moving_mean: tf.identity(v))
            y = tf.nn.batch_normalization(x, used, variance, beta, gamma, 1e-3)
            tf.identity(y, name="y")
            session = v1.Session()
            session.run(v1.global_variables_initializer())
            if runs_updates:
                session.run(update, {"x:0": np.full((4, 3), 0.7, np.float32)})
        model = Checked(tf1_graphs.save_checkpoint(graph, session, tmp_path / str(runs_updates)))
        norm = model.norms["bn1"]
        assert norm.mean is not None and norm.variance is not None
        np.testing.assert_allclose(norm.mean, mean, rtol=1e-6)
        assert np.all(norm.variance == 1)
        assert norm.momentum == norm.keeps == 0.5


def test_a_checkpoint_is_found_by_folder_prefix_and_any_of_its_files(tmp_path: Path) -> None:
    """Also once its folder was moved: the file `checkpoint` holds the old absolute path."""
    graph, session = tf1_graphs.build(tf1_graphs.Style("nn"))
    prefix = tf1_graphs.save_checkpoint(graph, session, tmp_path / "old")
    assert Path(prefix).is_absolute()
    moved = (tmp_path / "old").rename(tmp_path / "new")
    for source in (moved, moved / "model", moved / "model.meta", moved / "model.index"):
        model = Checked(source)
        assert set(model.norms) == {"bn1", "head/bn"}


def test_a_checkpoint_goes_through_the_child_process(tmp_path: Path) -> None:
    """What comes back are plain files: no TensorFlow is needed to read them."""
    graph, session = tf1_graphs.build(tf1_graphs.Style("fused", resource=True, functional=True, plain=True))
    prefix = tf1_graphs.save_checkpoint(graph, session, tmp_path / "checkpoint")
    with open_source(prefix) as source:
        assert source.framework is not None
        assert [norm.layer for norm in source.framework.norms] == ["bn1", "head/bn"]
        assert_statistics(source.framework.norms[0], 4)
        (result,) = oracle.run(source.proto, source.framework.samples)
        assert off(result, source.framework.answer.outputs["logits"]) < EXPORT


def test_inner_tensors_can_be_named_as_inputs_and_outputs(tmp_path: Path) -> None:
    """For graphs fed by an input pipeline, or to take a part of a network."""
    graph, session = tf1_graphs.build(tf1_graphs.Style("written"))
    prefix = tf1_graphs.save_checkpoint(graph, session, tmp_path / "checkpoint")
    model = Checked(prefix, inputs=("Relu:0",), outputs=("head/bn/add_1",), shapes={"Relu": (2, 8, 8, 4)})
    assert (model.inputs, model.outputs) == (["Relu"], ["head/bn/add_1"])
    assert set(model.norms) == {"head/bn"}


def test_a_fixed_batch_stays_fixed_and_is_told(tmp_path: Path) -> None:
    """The model takes no other, and the user reads how to save one that does."""

    def build() -> None:
        tf.multiply(v1.placeholder(tf.float32, [1, 3], name="x"), 2.0, name="y")

    (note,) = Checked(frozen(tmp_path / "f.pb", build)).exported.notes
    assert "'x' has a fixed batch of 1" in note


def test_two_exports_of_one_source_are_the_same(plain: Path) -> None:
    """The exporter walks over sets; its process is given one order."""
    protos = []
    for _ in range(2):
        with open_source(plain, Options(signature="fused")) as source:
            protos.append(source.proto.SerializeToString(deterministic=True))
    assert protos[0] == protos[1]


def test_a_keep_probability_with_a_default_is_left_at_it(tmp_path: Path) -> None:
    """Nobody wants to feed it, and its default means no dropout."""
    graph = tf.Graph()
    with graph.as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        keep = v1.placeholder_with_default(1.0, [], name="keep_prob")
        tf.multiply(x, keep, name="y")
        model = Checked(tf1_graphs.save_frozen(graph, session, tmp_path / "f.pb", ["y"]))
    assert model.inputs == ["x"]


# -- bad input ------------------------------------------------------------------------------------


def frozen(path: Path, build: object) -> str:
    """A graph without variables, written to a file."""
    graph = tf.Graph()
    with graph.as_default():
        build()
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return str(path)


def test_folders_that_hold_no_saved_model_are_refused(tmp_path: Path) -> None:
    """Missing, truncated and empty."""
    assert "holds no saved_model.pb" in refusal(tmp_path, format=Format.SAVED_MODEL)
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\xff\xff\x01")
    assert "damaged or truncated" in refusal(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert "holds no graph" in refusal(tmp_path)


def test_missing_variables_of_a_saved_model_are_refused(plain: Path, tmp_path: Path) -> None:
    """Somebody copied saved_model.pb alone."""
    (tmp_path / "saved_model.pb").write_bytes((plain / "saved_model.pb").read_bytes())
    assert "cannot be loaded as a SavedModel" in refusal(tmp_path, signature="dense")


def test_signatures_must_be_named_where_there_are_several(plain: Path) -> None:
    """The refusal lists them."""
    assert "--signature: dense, fused, train" in refusal(plain)
    assert "no signature 'other'; it has dense, fused, train" in refusal(plain, signature="other")
    assert "tag" in refusal(plain, tag="gpu", signature="dense")


def test_truncated_graphs_are_refused(tmp_path: Path) -> None:
    """A download that broke off; a file that is no graph."""
    graph, session = tf1_graphs.build(tf1_graphs.Style("nn"))
    path = Path(tf1_graphs.save_frozen(graph, session, tmp_path / "f.pb", ["logits"]))
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refusal(path)
    path.write_bytes(b"")
    assert "holds no TensorFlow graph" in refusal(path)


def test_a_graph_that_is_not_frozen_is_refused(tmp_path: Path) -> None:
    """Its variables have no values; the checkpoint has them."""
    graph, _ = tf1_graphs.build(tf1_graphs.Style("nn"))
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    assert "is not frozen" in refusal(path)


def test_checkpoints_with_files_missing_are_refused(tmp_path: Path) -> None:
    """No graph, no weights, or the weights of another model."""
    graph, session = tf1_graphs.build(tf1_graphs.Style("nn"))
    prefix = Path(tf1_graphs.save_checkpoint(graph, session, tmp_path / "checkpoint"))
    shard = prefix.with_name("model.data-00000-of-00001")
    weights = shard.read_bytes()
    shard.unlink()
    assert f"{shard.name} is missing" in refusal(prefix)
    shard.write_bytes(weights[:40])
    assert "cannot be read" in refusal(prefix)
    other = tf.Graph()
    with other.as_default(), v1.Session() as elsewhere:
        v1.get_variable("stranger", initializer=1.0)
        elsewhere.run(v1.global_variables_initializer())
        v1.train.Saver().save(elsewhere, str(prefix), write_meta_graph=False)
    assert "has no value for 11 of 11 variables" in refusal(prefix)
    prefix.with_name("model.meta").unlink()
    assert "no .meta file" in refusal(prefix)


def test_weights_saved_by_tensorflow_2_name_the_remedy(tmp_path: Path) -> None:
    """A checkpoint of TensorFlow 2 never holds a graph."""
    tf.train.Checkpoint(v=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    assert "model.export(FOLDER)" in refusal(tmp_path)


def two_flags() -> None:
    x = v1.placeholder(tf.float32, [None, 3], name="x")
    for name in ("is_training", "train"):
        flag = v1.placeholder(tf.bool, [], name=name)
        x = v1.cond(flag, lambda x=x: x * 2.0, lambda x=x: x + 1.0)
    tf.identity(x, name="y")


def test_a_flag_that_cannot_be_guessed_must_be_named(tmp_path: Path) -> None:
    """The refusal lists the candidates; several are named with commas."""
    v1.disable_control_flow_v2()
    source = frozen(tmp_path / "f.pb", two_flags)
    assert "is_training, train" in refusal(source)
    assert "no such placeholder" in refusal(source, training_flag="phase")
    assert "is not boolean" in refusal(source, training_flag="x")
    assert Checked(source, training_flag="is_training,train").inputs == ["x"]


def test_a_graph_for_training_only_is_refused(tmp_path: Path) -> None:
    """Its norm uses the batch's moments and there is no flag to pin."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4, 4, 3], name="x")
        ones, zeros = tf.ones([3]), tf.zeros([3])
        with tf.name_scope("bn1"):
            y, _, _ = v1.nn.fused_batch_norm(x, ones, zeros, is_training=True)
        tf.identity(y, name="y")

    detail = refusal(frozen(tmp_path / "f.pb", build))
    assert "graph for training" in detail and "bn1" in detail


def test_an_operator_that_the_exporter_lacks_is_named(tmp_path: Path) -> None:
    """With its node."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [3, 3], name="x")
        tf.linalg.inv(x, name="block/inverse")

    detail = refusal(frozen(tmp_path / "f.pb", build))
    assert "MatrixInverse" in detail and "block/inverse" in detail


def test_names_that_the_graph_lacks_are_refused(tmp_path: Path) -> None:
    """With what was perhaps meant."""
    graph, session = tf1_graphs.build(tf1_graphs.Style("nn"))
    prefix = tf1_graphs.save_checkpoint(graph, session, tmp_path / "checkpoint")
    assert "did you mean logits" in refusal(prefix, outputs=("net/logits",))
    assert "--inputs z" in refusal(prefix, inputs=("z",))


def test_a_graph_with_two_ends_and_a_loss_asks_for_outputs(tmp_path: Path) -> None:
    """Which of them is the output only the user knows."""

    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        labels = v1.placeholder(tf.float32, [None, 3], name="labels")
        y = tf.matmul(x, tf.ones([3, 3]))
        tf.nn.softmax(y, name="probabilities")
        tf.argmax(y, 1, name="classes")
        tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, y), name="loss")

    source = frozen(tmp_path / "f.pb", build)
    assert "classes, probabilities" in refusal(source)
    assert Checked(source, outputs=("probabilities",)).outputs == ["probabilities"]
