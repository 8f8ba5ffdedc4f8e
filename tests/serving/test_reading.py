"""What `[image]` and `[classification]` come to once a model is loaded, and what is wrong with them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphs import model
from infold.errors import InvalidInputError
from infold.runtime import Cache, Device, ImageInput, Placement
from infold.serving import ModelManager, ModelRepository, Reading, Servable, State
from infold.serving.classes import softmax
from infold.tensors import Array, TensorSpec
from pictures import encoded, noise

SCORES = """g (float[N, 1, 2, 3] x) => (float[N, 3] y, float[N, 2] z)
    { y = ReduceMax<axes = [1, 2], keepdims = 0>(x)  z = ReduceMax<axes = [1, 3], keepdims = 0>(x) }"""
IMAGE = '[image]\ncolour = "L"\nlayout = "NCHW"\n'
CLASSES = '[classification]\nlabels = "labels.txt"\n'
LABELS = "cat\ndog\nhen\n"
TRITON = """max_batch_size: 8
    output { name: "y" data_type: TYPE_FP32 dims: [3] label_filename: "animals.txt" }"""


# -- classes ---------------------------------------------------------------------------------------


def test_every_row_has_its_classes_with_their_labels() -> None:
    """The largest first; an output that has no labels has only indices."""
    reading = Reading(class_output="y", labels={"y": ("cat", "dog")})
    scores = np.array([[0.25, 0.5, 0.125], [3, 2, 4]], np.float32)
    assert reading.classes("y", scores, 2) == [
        [(0.5, 1, "dog"), (0.25, 0, "cat")],
        [(4, 2, None), (3, 0, "cat")],
    ]
    assert reading.classes("z", scores, 1) == [[(0.5, 1, None)], [(4, 2, None)]]
    strings = reading.class_strings("y", scores, 2)
    assert strings.dtype == object
    assert strings.tolist() == [["0.5:1:dog", "0.25:0:cat"], ["4.0:2", "3.0:0:cat"]]


def test_only_the_output_that_holds_logits_becomes_probabilities() -> None:
    """The other is told as it is."""
    reading = Reading(class_output="y", is_logits=True)
    scores = np.array([[1, 3, 2]], np.float32)
    ((best, *_),) = reading.classes("y", scores, 3)
    assert best == (float(str(softmax(scores)[0, 1])), 1, None)
    assert reading.classes("z", scores, 1) == [[(3, 1, None)]]
    assert Reading(class_output="y").classes("y", scores, 1) == [[(3, 1, None)]]


@given(hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64]), (2, 4)))
def test_scores_have_the_digits_that_their_type_has_in_json(scores: Array) -> None:
    """As a tensor of the same numbers would have them."""
    tensor = orjson.loads(orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY))
    for told, row in zip(Reading().classes("y", scores, 4), tensor, strict=True):
        for value, index, _ in told:
            assert value == row[index] or (row[index] is None and not math.isfinite(value))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_whole_numbers_are_told_in_full(dtype: type) -> None:
    """As no float could."""
    most = int(np.iinfo(dtype).max)
    scores = np.array([[1, most, most - 1]], dtype)
    assert Reading().classes("y", scores, 2) == [[(most, 1, None), (most - 1, 2, None)]]
    assert Reading().class_strings("y", scores, 2).tolist() == [[f"{most}:1", f"{most - 1}:2"]]


def test_truths_are_told_as_numbers() -> None:
    """Whether something is so ranks above whether it is not."""
    assert Reading().class_strings("y", np.array([[False, True]]), 2).tolist() == [["1:1", "0:0"]]


def test_an_output_of_one_number_a_row_has_one_class_a_row() -> None:
    """Its only axis is that of rows, not that of classes."""
    scores = np.array([0.5, 0.25, 0.75], np.float32)
    rows = [[(0.5, 0, None)], [(0.25, 0, None)], [(0.75, 0, None)]]
    assert Reading().classes("y", scores, 5) == rows
    assert Reading().class_strings("y", scores, 5).shape == (3, 1)
    logits = Reading(class_output="y", is_logits=True)
    assert logits.classes("y", scores, 5) == [[(1, 0, None)]] * 3


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1), (1, 3, 1)])
def test_without_rows_an_output_is_one_row(shape: tuple[int, ...]) -> None:
    """As Triton has it of models that are not batched: a list of strings, not of lists."""
    scores = np.array([1, 3, 2], np.float32).reshape(shape)
    reading = Reading(has_rows=False)
    assert reading.classes("y", scores, 2) == [[(3, 1, None), (2, 2, None)]]
    assert reading.class_strings("y", scores, 2).tolist() == ["3.0:1", "2.0:2"]


def test_rows_of_fixed_number_are_rows_of_the_output_that_holds_classes() -> None:
    """Two pictures at a time have two answers, though nothing can be joined."""
    reading = Reading(class_output="y", is_logits=True, has_rows=False, labels={"y": ("cat", "dog")})
    scores = np.array([[0, 90], [90, 0]], np.float32)
    assert reading.class_strings("y", scores, 1).tolist() == [["1.0:1:dog"], ["1.0:0:cat"]]
    assert reading.class_strings("z", scores, 1).tolist() == ["90.0:1"]
    flat = reading.class_strings("y", scores[0], 1)
    assert flat.tolist() == ["1.0:1:dog"]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,)])
def test_no_rows_or_no_classes_are_none(shape: tuple[int, ...]) -> None:
    """A request without rows has an answer without rows."""
    for has_rows in (True, False):
        strings = Reading(has_rows=has_rows).class_strings("y", np.zeros(shape, np.float32), 2)
        assert strings.size == 0


def test_nan_and_infinities_have_words() -> None:
    """Strings can say what JSON's numbers cannot."""
    strings = Reading().class_strings("y", np.array([[math.nan, math.inf, -math.inf]], np.float32), 3)
    assert strings.tolist() == [["inf:1", "-inf:2", "nan:0"]]


