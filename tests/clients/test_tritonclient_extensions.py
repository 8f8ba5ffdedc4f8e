"""Triton's extensions as its Python client asks for them.

Configuration, statistics, classification, and how long to wait; the repository is in
`test_tritonclient_repository`.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from clients.models import LABELS, ONNX_TYPES
from servers import Server


def given(name: str, array: np.ndarray, datatype: str = "FP32") -> InferInput:
    """An input of a request, as bytes."""
    return InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)


# -- configuration --------------------------------------------------------------------------------


def test_the_configuration_names_model_platform_and_backend(triton: InferenceServerClient) -> None:
    """What Triton's own tools look for."""
    told = triton.get_model_config("times")
    assert told["name"] == "times"
    assert (told["platform"], told["backend"]) == ("onnxruntime_onnx", "onnxruntime")


def test_the_configuration_leaves_the_batch_axis_out_of_dims(triton: InferenceServerClient) -> None:
    """And says with max_batch_size and dynamic_batching that there is one."""
    told = triton.get_model_config("peaks")
    (entry,), (result,) = told["input"], told["output"]
    assert (entry["name"], entry["data_type"], entry["dims"]) == ("x", "TYPE_FP32", [2, -1])
    assert (result["name"], result["data_type"], result["dims"]) == ("y", "TYPE_FP32", [-1])
    assert told["max_batch_size"] == 64
    assert isinstance(told["dynamic_batching"], dict)


def test_the_configuration_of_a_model_without_a_batch_axis(triton: InferenceServerClient) -> None:
    """max_batch_size 0 means that dims are all there is."""
    told = triton.get_model_config("table")
    assert (told["max_batch_size"], told["input"][0]["dims"]) == (0, [2, 3])
    assert "dynamic_batching" not in told


@pytest.mark.parametrize("datatype", [each for each in ONNX_TYPES if each != "BF16"])
def test_the_configuration_names_every_datatype(triton: InferenceServerClient, datatype: str) -> None:
    """As Triton's configuration does, where BYTES is TYPE_STRING."""
    told = triton.get_model_config(f"echo_{datatype.lower()}")
    wanted = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    assert told["input"][0]["data_type"] == told["output"][0]["data_type"] == wanted


def test_one_version_has_a_configuration_and_an_unknown_one_has_none(triton: InferenceServerClient) -> None:
    """404 in words for what is not there."""
    assert triton.get_model_config("times", "1")["name"] == "times"
    for arguments in (("nobody",), ("times", "9")):
        with pytest.raises(InferenceServerException, match=r"\[404\].* is not found"):
            triton.get_model_config(*arguments)


# -- statistics -----------------------------------------------------------------------------------

STAGES = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output"}


def counted(client: InferenceServerClient) -> dict[str, Any]:
    """Statistics of the model that nobody else asks."""
    (told,) = client.get_inference_statistics("counted")["model_stats"]
    assert isinstance(told, dict)
    return told


def test_statistics_count_requests_rows_and_runs(triton: InferenceServerClient) -> None:
    """Three rows in one request: one success, three inferences, one run."""
    before = counted(triton)
    for rows in (3, 1):
        triton.infer("counted", [given("x", np.ones((rows, 2), np.float32))])
    after = counted(triton)
    assert (after["name"], after["version"]) == ("counted", "1")
    assert after["inference_count"] - before["inference_count"] == 4
    assert after["execution_count"] - before["execution_count"] == 2
    spent = after["inference_stats"]
    assert spent["success"]["count"] - before["inference_stats"]["success"]["count"] == 2
    assert spent["fail"]["count"] == before["inference_stats"]["fail"]["count"]


def test_statistics_tell_how_often_and_how_long_of_each_stage(triton: InferenceServerClient) -> None:
    """In nanoseconds; perf_analyzer takes a request apart by them."""
    triton.infer("counted", [given("x", np.ones((1, 2), np.float32))])
    spent = counted(triton)["inference_stats"]
    assert set(spent) >= STAGES
    for stage in spent.values():
        assert isinstance(stage["count"], int)
        assert isinstance(stage["ns"], int)
    assert spent["compute_infer"]["count"] > 0
    assert spent["compute_infer"]["ns"] > 0
    assert spent["success"]["ns"] >= spent["compute_infer"]["ns"]


def test_statistics_tell_the_runs_of_each_size(triton: InferenceServerClient) -> None:
    """Sizes times runs are all the rows there were."""
    triton.infer("counted", [given("x", np.ones((5, 2), np.float32))])
    told = counted(triton)
    sizes = {each["batch_size"]: each["compute_infer"]["count"] for each in told["batch_stats"]}
    assert sizes[5] >= 1
    assert sum(size * count for size, count in sizes.items()) == told["inference_count"]
    assert sum(sizes.values()) == told["execution_count"]
    for each in told["batch_stats"]:
        assert set(each) >= {"batch_size", "compute_input", "compute_infer", "compute_output"}


def test_statistics_tell_when_a_model_ran_last(triton: InferenceServerClient) -> None:
    """In milliseconds since 1970."""
    earliest = int(time.time() * 1000)
    triton.infer("counted", [given("x", np.ones((1, 2), np.float32))])
    assert earliest <= counted(triton)["last_inference"] <= time.time() * 1000 + 1


