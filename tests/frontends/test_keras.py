"""Keras files: every norm found, exported unfolded, equal to what Keras itself computes, and foldable."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers as kl

from frontends.keras_checks import all_values, difference, value_of
from frontends.keras_layers import ROWS, build, norm, unsettle
from infold.convert.frontends.exported import Convention, Framework, Options, Request
from infold.convert.frontends.formats import Format
from infold.convert.frontends.keras import open_model
from infold.convert.frontends.source import Source, open_source
from infold.errors import InfoldError, SourceError
from infold.fold import fold_batch_norms
from infold.fold.report import Outcome
from infold.tensors import Array, Tensors

pytestmark = [
    pytest.mark.frameworks,
    # Keras on PyTorch makes its arrays in a way that numpy 2 will no longer have.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

# The code of layers that are not Keras's own, as users have it beside their models.
OWN_CODE = """
import keras


@keras.saving.register_keras_serializable("shop")
class Scaled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


class Block(keras.Model):
    def __init__(self, units=4, **options):
        super().__init__(**options)
        self.dense = [keras.layers.Dense(units, name="dense"), keras.layers.Dense(units, name="dense")]
        self.bn = [keras.layers.BatchNormalization(name="bn"), keras.layers.BatchNormalization(name="bn")]
        self.units = units

    def call(self, x, training=None):
        left = self.bn[0](self.dense[0](x["left"]))
        return {"sum": left + self.bn[1](self.dense[1](x["right"]), training=True), "left": left}

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Trainer(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.bn = keras.layers.Dense(4), keras.layers.BatchNormalization(name="bn")
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, inputs, training=True):
        return self.dropout(self.bn(self.dense(inputs), training=training), training=training)


class Bare(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.bn = keras.layers.Dense(4), keras.layers.BatchNormalization(name="bn")

    def call(self, x, place):
        return self.bn(self.dense(x)) * keras.ops.one_hot(keras.ops.squeeze(place, 1), 4)


class Pair(Bare):
    def build(self, x_shape, place_shape):
        self.dense.build(x_shape)
        self.bn.build((None, 4))


class Secretive(Trainer):
    def get_build_config(self):
        return {"width": 3}

    def build_from_config(self, config):
        self.dense.build((None, config["width"]))
        self.bn.build((None, 4))
        self.built = True


class ByTensorFlow(keras.layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.nn.relu6(tf.identity(x))

    def compute_output_shape(self, shape):
        return shape


class Determinant(keras.layers.Layer):
    def call(self, x):
        return keras.ops.slogdet(keras.ops.reshape(x, (-1, 2, 2)))[1]


class Noisy(keras.layers.Layer):
    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))


class FixedBatch(keras.layers.Layer):
    def call(self, x):
        return keras.ops.reshape(x, (4, 6))


def tripled(x):
    return 3.0 * x
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """A Keras file that has gone all the way.

    Attributes:
        source: As the converter has it.
        framework: What Keras says of it.
        values: All values of the unfolded graph a norm may be, and its outputs.
        folded: The outputs of the folded graph.
        outcomes: What became of each use of a norm, by the norm's layer name; None where the
            value it gave is nowhere in the graph or within another norm.
    """

    source: Source
    framework: Framework
    values: dict[str, Array]
    folded: dict[str, Array]
    outcomes: dict[str, list[Outcome | None]]

    def error(self, output: str) -> float:
        """Between Keras and the unfolded model."""
        return difference(self.values[output], self.framework.answer.outputs[output])

    def folded_error(self, output: str) -> float:
        """Between Keras and the folded model."""
        return difference(self.folded[output], self.framework.answer.outputs[output])

    def dims(self, name: str) -> list[str | int]:
        """Of an input or output."""
        graph = self.source.proto.graph
        (value,) = (each for each in (*graph.input, *graph.output) if each.name == name)
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def opened(source: Source, allowed: float = 1e-5) -> Opened:
    """Compare a source with its framework, and fold it.

    Args:
        source: From `open_source`.
        allowed: How far a norm's value may be from the framework's, relative.
    """
    framework = source.framework
    assert framework is not None
    values = all_values(source.proto, framework.samples)
    folded, report = fold_batch_norms(source.ir())
    decisions = {each.output: each.outcome for each in report.decisions}
    outcomes: dict[str, list[Outcome | None]] = {}
    taken: set[str] = set()
    for call in framework.answer.calls:
        layer = framework.norms[call.norm].layer
        name = value_of(call, values, taken, allowed)
        assert name is not None, f"what '{layer}' gave is nowhere in the graph"
        taken.add(name)
        outcomes.setdefault(layer, []).append(decisions.get(name))
    return Opened(source, framework, values, all_values(ir.to_proto(folded), framework.samples), outcomes)


