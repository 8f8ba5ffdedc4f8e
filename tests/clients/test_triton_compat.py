"""`INFOLD_TRITON_COMPAT`: what Triton's client reads is what Triton would have said.

For users whose code looks at texts and codes; the answers themselves are the same.
"""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from clients.models import Array, write_all
from servers import Server, running

ONES = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def compatible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The common models, told of in Triton's words."""
    folder = tmp_path_factory.mktemp("compatible")
    models = write_all(folder / "models")
    with running(models, folder / "server.log", INFOLD_TRITON_COMPAT="true") as started:
        yield started


@pytest.fixture
def client(compatible: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(compatible.address) as opened:
        yield opened


def given(name: str, array: Array, datatype: str, *, binary: bool = True) -> InferInput:
    """An input of a request."""
    tensor = InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def test_health_is_told_by_the_status_alone(compatible: Server, client: InferenceServerClient) -> None:
    """With an empty body."""
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/times/ready"):
        answer = httpx.get(f"{compatible.url}{path}")
        assert (answer.status_code, answer.content) == (200, b""), path
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("times")


def test_the_server_is_called_triton(client: InferenceServerClient) -> None:
    """Some tools look."""
    assert client.get_server_metadata()["name"] == "triton"


def test_answers_are_the_same(client: InferenceServerClient) -> None:
    """Only words differ."""
    result = client.infer("times", [given("x", ONES, "FP32")], request_id="7")
    array = result.as_numpy("y")
    assert array is not None
    assert array.tolist() == [[3] * 4]
    assert result.get_response()["id"] == "7"


@pytest.mark.parametrize(
    ("model", "tensor", "output", "text"),
    [
        (
            "times",
            ("x", ONES[:, :3], "FP32"),
            "y",
            "unexpected shape for input 'x' for model 'times'. Expected [-1,4], got [1,3]",
        ),
        (
            "times",
            ("x", ONES.astype(float), "FP64"),
            "y",
            "inference input 'x' data-type is 'FP64', but model 'times' expects 'FP32'",
        ),
        ("times", ("z", ONES, "FP32"), "y", "unexpected inference input 'z' for model 'times'"),
        ("times", ("x", ONES, "FP32"), "q", "unexpected inference output 'q' for model 'times'"),
        (
            "add_sub",
            ("a", ONES, "FP32"),
            "sum",
            (
                "expected 2 inputs but got 1 inputs for model 'add_sub'. Got input(s) ['a'], "
                "but missing required input(s) ['b']. Please provide all required input(s)."
            ),
        ),
        ("nobody", ("x", ONES, "FP32"), "y", "Request for unknown model: 'nobody' is not found"),
    ],
    ids=["shape", "datatype", "input", "output", "missing", "model"],
)
def test_mistakes_are_told_in_tritons_words(
    client: InferenceServerClient, model: str, tensor: tuple[str, Array, str], output: str, text: str
) -> None:
    """To the letter."""
    sent = given(*tensor)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [sent], outputs=[InferRequestedOutput(output)])
    assert caught.value.message() == text
    assert caught.value.status() == ("404" if model == "nobody" else "400")


@pytest.mark.parametrize("ways", [(False, True), (True, False)], ids=["in a request", "in an answer"])
def test_fp16_has_no_json(client: InferenceServerClient, ways: tuple[bool, bool]) -> None:
    """Triton takes and gives it as bytes only."""
    sent = given("x", ONES.astype(np.float16), "FP16", binary=ways[0])
    wanted = [InferRequestedOutput("y", binary_data=ways[1])]
    with pytest.raises(InferenceServerException, match="FP16") as caught:
        client.infer("echo_fp16", [sent], outputs=wanted)
    assert caught.value.status() == "400"


def test_an_unknown_encoding_is_not_implemented(compatible: Server) -> None:
    """501, where infold would say 415."""
    url = f"{compatible.url}/v2/models/times/infer"
    assert httpx.post(url, content=b"x", headers={"content-encoding": "br"}).status_code == 501


def test_a_load_where_callers_may_not_is_unavailable(client: InferenceServerClient) -> None:
    """503 and Triton's text."""
    with pytest.raises(
        InferenceServerException, match="explicit model load / unload is not allowed"
    ) as caught:
        client.load_model("times")
    assert caught.value.status() == "503"
