"""What the protocol and its dialects have and infold does not says so itself.

`{"error": "... is not served ..."}`, so that a client's user reads a sentence and
not a riddle: 501 for a whole endpoint, 400 for a parameter of one that is served.
"""

from collections.abc import Callable

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from servers import Server

Call = Callable[[InferenceServerClient], object]


def refused(client: InferenceServerClient, call: Call, status: str = "501") -> None:
    """The call fails as one that is not served."""
    with pytest.raises(InferenceServerException, match="is not served") as caught:
        call(client)
    assert caught.value.status() == status


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.get_system_shared_memory_status("region"),
        lambda client: client.register_system_shared_memory("region", "/key", 64),
        lambda client: client.unregister_system_shared_memory(),
        lambda client: client.unregister_system_shared_memory("region"),
    ],
    ids=["status of all", "status of one", "register", "unregister all", "unregister one"],
)
def test_system_shared_memory_is_not_served(triton: InferenceServerClient, call: Call) -> None:
    """Memory of this machine is not opened to the network."""
    refused(triton, call)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.get_cuda_shared_memory_status("region"),
        lambda client: client.register_cuda_shared_memory("region", "aGFuZGxl", 0, 64),
        lambda client: client.unregister_cuda_shared_memory(),
        lambda client: client.unregister_cuda_shared_memory("region"),
    ],
    ids=["status of all", "status of one", "register", "unregister all", "unregister one"],
)
def test_cuda_shared_memory_is_not_served(triton: InferenceServerClient, call: Call) -> None:
    """Nor that of its GPUs."""
    refused(triton, call)


def test_a_tensor_in_shared_memory_is_not_served(triton: InferenceServerClient) -> None:
    """An input that lies there, and an output that is wanted there."""
    there = InferInput("x", [1, 4], "FP32")
    there.set_shared_memory("region", 16)
    refused(triton, lambda client: client.infer("times", [there]), "400")
    here = InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.ones((1, 4), np.float32))
    wanted = InferRequestedOutput("y")
    wanted.set_shared_memory("region", 16)
    refused(triton, lambda client: client.infer("times", [here], outputs=[wanted]), "400")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_trace_settings(),
        lambda client: client.get_trace_settings("times"),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
        lambda client: client.update_trace_settings("times", {"trace_level": None}),
    ],
    ids=["get", "get of a model", "set", "set of a model"],
)
def test_trace_settings_are_not_served(triton: InferenceServerClient, call: Call) -> None:
    """Of the server or of a model."""
    refused(triton, call)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_log_settings(),
        lambda client: client.update_log_settings({"log_verbose_level": 1}),
    ],
    ids=["get", "set"],
)
def test_log_settings_are_not_served(triton: InferenceServerClient, call: Call) -> None:
    """What is logged is set at the start."""
    refused(triton, call)


def test_files_in_a_load_are_not_served(managed: tuple[Server, object]) -> None:
    """A model comes from the repository, not from whoever can reach the service; nothing changes."""
    with InferenceServerClient(managed[0].address) as client:
        refused(
            client,
            lambda each: each.load_model(
                "times", config="{}", files={"file:1/model.onnx": b"a model of the caller's own"}
            ),
            "400",
        )
        assert client.is_model_ready("times", "1")


@pytest.mark.parametrize("verb", ["generate", "generate_stream"])
@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_generate_is_not_served(http: httpx.Client, verb: str, version: str) -> None:
    """Triton's provisional extension for language models."""
    body = {"text_input": "once upon a time", "parameters": {"stream": False}}
    answer = http.post(f"/v2/models/times{version}/{verb}", json=body)
    assert answer.status_code == 501
    assert "is not served" in answer.json()["error"]


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize("version", ["", "/versions/1", "/labels/stable"])
def test_classify_and_regress_are_not_served(http: httpx.Client, verb: str, version: str) -> None:
    """TF Serving's verbs for tf.Example."""
    answer = http.post(f"/v1/models/times{version}:{verb}", json={"examples": [{"x": 1}]})
    assert answer.status_code == 501
    assert "is not served" in answer.json()["error"]


def test_explain_is_not_served(http: httpx.Client) -> None:
    """KServe's verb for explainers."""
    answer = http.post("/v1/models/times:explain", json={"instances": [[1, 2, 3, 4]]})
    assert answer.status_code == 501
    assert "is not served" in answer.json()["error"]


def test_what_nobody_specified_is_404_and_a_wrong_method_405(http: httpx.Client) -> None:
    """Also as `{"error": ...}`."""
    for method, path, status in (
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/models/times/nothing", 404),
        ("GET", "/v2/models/times/infer", 405),
        ("DELETE", "/v2", 405),
    ):
        answer = http.request(method, path)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), path
        assert answer.json()["error"]


@pytest.mark.parametrize("of", ["times", "times/versions/1", "times/versions/9", "times/labels/no", "nobody"])
def test_a_verb_that_nobody_specified_is_404(http: httpx.Client, of: str) -> None:
    """`times:nothing` is no model that could be asked with GET, nor `1:nothing` a version."""
    answer = http.post(f"/v1/models/{of}:nothing", json={})
    assert answer.status_code == 404
    assert answer.json()["error"]