def go(path: Path, allowed: float = 1e-5, **options: Any) -> Iterator[Opened]:
    """A file through the child process."""
    samples, shapes = options.pop("samples", None), options.pop("shapes", None)
    with open_source(path, Options(**options), samples=samples, shapes=shapes) as source:
        yield opened(source, allowed)


def convert(path: Path, allowed: float = 1e-5, **options: Any) -> Opened:
    """A file through the child process, whose files are gone afterwards."""
    (only,) = go(path, allowed, **options)
    return only


def save(model: Any, path: Path) -> Path:
    """Write a model, statistics of wide range in its norms."""
    unsettle(model, np.random.default_rng(7))
    model.save(path)
    return path


def rewrite(path: Path, change: Callable[[Any], Any], member: str = "config.json") -> None:
    """Change the configuration inside a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = json.dumps(change(json.loads(members[member]))).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's own code, beside the model and in the working directory."""
    (tmp_path / "own_layers.py").write_text(OWN_CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_layers", raising=False)
    import own_layers  # type: ignore[import-not-found]  # written above

    yield own_layers
    keras.saving.get_custom_objects().clear()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """All rows of the layer table at once."""
    path = tmp_path_factory.mktemp("keras") / "table.keras"
    build().save(path)
    yield from go(path)


# -- the layer table ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_layer_table(table: Opened, name: str) -> None:
    """Unfolded equals Keras, each use of a norm is a value of the graph, and what can fold does."""
    row = ROWS[name]
    assert table.error(name) <= 1e-5
    assert table.folded_error(name) <= 1e-4
    outcomes = [each for layer in owned(table, name) for each in table.outcomes[layer]]
    assert len(outcomes) == row.norms
    assert outcomes.count(Outcome.FOLDED) == row.folded


def owned(table: Opened, row: str) -> list[str]:
    """Norms of a row, by its name in front of theirs."""

    def owner(layer: str) -> str:
        first = layer.split("/")[0]
        return max((name for name in ROWS if f"{first}_".startswith(f"{name}_")), key=len)

    return [layer for layer in table.outcomes if owner(layer) == row]


def test_inputs_and_outputs_are_called_as_in_the_model(table: Opened) -> None:
    """In any order of the framework's, with the batch left open."""
    graph = table.source.proto.graph
    assert {value.name for value in graph.input} == {row.input for row in ROWS.values()}
    assert {value.name for value in graph.output} == set(ROWS)
    assert table.dims("image") == ["batch", 9, 10, 3]
    assert table.dims("dense") == ["batch", 5]
    assert table.framework.notes == ()


def test_layers_have_the_names_that_the_user_gave(table: Opened) -> None:
    """Nested ones after the models that hold them, shared ones once."""
    names = [each.layer for each in table.framework.norms]
    assert len(names) == len(set(names))
    assert {"dense", "nested/bn", "deeply_nested/block/bn", "shared_norm_norm", "timed/each"} <= set(names)
    assert len(table.outcomes["deeply_nested/block/bn"]) == 2


def test_the_table_of_norms_holds_what_keras_holds(table: Opened) -> None:
    """Axis, epsilon, momentum and the trained numbers; ones and zeros where a layer has none."""
    norms = {each.layer: each for each in table.framework.norms}
    frozen, plain = norms["frozen"], norms["neither"]
    assert frozen.trainable is False
    assert plain.trainable is True
    assert norms["epsilon"].epsilon == 0.3
    assert (norms["norm_on_columns"].axis, norms["channels_first"].axis) == (-2, 1)
    assert (plain.momentum, plain.convention, plain.kind) == (
        0.99,
        Convention.OF_THE_OLD,
        "BatchNormalization",
    )
    assert not plain.beta.any() and (plain.gamma == 1).all()
    variances = np.concatenate([each.variance for each in norms.values() if each.variance is not None])
    assert variances.min() < 1e-5 and variances.max() > 1e3


# -- one trained network --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors, Any]:
    """A small CNN that has learned which corner is bright: its path, images to ask, and the model."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 400)
    images = rng.normal(2.0, 1.0, (400, 10, 10, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[5 * row : 5 * row + 5, 5 * column : 5 * column + 5] += 1.5
    model = keras.Sequential(
        [
            keras.Input((10, 10, 1), name="image"),
            kl.Conv2D(8, 3, use_bias=False, name="conv1"),
            norm("bn1", momentum=0.8),
            kl.ReLU(),
            kl.SeparableConv2D(8, 3, name="conv2"),
            norm("bn2", momentum=0.8),
            kl.ReLU(),
            kl.Flatten(),
            kl.Dense(16, name="dense"),
            norm("bn3", momentum=0.8),
            kl.ReLU(),
            kl.Dropout(0.2),
            kl.Dense(4, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(images[:320], labels[:320], epochs=6, batch_size=32, verbose=0)
    folder = tmp_path_factory.mktemp("trained")
    model.save(folder / "corners.keras")
    model.save(folder / "corners.h5")
    np.savez(folder / "samples.npz", image=images[320:])
    answers = model.predict(images[320:], verbose=0)
    assert (answers.argmax(1) == labels[320:]).mean() > 0.8
    return folder, {"image": images[320:], "logits": answers}, model


@pytest.mark.parametrize("name", ["corners.keras", "corners.h5"])
def test_a_trained_network_answers_as_before(trained: tuple[Path, Tensors, Any], name: str) -> None:
    """From either format: the same labels, all norms folded, statistics as training left them."""
    folder, asked, model = trained
    result = convert(folder / name, samples=folder / "samples.npz")
    assert np.array_equal(result.framework.samples["image"], asked["image"])
    assert difference(result.framework.answer.outputs["logits"], asked["logits"]) <= 1e-5
    assert result.error("logits") <= 1e-5 and result.folded_error("logits") <= 1e-4
    assert np.array_equal(result.folded["logits"].argmax(1), asked["logits"].argmax(1))
    assert result.outcomes == {layer: [Outcome.FOLDED] for layer in ("bn1", "bn2", "bn3")}
    for found in result.framework.norms:
        layer = model.get_layer(found.layer)
        assert found.keeps == pytest.approx(0.8)
        for mine, theirs in (
            (found.mean, layer.moving_mean),
            (found.variance, layer.moving_variance),
            (found.gamma, layer.gamma),
            (found.beta, layer.beta),
        ):
            assert np.array_equal(mine, keras.ops.convert_to_numpy(theirs))
        assert found.mean is not None and np.abs(found.mean).max() > 0.1


# -- what models can be ---------------------------------------------------------------------------


def test_the_untrained_norm_of_every_tutorial(tmp_path: Path) -> None:
    """Moving mean 0, variance 1, epsilon 1e-3: a little less than what came in."""
    model = keras.Sequential([keras.Input((2,), name="x"), norm("bn")])
    model.save(tmp_path / "tutorial.keras")
    np.savez(tmp_path / "x.npz", x=np.array([[0, 1], [2, 3]], np.float32))
    result = convert(tmp_path / "tutorial.keras", samples=tmp_path / "x.npz")
    expected = np.array([[0, 0.9995], [1.999, 2.9985]])
    assert np.abs(result.framework.answer.outputs["bn"] - expected).max() < 5e-5
    assert result.error("bn") <= 1e-6


def test_open_lengths_stay_open(tmp_path: Path) -> None:
    """A fully convolutional network takes any image after the export as before it, two of them apart."""
    left, right = keras.Input((None, None, 3), name="left"), keras.Input((None, 8, 3), name="right")
    conv = kl.Conv2D(4, 3, padding="same", name="conv2d")
    outputs = {"a": norm("add")(conv(left)), "b": kl.GlobalMaxPooling2D(name="mul")(norm("bn")(conv(right)))}
    path = save(keras.Model([left, right], outputs), tmp_path / "open.keras")
    result = convert(path, shapes={"left": (2, 12, 20, 3)})
    assert result.dims("left") == ["batch", "left_1", "left_2", 3]
    assert result.dims("a") == ["batch", "left_1", "left_2", 4]
    assert result.dims("right") == ["batch", "right_1", 8, 3]
    assert result.framework.samples["left"].shape == (2, 12, 20, 3)
    other = {"left": (3, 5, 7, 3), "right": (3, 40, 8, 3)}
    samples = {name: np.ones(shape, np.float32) for name, shape in other.items()}
    assert all_values(result.source.proto, samples)["a"].shape == (3, 5, 7, 4)
    assert result.error("a") <= 1e-5 and result.folded_error("b") <= 1e-4


def test_layers_that_the_model_itself_trains_are_exported_for_inference(tmp_path: Path) -> None:
    """`training=True` in the graph: no batch statistics and no dropout survive, and the user is told."""
    image = keras.Input((8, 8, 3), name="image")
    inner = keras.Sequential([kl.Conv2D(4, 3, name="conv"), norm("bn")], name="backbone")
    y = kl.Dropout(0.5, name="drop")(inner(image, training=True), training=True)
    y = norm("frozen", trainable=False)(norm("bn2")(y, training=True), training=True)
    path = save(keras.Model(image, y), tmp_path / "training.keras")
    result = convert(path)
    (note,) = result.framework.notes
    assert note.startswith("the model runs 'backbone', 'drop', 'bn2' in training mode")
    assert result.error("frozen") <= 1e-5
    assert list(result.outcomes) == ["backbone/bn", "bn2", "frozen"]
    batch = all_values(result.source.proto, result.framework.samples)["frozen"]
    alone = {name: array[:1] for name, array in result.framework.samples.items()}
    assert difference(all_values(result.source.proto, alone)["frozen"], batch[:1]) <= 1e-6


def test_mixed_precision_stays_mixed(tmp_path: Path) -> None:
    """Convolutions in half, norms in single precision, as the policy says."""
    policy = "mixed_float16"
    image = keras.Input((8, 8, 3), name="image")
    y = norm("bn", dtype=policy)(kl.Conv2D(4, 3, dtype=policy, name="conv")(image))
    y = kl.ReLU(dtype=policy)(y)
    y = norm("bn2", dtype=policy)(kl.Dense(5, dtype=policy, name="dense")(kl.Flatten(dtype=policy)(y)))
    model = keras.Model(image, kl.Activation("linear", dtype="float32", name="out")(y))
    unsettle(model, np.random.default_rng(7))
    for layer in ("bn", "bn2"):  # variances that half precision holds
        length = model.get_layer(layer).moving_variance.shape[0]
        model.get_layer(layer).moving_variance.assign(np.geomspace(0.1, 10, length))
        model.get_layer(layer).moving_mean.assign(np.linspace(-1, 1, length))
    model.save(tmp_path / "mixed.keras")
    result = convert(tmp_path / "mixed.keras", allowed=5e-3)
    assert result.error("out") <= 5e-3 and result.folded_error("out") <= 1e-2
    assert len(result.framework.norms) == len(result.outcomes) == 2


def test_masks_and_whole_numbers_go_in(tmp_path: Path) -> None:
    """Token ids, padded; a mask changes a norm in training only."""
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    y = kl.Embedding(20, 6, mask_zero=True, name="embedding")(tokens)
    y = norm("bn")(kl.Dense(5, name="dense")(norm("first")(y)))
    path = save(keras.Model(tokens, kl.GlobalAveragePooling1D(name="mean")(y)), tmp_path / "tokens.keras")
    result = convert(path)
    assert result.framework.samples["tokens"].dtype == np.int32
    assert result.error("mean") <= 1e-5 and result.folded_error("mean") <= 1e-4
    assert result.outcomes["bn"] == [Outcome.FOLDED]


def test_norms_synchronized_over_devices_load_on_any_backend(tmp_path: Path) -> None:
    """Keras refuses them without TensorFlow, though inference knows no difference."""
    model = keras.Sequential([keras.Input((4,), name="x"), kl.Dense(3, name="dense"), norm("bn")])
    path = save(model, tmp_path / "synchronized.keras")
    rewrite(
        path,
        lambda config: json.loads(
            json.dumps(config).replace('"synchronized": false', '"synchronized": true')
        ),
    )
    result = convert(path)
    assert "torch" in result.framework.name
    assert result.outcomes == {"bn": [Outcome.FOLDED]}


def test_a_model_that_never_declared_its_input_is_batched_all_the_same(tmp_path: Path) -> None:
    """A Sequential built by its first call has that call's batch in the file."""
    model = keras.Sequential([kl.Dense(4, name="dense"), norm("bn")])
    model(np.zeros((5, 3), np.float32))
    result = convert(save(model, tmp_path / "called.h5"))
    assert len(result.source.proto.graph.input) == 1
    assert result.dims("bn") == ["batch", 4]
    assert result.framework.notes == ()


def test_outputs_may_coincide(tmp_path: Path) -> None:
    """The same value twice, an input as it is, and layers called like operators of the exporter."""
    x = keras.Input((4,), name="x")
    y = norm("add")(kl.Dense(4, name="linear")(x))
    path = save(keras.Model(x, [y, x, y, kl.Add(name="sub")([y, x])]), tmp_path / "same.keras")
    result = convert(path)
    names = [value.name for value in result.source.proto.graph.output]
    assert names == ["add", "x_1", "add_1", "sub"]
    assert all(result.error(name) <= 1e-5 and result.folded_error(name) <= 1e-4 for name in names)


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    """Keras goes by suffixes, infold by content."""
    model = keras.Sequential([keras.Input((4,), name="x"), kl.Dense(3, name="dense"), norm("bn")])
    path = save(model, tmp_path / "model.h5")
    found = convert(path.rename(tmp_path / "model.weights-and-all"))
    assert found.error("bn") <= 1e-5


# -- the user's own code --------------------------------------------------------------------------


def test_a_model_written_as_a_class(own: Any, tmp_path: Path) -> None:
    """Inputs by the keys of its dictionary; layers of one name are told apart by a number."""
    model = own.Block(name="mine")
    rows = np.zeros((2, 3), np.float32)
    model({"left": rows, "right": rows})
    path = save(model, tmp_path / "class.keras")
    result = convert(path, custom_objects=("own_layers:Block",))
    assert [value.name for value in result.source.proto.graph.output] == ["left_1", "sum"]
    assert result.dims("left") == ["batch", 3] and result.dims("sum") == ["batch", 4]
    assert list(result.outcomes) == ["bn", "bn#2"]
    assert result.error("sum") <= 1e-5 and result.folded_error("left_1") <= 1e-4
    assert result.framework.notes[0].startswith("the model runs 'bn#2' in training mode")


def pair(make: Any, folder: Path) -> Path:
    """A model of two arguments, the second of which is whole numbers."""
    model = make(name="pair")
    model(np.zeros((2, 3), np.float32), np.zeros((2, 1), np.int32))
    return save(model, folder / "pair.keras")


def test_samples_say_what_a_class_does_not(own: Any, tmp_path: Path) -> None:
    """Of what type its arguments are."""
    path = pair(own.Pair, tmp_path)
    rows = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows, place=np.arange(5, dtype=np.int32).reshape(5, 1) % 4)
    result = convert(path, custom_objects=("own_layers:Pair",), samples=tmp_path / "rows.npz")
    assert result.dims("x") == ["batch", 3] and result.dims("place") == ["batch", 1]
    assert result.framework.answer.outputs["output"].shape == (5, 4)
    assert result.error("output") <= 1e-5 and result.folded_error("output") <= 1e-4