# -- pictures --------------------------------------------------------------------------------------


def test_only_the_input_that_pictures_are_for_takes_them() -> None:
    """By its name."""
    spec = TensorSpec("x", np.dtype(np.float32), ("n", 2, 3))
    reading = Reading(picture=spec, image=ImageInput(colour="L", layout="NHW"))
    assert reading.takes_pictures(spec)
    assert not reading.takes_pictures(TensorSpec("y", spec.dtype, spec.shape))
    assert not Reading().takes_pictures(spec)
    levels = noise(2, 3)
    np.testing.assert_array_equal(reading.tensor_of([encoded(levels)], str), levels[np.newaxis])
    with pytest.raises(InvalidInputError, match="^0: is empty$"):
        reading.tensor_of([b""], str)


# -- what is loaded --------------------------------------------------------------------------------


def put(root: Path, files: Mapping[str, str | bytes], text: str = SCORES) -> Path:
    """A model of one version, and its files."""
    folder = root / "m"
    (folder / "1").mkdir(parents=True)
    onnx.save(model(text), str(folder / "1/model.onnx"))
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def loaded(root: Path) -> Servable:
    """The one model there, loaded or failed."""

    async def load() -> Servable:
        manager = ModelManager(
            ModelRepository(root), Placement(Device.CPU, ""), cache=Cache(root.parent / "cache")
        )
        await manager.reconcile()
        (servable,) = manager.catalogue.versions("m")
        await manager.close()
        return servable

    return asyncio.run(load())


def reading(root: Path) -> Reading:
    servable = loaded(root)
    assert servable.state is not State.FAILED, servable.reason
    return servable.reading


def test_without_sections_there_are_no_pictures_and_no_classes(tmp_path: Path) -> None:
    """A request may still ask for the best of any output."""
    put(tmp_path / "models", {})
    found = reading(tmp_path / "models")
    assert (found.picture, found.class_output, found.labels, found.top) == (None, None, {}, 5)
    assert found.class_strings("y", np.array([[1, 2, 3]], np.float32), 1).tolist() == [["3.0:2"]]


def test_both_sections_come_to_what_they_say(tmp_path: Path) -> None:
    """The first output is the one that holds classes, unless another is named."""
    section = '[classification]\nlabels = "labels.txt"\nis_logits = true\ntop = 2\n'
    put(tmp_path / "models", {"model.toml": IMAGE + section, "labels.txt": LABELS})
    found = reading(tmp_path / "models")
    assert found.picture is not None
    assert (found.picture.name, found.class_output, found.top, found.is_logits) == ("x", "y", 2, True)
    assert found.labels == {"y": ("cat", "dog", "hen")}
    assert found.has_rows


