"""TF Serving's REST dialect as its documentation has it: status, metadata, predict, labels, binary values.

Source: TensorFlow Serving, RESTful API.
"""

import base64
from collections.abc import Iterator

import httpx
import pytest

from servers import Server

ROW = [1, 2, 3, 4]


# -- status ---------------------------------------------------------------------------------------


def test_status_lists_every_version(http: httpx.Client) -> None:
    """Newest first, with state and error of each."""
    status = http.get("/v1/models/times").json()
    assert status["model_version_status"] == [
        {"version": number, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for number in ("2", "1")
    ]


def test_status_says_name_and_readiness_too(http: httpx.Client) -> None:
    """What KServe's form of this dialect adds."""
    status = http.get("/v1/models/times").json()
    assert (status["name"], status["ready"]) == ("times", True)


def test_status_of_one_version(http: httpx.Client) -> None:
    """The same form with one entry."""
    status = http.get("/v1/models/times/versions/1").json()
    assert [each["version"] for each in status["model_version_status"]] == ["1"]
    assert status["model_version_status"][0]["state"] == "AVAILABLE"


@pytest.mark.parametrize("path", ["/v1/models/nobody", "/v1/models/times/versions/9"])
def test_status_of_what_is_not_there_is_404(http: httpx.Client, path: str) -> None:
    """In words."""
    answer = http.get(path)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


# -- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/versions/2"])
def test_metadata_is_the_signature_of_the_newest_version(http: httpx.Client, path: str) -> None:
    """In TensorFlow's words: DT_FLOAT, dim, serving_default."""
    told = http.get(f"/v1/models/times{path}/metadata").json()
    assert told["model_spec"] == {"name": "times", "signature_name": "", "version": "2"}
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    for side, name in (("inputs", "x"), ("outputs", "y")):
        tensor = signature[side][name]
        assert tensor["dtype"] == "DT_FLOAT"
        assert [each["size"] for each in tensor["tensor_shape"]["dim"]] == ["-1", "4"]
        assert tensor["tensor_shape"]["unknown_rank"] is False


@pytest.mark.parametrize(
    ("datatype", "kind"),
    [
        ("bool", "DT_BOOL"), ("uint8", "DT_UINT8"), ("uint16", "DT_UINT16"), ("uint32", "DT_UINT32"),
        ("uint64", "DT_UINT64"), ("int8", "DT_INT8"), ("int16", "DT_INT16"), ("int32", "DT_INT32"),
        ("int64", "DT_INT64"), ("fp16", "DT_HALF"), ("fp32", "DT_FLOAT"), ("fp64", "DT_DOUBLE"),
        ("bytes", "DT_STRING"),
    ],
)  # fmt: skip
def test_metadata_names_every_datatype(http: httpx.Client, datatype: str, kind: str) -> None:
    """As TensorFlow does."""
    told = http.get(f"/v1/models/echo_{datatype}/metadata").json()
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == signature["outputs"]["y"]["dtype"] == kind


@pytest.mark.parametrize("path", ["/v1/models/nobody/metadata", "/v1/models/times/versions/9/metadata"])
def test_metadata_of_what_is_not_there_is_404(http: httpx.Client, path: str) -> None:
    """In words."""
    answer = http.get(path)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


# -- predict --------------------------------------------------------------------------------------


def test_rows_are_answered_in_rows(http: httpx.Client) -> None:
    """`instances` of the only input, `predictions` of the only output."""
    answer = http.post("/v1/models/times:predict", json={"instances": [ROW, ROW]}).json()
    assert answer == {"predictions": [[3, 6, 9, 12]] * 2}


def test_columns_are_answered_in_columns(http: httpx.Client) -> None:
    """`inputs`, with or without the input's name, `outputs` without it."""
    for inputs in ([ROW], {"x": [ROW]}):
        answer = http.post("/v1/models/times:predict", json={"inputs": inputs}).json()
        assert answer == {"outputs": [[3, 6, 9, 12]]}


def test_several_inputs_and_outputs_go_by_name(http: httpx.Client) -> None:
    """A list of objects in rows, an object of lists in columns."""
    rows = [{"a": [1, 2], "b": [10, 20]}, {"a": [3, 4], "b": [30, 40]}]
    answer = http.post("/v1/models/pair:predict", json={"instances": rows}).json()
    assert answer["predictions"] == [
        {"total": [11, 22], "same": [10, 20]},
        {"total": [33, 44], "same": [30, 40]},
    ]
    columns = {"a": [[1, 2], [3, 4]], "b": [[10, 20], [30, 40]]}
    answer = http.post("/v1/models/pair:predict", json={"inputs": columns}).json()
    assert answer["outputs"] == {"total": [[11, 22], [33, 44]], "same": [[10, 20], [30, 40]]}


def test_the_rows_of_one_named_input_may_be_objects(http: httpx.Client) -> None:
    """As they must be where there are several."""
    answer = http.post("/v1/models/times:predict", json={"instances": [{"x": ROW}]}).json()
    assert answer == {"predictions": [[3, 6, 9, 12]]}


def test_rows_may_be_single_values(http: httpx.Client) -> None:
    """Where a row of the input has no axes."""
    answer = http.post("/v1/models/lookup:predict", json={"instances": [2, 0]}).json()
    assert answer == {"predictions": [30, 10]}


def test_predict_of_one_version(http: httpx.Client) -> None:
    """Each computes its own."""
    for number, factor in ((1, 2), (2, 3)):
        answer = http.post(f"/v1/models/times/versions/{number}:predict", json={"instances": [ROW]}).json()
        assert answer["predictions"][0][0] == factor


def test_the_only_signature_is_serving_default(http: httpx.Client) -> None:
    """It may be named; another name is a mistake and not another computation."""
    request = {"signature_name": "serving_default", "instances": [ROW]}
    assert http.post("/v1/models/times:predict", json=request).json() == {"predictions": [[3, 6, 9, 12]]}
    answer = http.post("/v1/models/times:predict", json={**request, "signature_name": "train"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("signature_name: ")
    assert "'train'" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": [ROW], "inputs": [ROW]},
        {"instances": [[1, 2, 3]]},
        {"instances": [["1", 2, 3, 4]]},
        {"instances": [{"y": ROW}]},
        {"inputs": {"x": [ROW], "z": [ROW]}},
    ],
    ids=["neither", "both", "wrong length", "wrong type", "unknown input in rows", "unknown in columns"],
)
def test_a_mistake_in_predict_is_400_in_words(http: httpx.Client, body: object) -> None:
    """`{"error": ...}` and nothing else."""
    answer = http.post("/v1/models/times:predict", json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert answer.json()["error"]


@pytest.mark.parametrize("path", ["nobody", "times/versions/9", "times/versions/newest"])
def test_predict_of_what_is_not_there_is_404(http: httpx.Client, path: str) -> None:
    """In words."""
    answer = http.post(f"/v1/models/{path}:predict", json={"instances": [ROW]})
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


# -- binary values --------------------------------------------------------------------------------

TEXTS = ["", "plain", "zwölf", "a\u0000b"]


def packed(text: bytes) -> dict[str, str]:
    """A value as TF Serving takes bytes."""
    return {"b64": base64.b64encode(text).decode()}


def test_base64_values_are_strings_of_their_bytes(http: httpx.Client) -> None:
    """In rows, in rows of objects and in columns, among plain strings too."""
    wrapped = [packed(each.encode()) for each in TEXTS]
    for instances in ([wrapped], [{"x": wrapped}], [[TEXTS[0], *wrapped[1:]]]):
        answer = http.post("/v1/models/echo_bytes:predict", json={"instances": instances})
        assert answer.json() == {"predictions": [TEXTS]}
    for inputs in ([wrapped], {"x": [wrapped]}):
        answer = http.post("/v1/models/echo_bytes:predict", json={"inputs": inputs})
        assert answer.json() == {"outputs": [TEXTS]}


@pytest.mark.parametrize(
    ("value", "reason"), [(packed(b"\xff\xfe"), "UTF-8"), ({"b64": "no!"}, "base64"), ({"b64": 7}, "base64")]
)
def test_base64_that_is_no_text_is_told_by_its_place(http: httpx.Client, value: object, reason: str) -> None:
    """Not base64, or not UTF-8."""
    answer = http.post("/v1/models/echo_bytes:predict", json={"instances": [["ok", value]]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("instances[0][1]: ")
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("value", [{"b64": "", "more": 1}, {"hex": "00"}, {}, 7, ["deeper"]])
def test_what_is_neither_a_string_nor_base64_is_told_by_its_place(http: httpx.Client, value: object) -> None:
    """No other form stands for a string."""
    answer = http.post("/v1/models/echo_bytes:predict", json={"instances": [["ok", value]]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("instances[0][1]")


def test_base64_is_no_number(http: httpx.Client) -> None:
    """Only strings come so."""
    answer = http.post("/v1/models/times:predict", json={"inputs": [[packed(b"1"), 2, 3, 4]]})
    assert answer.status_code == 400


# -- labels ---------------------------------------------------------------------------------------


@pytest.fixture
def labelled(labelled_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=labelled_server.url, timeout=30) as client:
        yield client


def test_predict_of_a_label_is_predict_of_its_version(labelled: httpx.Client) -> None:
    """`stable` is version 1, `canary` is version 2."""
    for label, factor in (("stable", 2), ("canary", 3)):
        answer = labelled.post(f"/v1/models/times/labels/{label}:predict", json={"instances": [ROW]})
        assert answer.json()["predictions"][0][0] == factor


def test_status_and_metadata_of_a_label_are_those_of_its_version(labelled: httpx.Client) -> None:
    """Under the version's number."""
    status = labelled.get("/v1/models/times/labels/stable").json()
    assert [each["version"] for each in status["model_version_status"]] == ["1"]
    told = labelled.get("/v1/models/times/labels/canary/metadata").json()
    assert told["model_spec"]["version"] == "2"


def test_a_label_that_nobody_gave_is_404(labelled: httpx.Client) -> None:
    """The answer names it."""
    for answer in (
        labelled.post("/v1/models/times/labels/beta:predict", json={"instances": [ROW]}),
        labelled.get("/v1/models/times/labels/beta"),
        labelled.get("/v1/models/times/labels/beta/metadata"),
    ):
        assert answer.status_code == 404
        assert "beta" in answer.json()["error"]


def test_a_label_leaves_numbers_as_they_are(labelled: httpx.Client) -> None:
    """Both kinds of address work beside each other."""
    answer = labelled.post("/v1/models/times/versions/1:predict", json={"instances": [ROW]})
    assert answer.json()["predictions"][0][0] == 2
    assert labelled.post("/v1/models/times:predict", json={"instances": [ROW]}).status_code == 200