def test_layers_behind_one_that_trains_are_not_told_of(tmp_path: Path) -> None:
    """Keras hands a layer's wish on to those after it, and saves augmentation with a wish of its own."""
    image = keras.Input((6, 6, 3), name="image")
    y = kl.RandomFlip(name="flip")(image)
    y = norm("bn1")(y)
    y = norm("bn2")(y, training=True)
    y = kl.Dropout(0.5, name="drop")(norm("bn3")(kl.Conv2D(4, 3, name="conv")(y)))
    path = tmp_path / "net.keras"
    keras.Model(image, y).save(path)
    with open_source(path) as source:
        assert source.framework is not None
        (note,) = (each for each in source.framework.notes if "training mode" in each)
    assert "the model runs 'bn2' in training mode" in note


def test_a_model_that_trains_unless_told_otherwise(own: Any, tmp_path: Path) -> None:
    """`training=True` as its call's default."""
    model = own.Trainer()
    model(np.zeros((2, 3), np.float32), training=False)
    result = convert(save(model, tmp_path / "trainer.keras"), custom_objects=("own_layers:Trainer",))
    assert result.framework.notes[0].startswith("the model runs itself in training mode")
    assert result.error("output") <= 1e-5


def test_layers_and_functions_of_the_users_own(own: Any, tmp_path: Path) -> None:
    """Registered or not; a Lambda of a named function is no code in the file."""
    layers = [
        keras.Input((4,), name="x"),
        own.Scaled(name="scaled"),
        kl.Dense(3, activation=own.tripled, name="dense"),
        norm("bn"),
        kl.Lambda(own.tripled, name="tripled"),
    ]
    path = save(keras.Sequential(layers), tmp_path / "own.keras")
    result = convert(path, custom_objects=("own_layers:Scaled", "own_layers:tripled"))
    assert result.error("tripled") <= 1e-5


