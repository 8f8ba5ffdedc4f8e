"""Reading answers and telling right from wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from infold.bench.answers import Judge, difference, read_answer
from infold.bench.outcomes import Kind, Outcomes
from infold.tensors import BFLOAT16


def v2(data: object, datatype: str = "FP32", shape: tuple[int, ...] = (2,)) -> bytes:
    output = {"name": "y", "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"model_name": "m", "id": "anything", "outputs": [output]}).encode()


def test_outputs_of_protocol_v2_are_read() -> None:
    """In the model's types; null is NaN; the request's id does not matter."""
    found = read_answer((None, v2([1.5, None])))
    assert list(found) == ["y"] and found["y"].dtype == np.float32
    assert found["y"][0] == 1.5 and np.isnan(found["y"][1])
    assert read_answer((None, v2(["a", "b"], "BYTES")))["y"].tolist() == ["a", "b"]


def test_outputs_of_the_binary_extension_are_read() -> None:
    """Raw tensors one behind the other, strings with lengths, and JSON data among them."""
    raws = [np.array([7, 8], "<i8").tobytes(), b"\x01\x00\x00\x00a\x02\x00\x00\x00bc"]
    outputs = [
        {"name": "n", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
        {"name": "j", "datatype": "BOOL", "shape": [1], "data": [True]},
        {"name": "s", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
    ]
    text = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    found = read_answer((len(text), text + b"".join(raws)))
    assert found["n"].tolist() == [7, 8] and found["j"].tolist() == [True]
    assert found["s"].tolist() == ["a", "bc"]


def test_other_answers_are_read_too() -> None:
    """TF-Serving's predictions as numbers, anything else as it is."""
    assert read_answer((None, b'{"predictions": [[1, 2]]}'))["predictions"].shape == (1, 2)
    assert read_answer((None, b"\xff\xd8"))["body"].tolist() == [255, 216]


@pytest.mark.parametrize("body", [v2([1]), v2([1, 2], "FP8"), b'{"model_name": "m", "outputs": [3]}'])
def test_an_answer_that_contradicts_itself_is_no_answer(body: bytes) -> None:
    """Too few numbers, an unknown type, no output at all."""
    with pytest.raises(ValueError, match="no answer of protocol v2"):
        read_answer((None, body))


def test_floats_may_differ_by_rounding_and_no_more() -> None:
    """A thousandth of the largest magnitude."""
    want = {"y": np.array([1.0, 100.0], np.float32)}
    assert difference(want, {"y": np.array([1.09, 100.0])}) is None
    assert "off by" in str(difference(want, {"y": np.array([1.2, 100.0])}))


def test_everything_else_must_be_equal() -> None:
    """Class numbers, text, shapes, names, where numbers are finite."""
    whole, text = np.array([1000, 2]), np.array(["a"], np.object_)
    assert difference({"y": whole}, {"y": np.array([1000, 1])}) == "'y' differs"
    assert difference({"y": text}, {"y": np.array(["b"], np.object_)}) == "'y' differs"
    assert "shape" in str(difference({"y": whole}, {"y": whole[:1]}))
    assert "holds z, not y" in str(difference({"y": whole}, {"z": whole}))
    nan = {"y": np.array([np.nan, 1.0])}
    assert difference(nan, {"y": np.array([np.inf, 1.0])}) is None
    assert "finite" in str(difference(nan, {"y": np.array([0.0, 1.0])}))


def test_scores_inside_text_may_differ_by_rounding_and_no_more() -> None:
    """Classes as strings or as JSON; their numbers and labels must be equal."""
    strings = [
        read_answer((None, v2(data, "BYTES")))
        for data in (["0.9:7:a", "1e-05:1"], ["0.90009:7:a", "2e-05:1"])
    ]
    assert difference(*strings) is None
    for other in (
        ["0.902:7:a", "1e-05:1"],
        ["0.9:8:a", "1e-05:1"],
        ["0.9:7:b", "1e-05:1"],
        ["0.9:7:a", "1:1"],
    ):
        assert difference(strings[0], read_answer((None, v2(other, "BYTES")))) is not None, other
    classes = '{"predictions": [{"classes": [{"index": %s, "score": %s}]}]}'
    want, near, far, wrong = (
        read_answer((None, (classes % each).encode()))
        for each in ((7, 0.9), (7, 0.90009), (7, 0.91), (8, 0.9))
    )
    assert difference(want, near) is None
    assert "off by" in str(difference(want, far))
    assert difference(want, wrong) == "'predictions' differs"


def test_a_wrong_answer_is_found_when_it_is_settled_and_at_once_when_seen_again() -> None:
    """Equal bytes are compared once."""
    judge, outcomes = Judge([{"y": np.array([1.0, 2.0])}]), Outcomes()
    for data in ([1, 2], [1, 3], [1, 2]):
        judge.see(outcomes, outcomes.add(0, 1, Kind.RIGHT), 0, (None, v2(data)))
    judge.settle()
    judge.see(outcomes, outcomes.add(0, 1, Kind.RIGHT), 0, (None, v2([1, 3])))
    assert list(outcomes.kinds) == [Kind.RIGHT, Kind.WRONG, Kind.RIGHT, Kind.WRONG]
    assert judge.first_wrong is not None and "request 1: 'y' is off by 1" in judge.first_wrong


def test_bfloat16_is_read_and_may_differ_by_a_step() -> None:
    """Sums in another order fall to the one or the other side; two steps are too much."""
    right = np.array([1.0, 256.0]).astype(BFLOAT16)
    raw = {"name": "y", "datatype": "BF16", "shape": [2], "parameters": {"binary_data_size": 4}}
    text = json.dumps({"model_name": "m", "outputs": [raw]}).encode()
    for answer in ((len(text), text + right.tobytes()), (None, v2([1, 256], "BF16"))):
        found = read_answer(answer)
        assert (found["y"].dtype, found["y"].tobytes()) == (BFLOAT16, right.tobytes())
    assert difference({"y": right}, {"y": np.array([1.0, 258.0]).astype(BFLOAT16)}) is None
    assert "off by" in str(difference({"y": right}, {"y": np.array([1.0, 260.0]).astype(BFLOAT16)}))