def test_the_output_that_holds_classes_can_be_named(tmp_path: Path) -> None:
    """The labels are its own then."""
    section = '[classification]\noutput = "z"\nlabels = "labels.txt"\n'
    put(tmp_path / "models", {"model.toml": section, "labels.txt": "left\nright\n"})
    found = reading(tmp_path / "models")
    assert (found.class_output, found.labels) == ("z", {"z": ("left", "right")})


def test_labels_of_a_triton_configuration_are_those_of_its_outputs(tmp_path: Path) -> None:
    """With no model.toml at all."""
    put(tmp_path / "models", {"config.pbtxt": TRITON, "animals.txt": LABELS})
    found = reading(tmp_path / "models")
    assert (found.class_output, found.labels) == (None, {"y": ("cat", "dog", "hen")})


def test_model_toml_goes_before_a_triton_configuration(tmp_path: Path) -> None:
    """Where it names labels; where it does not, those of the other stay."""
    files = {"config.pbtxt": TRITON, "animals.txt": LABELS, "labels.txt": "a\nb\nc\n"}
    folder = put(tmp_path / "models", files | {"model.toml": "[classification]\ntop = 1\n"})
    found = reading(tmp_path / "models")
    assert (found.class_output, found.labels) == ("y", {"y": ("cat", "dog", "hen")})
    (folder / "model.toml").write_text('[classification]\nlabels = "labels.txt"\n')
    assert reading(tmp_path / "models").labels == {"y": ("a", "b", "c")}


def test_a_model_without_a_batch_axis_has_no_rows(tmp_path: Path) -> None:
    """Its classes are one list."""
    put(
        tmp_path / "models",
        {"model.toml": "[classification]\n"},
        "g (float[3] x) => (float[3] y) { y = Neg(x) }",
    )
    found = reading(tmp_path / "models")
    assert not found.has_rows
    assert found.class_strings("y", np.array([1, 3, 2], np.float32), 1).tolist() == ["3.0:1"]


@pytest.mark.parametrize(
    ("files", "place", "words"),
    [
        ({"model.toml": "[image]\n"}, "model.toml", "image.colour: C of NCHW becomes 3"),
        ({"model.toml": '[image]\ninput = "no"\n'}, "model.toml", "image.input: the model has no input 'no'"),
        ({"model.toml": IMAGE + "crop = [9, 3]\n"}, "model.toml", "image.crop: H of NCHW becomes 9"),
        ({"model.toml": '[classification]\noutput = "no"\n'}, "model.toml", "has no output 'no'"),
        (
            {"model.toml": CLASSES, "labels.txt": "cat\n"},
            "model.toml",
            "1 labels for 3 classes in output 'y'",
        ),
        ({"model.toml": CLASSES}, "labels.txt", "No such file"),
        ({"model.toml": CLASSES, "labels.txt": b"cat\n\xff\n"}, "labels.txt", "line 2: not valid UTF-8"),
        ({"model.toml": CLASSES, "labels.txt": "cat\n\nhen\n"}, "labels.txt", "line 2: holds no label"),
        ({"model.toml": '[classification]\nlabels = "1"\n'}, "1", "there is no such file"),
        ({"config.pbtxt": TRITON}, "animals.txt", "No such file"),
        ({"config.pbtxt": TRITON, "animals.txt": "\n\n"}, "animals.txt", "line 1: holds no label"),
    ],
)
def test_what_does_not_fit_fails_the_version_by_its_place(
    tmp_path: Path, files: Mapping[str, str | bytes], place: str, words: str
) -> None:
    """File, key or line, and what is wrong; not the first request has to find out."""
    folder = put(tmp_path / "models", files)
    servable = loaded(tmp_path / "models")
    assert servable.state is State.FAILED
    assert servable.reason.startswith(f"{folder / place}: ")
    assert words in servable.reason


def test_labels_that_lead_out_of_the_models_folder_are_not_read(tmp_path: Path) -> None:
    """By a link that whoever wrote the repository may not follow."""
    (tmp_path / "secret").write_text(LABELS)
    folder = put(tmp_path / "models", {"model.toml": '[classification]\nlabels = "labels.txt"\n'})
    (folder / "labels.txt").symlink_to(tmp_path / "secret")
    servable = loaded(tmp_path / "models")
    assert servable.state is State.FAILED
    assert "leads out of" in servable.reason
    assert "cat" not in servable.reason