def test_a_class_is_found_by_its_bare_name_where_the_file_gives_a_registered_one(
    own: Any, tmp_path: Path
) -> None:
    """Code that was registered when it was saved, and is given without its decorator now."""
    model = keras.Sequential([keras.Input((4,), name="x"), own.Scaled(name="scaled"), norm("bn")])
    path = save(model, tmp_path / "own.keras")
    code = OWN_CODE.replace('@keras.saving.register_keras_serializable("shop")\n', "")
    (tmp_path / "bare_layers.py").write_text(code, encoding="utf-8")
    result = convert(path, custom_objects=("bare_layers:Scaled",))
    assert result.error("bn") <= 1e-5


def test_a_lambda_runs_if_the_user_trusts_it(tmp_path: Path) -> None:
    """With --unsafe."""
    layers = [keras.Input((4,), name="x"), norm("bn"), kl.Lambda(lambda x: 2.0 * x, name="twice")]
    result = convert(save(keras.Sequential(layers), tmp_path / "lambda.keras"), unsafe=True)
    assert result.error("twice") <= 1e-5


def test_what_only_tensorflow_runs_goes_through_tensorflow(own: Any, tmp_path: Path) -> None:
    """A layer that calls TensorFlow: same names, same norms, nothing folded on the way."""
    image = keras.Input((8, 8, 3), name="image")
    y = norm("bn")(kl.Conv2D(4, 3, name="conv")(image))
    y = own.ByTensorFlow(name="six")(y)
    model = keras.Model(image, {"b": norm("bn2")(kl.Conv2D(4, 3, name="conv2")(y)), "a": y})
    path = save(model, tmp_path / "mixed.keras")
    result = convert(path, custom_objects=("own_layers:ByTensorFlow",))
    assert "tensorflow" in result.framework.name
    assert {value.name for value in result.source.proto.graph.output} == {"a", "b"}
    assert result.dims("image") == ["batch", 8, 8, 3]
    assert all(result.error(name) <= 1e-5 and result.folded_error(name) <= 1e-4 for name in "ab")
    assert result.outcomes == {"bn": [Outcome.FOLDED], "bn2": [Outcome.FOLDED]}