def test_statistics_of_all_models_of_one_and_of_one_version(triton: InferenceServerClient) -> None:
    """The client's three ways to ask."""

    def told(*arguments: str) -> set[tuple[str, str]]:
        stats = triton.get_inference_statistics(*arguments)["model_stats"]
        return {(each["name"], each["version"]) for each in stats}

    assert told() >= {("times", "1"), ("times", "2"), ("counted", "1"), ("table", "1")}
    assert told("times") == {("times", "1"), ("times", "2")}
    assert told("times", "1") == {("times", "1")}


def test_statistics_of_what_is_not_there(triton: InferenceServerClient) -> None:
    """404 in words."""
    for arguments in (("nobody",), ("times", "9")):
        with pytest.raises(InferenceServerException, match=r"\[404\].* is not found"):
            triton.get_inference_statistics(*arguments)


# -- classification -------------------------------------------------------------------------------

GIVEN = np.array([[0.5, 4, -2, 1], [9, 7, 8, 6]], np.float32)


@pytest.fixture
def classifier(classifying_server: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(classifying_server.address) as client:
        yield client


def classes(client: InferenceServerClient, count: int, *, binary: bool = True) -> list[Any]:
    """Per row, score, index and label of each class told."""
    wanted = [InferRequestedOutput("scores", binary_data=binary, class_count=count)]
    result = client.infer("scores", [given("x", GIVEN)], outputs=wanted)
    output = result.get_output("scores")
    assert output is not None
    assert output["datatype"] == "BYTES"
    array = result.as_numpy("scores")
    assert array is not None
    assert list(array.shape) == [2, min(count, 4)]
    texts = [[each if isinstance(each, str) else each.decode() for each in row] for row in array]
    return [
        [(float(score), int(number), *label) for score, number, *label in (each.split(":") for each in row)]
        for row in texts
    ]


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_the_best_classes_come_with_score_index_and_label(
    classifier: InferenceServerClient, binary: bool
) -> None:
    """Best first, the score as the model gave it."""
    assert classes(classifier, 2, binary=binary) == [
        [(4, 1, "dog"), (1, 3, "owl")],
        [(9, 0, "cat"), (8, 2, "hen")],
    ]


def test_classes_without_labels_come_with_score_and_index(triton: InferenceServerClient) -> None:
    """Two parts instead of three."""
    assert classes(triton, 1) == [[(4, 1)], [(9, 0)]]


def test_more_classes_than_there_are_give_all(classifier: InferenceServerClient) -> None:
    """In order."""
    told = classes(classifier, 100)
    assert [each[2] for each in told[0]] == [LABELS[each] for each in (1, 3, 0, 2)]


@pytest.mark.parametrize("count", [-1, 1.5, "two", True])
def test_a_number_of_classes_that_makes_no_sense(http: httpx.Client, count: object) -> None:
    """400 and where."""
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": GIVEN.tolist()}
    wanted = [{"name": "scores", "parameters": {"classification": count}}]
    answer = http.post("/v2/models/scores/infer", json={"inputs": [tensor], "outputs": wanted})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("outputs[0].parameters.classification: ")


def test_strings_have_no_best_classes(triton: InferenceServerClient) -> None:
    """400 in words."""
    sent = given("x", np.array([[b"a", b"b"]], np.object_), "BYTES")
    with pytest.raises(InferenceServerException, match=r"\[400\] outputs\[0\]"):
        triton.infer("echo_bytes", [sent], outputs=[InferRequestedOutput("y", class_count=1)])


# -- scheduling -----------------------------------------------------------------------------------

LONG = 4_000_000  # turns of a loop; it outlasts a request that does not wait


def test_a_request_that_waits_longer_than_its_timeout_is_refused(slow_server: Server) -> None:
    """A microsecond is not enough behind a long run; a minute is."""
    in_flight = 'infold_requests_in_flight{model="slow",version="1"} 1.0'

    def ask(turns: int, timeout_us: int | None = None) -> None:
        with InferenceServerClient(slow_server.address) as client:
            client.infer("slow", [given("n", np.array([turns]), "INT64")], timeout=timeout_us)

    runs = threading.Thread(target=ask, args=(LONG,))
    runs.start()
    try:
        while in_flight not in httpx.get(f"{slow_server.url}/metrics").text:
            time.sleep(0.001)
        with pytest.raises(InferenceServerException) as caught:
            ask(1, timeout_us=1)
        assert caught.value.status() in ("503", "504")
        assert caught.value.message()
        assert runs.is_alive(), "the long run was over before the other waited"
        ask(1, timeout_us=60_000_000)
    finally:
        runs.join()


@pytest.mark.parametrize(("key", "value"), [("timeout", -1), ("priority", -1), ("timeout", "soon")])
def test_a_priority_or_timeout_that_makes_no_sense(http: httpx.Client, key: str, value: object) -> None:
    """400 and where."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    answer = http.post("/v2/models/times/infer", json={"inputs": [tensor], "parameters": {key: value}})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"parameters.{key}: ")
