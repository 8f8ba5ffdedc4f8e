"""TF-Serving's dialect: what names a signature, what describes a model, what tells its classes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from infold.errors import RequestError
from infold.rest.codec import DTYPES
from infold.rest.problems import error_body
from infold.rest.v1 import decode_predict, encode_classes, encode_predict, model_metadata, model_status
from infold.serving import ModelState, State
from infold.tensors import Signature, TensorSpec

FLOAT = np.dtype(np.float32)
ROWS = Signature((TensorSpec("x", FLOAT, ("n", 2)),), (TensorSpec("y", FLOAT, ("n", 2)),))


# -- signature_name --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['"serving_default"', '""', "null"])
def test_the_one_signature_may_be_named(name: str) -> None:
    """Or left open."""
    tensors, _ = decode_predict(b'{"signature_name": %s, "instances": [[1, 2]]}' % name.encode(), ROWS)
    assert tensors["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ('"train"', "signature_name: 'train' is not 'serving_default'"),
        ('"Serving_default"', "signature_name: 'Serving_default' is not "),
        ("7", "signature_name"),
        ('["serving_default"]', "signature_name"),
        (r'"\ud800"', ""),
    ],
)
def test_another_signature_is_refused(name: str, words: str) -> None:
    """In words that JSON can carry, whatever the name is."""
    with pytest.raises(RequestError) as caught:
        decode_predict(b'{"signature_name": %s, "instances": [[1, 2]]}' % name.encode(), ROWS)
    assert words in str(caught.value)
    assert json.loads(error_body(str(caught.value)))["error"] == str(caught.value)


# -- metadata and status ---------------------------------------------------------------------------


def test_every_datatype_has_tensorflows_name() -> None:
    """bfloat16 too, which TensorFlow calls DT_BFLOAT16."""
    told = {}
    for name, dtype in DTYPES.items():
        described = model_metadata("m", 1, Signature((TensorSpec("x", dtype, ("n",)),), ()))
        signature = described["metadata"]["signature_def"]["signature_def"]["serving_default"]
        told[name] = signature["inputs"]["x"]["dtype"]
    assert told == {
        "BOOL": "DT_BOOL", "BYTES": "DT_STRING", "FP16": "DT_HALF", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE",
        "BF16": "DT_BFLOAT16", "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32",
        "INT64": "DT_INT64",
        "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    }  # fmt: skip


def test_metadata_has_the_form_of_a_signature_def() -> None:
    """Numbers as strings, -1 for what is open, a rank that is not known said to be so."""
    specs = (
        TensorSpec("x", FLOAT, ("n", 3, None)),
        TensorSpec("any", FLOAT, None),
        TensorSpec("one", FLOAT, ()),
    )
    described = model_metadata("m", 7, Signature(specs[:1], specs[1:]))
    assert described["model_spec"] == {"name": "m", "signature_name": "", "version": "7"}
    assert described["metadata"]["signature_def"]["signature_def"] == {
        "serving_default": {
            "inputs": {
                "x": {
                    "dtype": "DT_FLOAT",
                    "tensor_shape": {
                        "dim": [{"size": each, "name": ""} for each in ("-1", "3", "-1")],
                        "unknown_rank": False,
                    },
                    "name": "x:0",
                }
            },
            "outputs": {
                "any": {
                    "dtype": "DT_FLOAT",
                    "tensor_shape": {"dim": [], "unknown_rank": True},
                    "name": "any:0",
                },
                "one": {
                    "dtype": "DT_FLOAT",
                    "tensor_shape": {"dim": [], "unknown_rank": False},
                    "name": "one:0",
                },
            },
            "method_name": "tensorflow/serving/predict",
        }
    }


def test_states_have_tensorflows_words() -> None:
    """A version that failed says why; a model is ready where one version is."""
    states = [
        ModelState("m", number, state, "why" if state is State.FAILED else "")
        for number, state in enumerate(State, 1)
    ]
    status = model_status("m", states)
    told = {each["version"]: (each["state"], each["status"]) for each in status["model_version_status"]}
    fine = {"error_code": "OK", "error_message": ""}
    assert list(told) == ["5", "4", "3", "2", "1"]
    assert told["1"] == ("LOADING", fine)
    assert told["2"] == ("AVAILABLE", fine)
    assert told["3"] == ("UNLOADING", fine)
    assert told["4"] == ("END", fine)
    assert told["5"] == ("END", {"error_code": "UNKNOWN", "error_message": "why"})
    assert status["ready"] is True
    assert model_status("m", [each for each in states if each.state is not State.READY])["ready"] is False


# -- answers ---------------------------------------------------------------------------------------


def test_classes_have_index_score_and_perhaps_a_label() -> None:
    """A score that is no number is null."""
    rows = [[(0.75, 2, "hen"), (0.25, 0, None)], [(math.nan, 1, "dog")], []]
    assert json.loads(encode_classes(rows)) == {
        "predictions": [
            {"classes": [{"index": 2, "score": 0.75, "label": "hen"}, {"index": 0, "score": 0.25}]},
            {"classes": [{"index": 1, "score": None, "label": "dog"}]},
            {"classes": []},
        ]
    }
    assert json.loads(encode_classes([])) == {"predictions": []}


def test_rows_that_were_asked_for_and_are_none_are_refused() -> None:
    """Outputs of different lengths have no common rows; as columns they are told."""
    outputs = TensorSpec("y", FLOAT, ("n",)), TensorSpec("z", FLOAT, ("m",))
    results = {"y": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)}
    with pytest.raises(RequestError, match="^instances: the outputs have no common rows"):
        encode_predict(results, Signature((), outputs), in_rows=True)
    columns = json.loads(encode_predict(results, Signature((), outputs), in_rows=False))
    assert columns == {"outputs": {"y": [0, 0], "z": [0, 0, 0]}}