def test_a_batch_that_the_model_fixes_is_told(own: Any, tmp_path: Path) -> None:
    """A layer that writes the batch into its shapes."""
    x = keras.Input(batch_shape=(4, 2, 3), name="x")
    path = save(keras.Model(x, norm("bn")(own.FixedBatch(name="flat")(x))), tmp_path / "fixed.keras")
    result = convert(path, custom_objects=("own_layers:FixedBatch",))
    assert result.dims("x") == [4, 2, 3]
    (note,) = result.framework.notes
    assert note.startswith("the batch of input 'x' is fixed at 4")
    assert result.error("bn") <= 1e-5


def recurrent(path: Path, length: int | None = None, **options: Any) -> Path:
    """Words to numbers; PyTorch unrolls such a layer over time, and fixes the batch if it masks."""
    words = keras.Input((length,), name="words", dtype="int32")
    y = norm("bn")(kl.LSTM(4, name="lstm")(kl.Embedding(9, 3, name="embed", **options)(words)))
    return save(keras.Model(words, kl.Dense(2, name="dense")(y)), path)


@pytest.mark.skipif(find_spec("tf2onnx") is None, reason="goes through TensorFlow")
@pytest.mark.parametrize(("length", "options"), [(None, {}), (5, {"mask_zero": True})])
def test_what_pytorch_fixes_is_left_open_by_way_of_tensorflow(
    tmp_path: Path, length: int | None, options: dict[str, Any]
) -> None:
    """Open time and batch axes take any length after the export, and answer right."""
    path = recurrent(tmp_path / "recurrent.keras", length, **options)
    result = convert(path)
    assert "tensorflow" in result.framework.name and result.framework.notes == ()
    assert result.dims("words") == ["batch", length or "words_1"]
    original = keras.saving.load_model(path)
    for rows, steps in ((1, length or 7), (5, length or 30)):
        words = np.random.default_rng(rows).integers(0, 9, (rows, steps)).astype(np.int32)
        want = original.predict(words, verbose=0)
        assert difference(all_values(result.source.proto, {"words": words})["dense"], want) <= 1e-5


@pytest.mark.skipif(find_spec("tf2onnx") is None, reason="goes through TensorFlow")
def test_samples_of_more_rows_than_pytorch_fixes(tmp_path: Path) -> None:
    """They do not fit the export with a fixed batch; they fit the model."""
    words = np.random.default_rng(1).integers(0, 9, (11, 5)).astype(np.int32)
    np.savez(tmp_path / "words.npz", words=words)
    result = convert(
        recurrent(tmp_path / "recurrent.keras", 5, mask_zero=True), samples=tmp_path / "words.npz"
    )
    assert result.dims("words") == ["batch", 5] and result.error("dense") <= 1e-5


@pytest.mark.skipif(keras.config.backend() != "torch", reason="asks what PyTorch alone can do")
@pytest.mark.filterwarnings("default")  # the exporter's own, elsewhere in a process of its own
@pytest.mark.parametrize(
    ("length", "options", "dims", "told"),
    [
        (None, {}, ["words_0", 16], "axis 1 of input 'words' is fixed at 16"),
        (5, {"mask_zero": True}, [8, 5], "the batch of input 'words' is fixed at 8"),
    ],
)
def test_what_pytorch_fixes_is_told_without_tensorflow(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    length: int | None,
    options: dict[str, Any],
    dims: list[Any],
    told: str,
) -> None:
    """A length that the unrolled graph holds is no open axis."""
    path = recurrent(tmp_path / "recurrent.keras", length, **options)
    monkeypatch.setattr("infold.convert.frontends.keras.find_spec", lambda _name: None)
    exported = open_model(Request(str(path), Format.KERAS, Options()))
    shape = exported.proto.graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == dims
    assert exported.notes[0].startswith(told)
    assert "pip install 'infold[tensorflow]'" in exported.notes[1] and exported.elsewhere is None


# -- bad input ------------------------------------------------------------------------------------


def refusal(path: Path, **options: Any) -> str:
    """What is said of a file that is refused before anything is exported; in this process."""
    shapes = options.pop("shapes", {})
    with pytest.raises(SourceError) as caught:
        open_model(Request(str(path), Format.KERAS, Options(**options), shapes=shapes))
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) - len(str(path)) < 500
    return caught.value.detail


def small(*layers: Any) -> Any:
    """A model of four numbers."""
    return keras.Sequential([keras.Input((4,), name="x"), norm("bn"), *layers])


def test_a_damaged_archive(tmp_path: Path) -> None:
    """Cut short, or with wrong bytes in it."""
    path = save(small(), tmp_path / "model.keras")
    content = bytearray(path.read_bytes())
    short = tmp_path / "short.keras"
    short.write_bytes(content[:1000])
    with pytest.raises(SourceError, match="damaged archive"), open_source(short):
        pass
    weights = content.index(b"\x89HDF")
    content[weights + 200] ^= 255
    path.write_bytes(content)
    assert "does not match its checksum" in refusal(path)


def test_a_damaged_h5(tmp_path: Path) -> None:
    """Cut short."""
    path = save(small(), tmp_path / "model.h5")
    path.write_bytes(path.read_bytes()[:3000])
    assert "not a Keras file, or a damaged one" in refusal(path)


def test_an_archive_with_a_broken_configuration(tmp_path: Path) -> None:
    """No JSON in it."""
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{")
        archive.writestr("model.weights.h5", b"")
    assert "not a Keras file, or a damaged one" in refusal(path)


def test_weights_without_their_network(tmp_path: Path) -> None:
    """As `save_weights` writes them."""
    path = tmp_path / "model.weights.h5"
    small().save_weights(path)
    assert "weights without their network; save the whole model" in refusal(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_layer_of_the_users_own_that_was_not_named(own: Any, tmp_path: Path, suffix: str) -> None:
    """Says which layer, which class, and the flag."""
    path = save(small(own.Determinant(name="mine")), tmp_path / f"model{suffix}")
    detail = refusal(path)
    assert "layer 'mine' is of class 'Determinant'" in detail
    assert "--custom-objects package.module:Determinant" in detail


def test_a_function_of_the_users_own_that_was_not_named(own: Any, tmp_path: Path) -> None:
    """An activation."""
    path = save(small(kl.Dense(3, activation=own.tripled, name="dense")), tmp_path / "model.keras")
    detail = refusal(path)
    assert "layer 'dense' uses 'tripled'" in detail and "--custom-objects package.module:tripled" in detail


@pytest.mark.parametrize("name", ["nowhere:Thing", "own_layers:Thing", "own_layers", "own_layers:"])
def test_custom_objects_that_are_not_there(own: Any, tmp_path: Path, name: str) -> None:
    """A wrong module, a wrong attribute, or no attribute."""
    path = save(small(), tmp_path / "model.keras")
    assert refusal(path, custom_objects=(name,)).startswith(f"--custom-objects {name}: ")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_refused_without_unsafe(tmp_path: Path, suffix: str) -> None:
    """Its code lies in the file: the message says what that means."""
    path = save(small(kl.Lambda(lambda x: 2.0 * x, name="twice")), tmp_path / f"model{suffix}")
    detail = refusal(path)
    assert detail.startswith("layer 'twice' holds a Python lambda: code from inside the file would run here")
    assert "--unsafe" in detail


def test_a_lambda_of_keras_2_is_refused_without_unsafe(tmp_path: Path) -> None:
    """Which kept its code as a list."""
    path = save(small(kl.Lambda(lambda x: 2.0 * x, name="twice")), tmp_path / "model.h5")
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][-1]["config"]["function"] = ["4wEAAAAA", None, None]
        file.attrs["model_config"] = json.dumps(config)
    assert "layer 'twice' is a Lambda: code from inside the file" in refusal(path)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="such a layer is made on PyTorch only")
def test_a_pickled_torch_module_is_refused_without_unsafe(tmp_path: Path) -> None:
    """A layer around a PyTorch module keeps it as a pickle."""
    import torch

    path = save(small(kl.TorchModuleWrapper(torch.nn.Linear(4, 3), name="linear")), tmp_path / "model.keras")
    assert "layer 'linear' is a pickled PyTorch module" in refusal(path)


def test_a_file_of_keras_2_that_keras_3_cannot_read(tmp_path: Path) -> None:
    """The remedy goes through a SavedModel."""
    path = save(small(), tmp_path / "model.h5")
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][-1]["config"]["virtual_batch_size"] = 4
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
    detail = refusal(path)
    assert detail.startswith("was saved by Keras 2.15.0 in a form that Keras 3 cannot read")
    assert "virtual_batch_size" in detail and "SavedModel" in detail


def test_an_archive_of_keras_2(tmp_path: Path) -> None:
    """Its classes had other places; nothing in it is the user's own."""
    path = save(small(), tmp_path / "model.keras")
    rewrite(path, lambda config: {**config, "module": "keras.src.engine.sequential"})
    rewrite(path, lambda metadata: {**metadata, "keras_version": "2.15.0"}, "metadata.json")
    assert refusal(path).startswith("was saved by Keras 2.15.0 in a form that Keras 3 cannot read")


def test_a_file_of_another_keras_3(tmp_path: Path) -> None:
    """Both versions are told where loading fails."""
    path = save(small(kl.Dense(3, name="dense")), tmp_path / "model.keras")
    rewrite(
        path, lambda config: json.loads(json.dumps(config).replace('"units": 3', '"units": 3, "gates": 2'))
    )
    detail = refusal(path)
    assert f"saved by Keras {keras.__version__}, read by {keras.__version__}" in detail and "gates" in detail


def test_an_operation_that_h5_cannot_give_back(tmp_path: Path) -> None:
    """Keras writes such a file and then cannot read it."""
    x = keras.Input((4,), name="x")
    path = save(keras.Model(x, norm("bn")(keras.ops.not_equal(x, 0.0))), tmp_path / "model.h5")
    assert "(NotEqual) is an operation" in refusal(path) and "save the model as .keras" in refusal(path)


def test_text_is_no_input(tmp_path: Path) -> None:
    """ONNX knows strings, folding does not."""
    layers = [keras.Input((1,), dtype="string", name="words"), kl.Flatten()]
    path = tmp_path / "model.keras"
    keras.Sequential(layers).save(path)
    assert "input 'words' takes string" in refusal(path)


def test_sparse_tensors_are_no_input(tmp_path: Path) -> None:
    """ONNX has none."""
    path = save(small(), tmp_path / "model.keras")
    rewrite(path, lambda config: json.loads(json.dumps(config).replace('"sparse": false', '"sparse": true')))
    assert "input 'x' is sparse" in refusal(path)


def test_a_class_that_never_saw_data(own: Any, tmp_path: Path) -> None:
    """Keras would give it new random weights without a word."""
    path = tmp_path / "model.keras"
    with pytest.warns(UserWarning, match="has not yet been built"):
        own.Trainer(name="trainer").save(path)
    detail = refusal(path, custom_objects=("own_layers:Trainer",))
    assert "holds no weights; call the model once, then save it" in detail


def test_a_class_that_keras_cannot_build_again(own: Any, tmp_path: Path) -> None:
    """Of several arguments Keras keeps one shape, then loads no weights, and only warns."""
    path = pair(own.Bare, tmp_path)
    with pytest.raises(SourceError) as caught:
        convert(path, custom_objects=("own_layers:Bare",), shapes={"place": (2, 1)})
    assert "came without its weights: Keras could not build it while loading" in caught.value.detail


def test_an_input_of_unknown_shape(own: Any, tmp_path: Path) -> None:
    """The flag that tells it is named."""
    model = own.Secretive(name="secretive")
    model(np.zeros((2, 3), np.float32), training=False)
    path = save(model, tmp_path / "model.keras")
    detail = refusal(path, custom_objects=("own_layers:Secretive",))
    assert "does not say what shape its input 'inputs' has; give it as --shape inputs=N" in detail
    result = convert(path, custom_objects=("own_layers:Secretive",), shapes={"": (2, 3)})
    assert result.dims("inputs") == ["batch", 3]
    assert result.error("output") <= 1e-5


def test_a_shape_for_no_input(tmp_path: Path) -> None:
    """Names the inputs there are."""
    path = save(small(), tmp_path / "model.keras")
    with pytest.raises(InfoldError, match="the model has no such input; it has x"):
        open_model(Request(str(path), Format.KERAS, shapes={"y": (1, 4)}))


def test_noise_at_inference_is_refused(own: Any, tmp_path: Path) -> None:
    """Two calls give two answers: nothing could be proven."""
    path = save(small(own.Noisy(name="noisy")), tmp_path / "model.keras")
    detail = refusal(path, custom_objects=("own_layers:Noisy",))
    assert detail.startswith("layer 'noisy' gives other numbers on each call")


def test_an_operator_that_no_exporter_has(own: Any, tmp_path: Path) -> None:
    """Both ways are tried; the layer is named."""
    path = save(small(own.Determinant(name="mine")), tmp_path / "model.keras")
    with pytest.raises(SourceError) as caught:
        convert(path, custom_objects=("own_layers:Determinant",))
    assert "on torch: layer 'mine': ONNX, or its exporter, has no operator like" in str(caught.value)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="asks what PyTorch alone can do")
def test_without_tensorflow_the_extra_is_named(
    own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that only TensorFlow runs, where it is not installed."""
    path = save(small(own.ByTensorFlow(name="six"), kl.Dense(3, name="dense")), tmp_path / "model.keras")
    monkeypatch.setattr("infold.convert.frontends.keras.find_spec", lambda _name: None)
    detail = refusal(path, custom_objects=("own_layers:ByTensorFlow",))
    assert "layer 'six'" in detail and "pip install 'infold[tensorflow]'" in detail
