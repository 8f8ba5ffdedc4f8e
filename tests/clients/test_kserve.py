"""KServe's Python client over real sockets, in the environment of its own that `make clients` sets up.

It cannot share ours: it wants protobuf below 7 and psutil below 6, and brings a
Kubernetes client, pandas and gRPC. So `kserve_script` runs there, once, and says
what came of each call; these tests judge it.
"""

import json
import subprocess
from typing import Any

import pytest

from clients.models import NUMBERS
from servers import ROOT, Server

pytestmark = pytest.mark.clients

PYTHON = ROOT / ".venv-clients/bin/python"


@pytest.fixture(scope="module")
def came(server: Server) -> dict[str, Any]:
    """What came of each call, by name."""
    if not PYTHON.exists():
        pytest.fail("KServe's client is not installed; `make clients` sets it up")
    command = [str(PYTHON), str(ROOT / "tests/clients/kserve_script.py"), server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- health ---------------------------------------------------------------------------------------


def test_the_server_is_live_and_ready(came: dict[str, Any]) -> None:
    """The client reads the keys `live` and `ready`."""
    assert came["live_and_ready"] == [True, True]


def test_a_model_is_ready_and_an_unknown_one_is_not(came: dict[str, Any]) -> None:
    """By status alone."""
    assert came["model_ready"] == [True, False]


# -- protocol v2 ----------------------------------------------------------------------------------


def test_a_request_in_json_is_answered_in_json(came: dict[str, Any]) -> None:
    """With the caller's id; the model's name in the body is no mistake."""
    answer = came["json_both_ways"]
    assert (answer["id"], answer["model"]) == ("order-66", "times")
    assert answer["outputs"] == {"y": [[3, 6, 9, 12]]}


def test_a_plain_dict_is_a_request(came: dict[str, Any]) -> None:
    """The client sends it as it is."""
    assert came["plain_dict"]["outputs"] == {"y": [[3, 6, 9, 12]]}


def test_a_request_in_bytes_is_answered_in_bytes(came: dict[str, Any]) -> None:
    """Under the header that says where the JSON ends."""
    answer = came["bytes_both_ways"]
    assert answer["outputs"] == {"y": [[3, 6, 9, 12]]}
    assert int(answer["length"]) > 0


def test_one_output_in_bytes_and_one_in_json(came: dict[str, Any]) -> None:
    """In the order asked, from one input in bytes and one in JSON."""
    outputs = came["bytes_for_one_output"]["outputs"]
    assert list(outputs) == ["difference", "sum"]
    assert outputs == {"difference": [[0] * 4], "sum": [[2, 4, 6, 8]]}


def test_every_datatype_comes_back_as_bytes(came: dict[str, Any]) -> None:
    """Extremes included."""
    assert came["datatypes_as_bytes"] == dict.fromkeys([*NUMBERS, "BYTES"], True)


def test_every_datatype_comes_back_as_json(came: dict[str, Any]) -> None:
    """But FP16, which the client does not send so."""
    wanted = [each for each in (*NUMBERS, "BYTES") if each != "FP16"]
    assert came["datatypes_as_json"] == dict.fromkeys(wanted, True)


def test_no_rows_are_answered_with_no_rows(came: dict[str, Any]) -> None:
    """As an empty list."""
    assert came["no_rows_as_json"]["shapes"] == {"y": [0, 4]}


def test_no_rows_as_bytes_come_with_data_that_is_null(came: dict[str, Any]) -> None:
    """A slip of this client, which says `data: null` beside a size of 0 and sends no header length."""
    assert came["no_rows_as_bytes"]["shapes"] == {"y": [0, 4]}


def test_a_mistake_is_told_in_our_words(came: dict[str, Any]) -> None:
    """The client shows an error only if its type is application/json and its key `error`."""
    assert (
        "HTTPStatusError: Request for unknown model: 'nobody' is not found" in came["unknown_model"]["error"]
    )
    assert "404 Not Found" in came["unknown_model"]["error"]
    assert "inputs[0].shape: shape [1, 3] given" in came["wrong_shape"]["error"]
    assert "400 Bad Request" in came["wrong_shape"]["error"]


# -- protocol v1 ----------------------------------------------------------------------------------


def test_v1_asks_the_root_whether_the_server_is_alive(came: dict[str, Any]) -> None:
    """And reads `status` there."""
    assert came["v1_live"] is True


def test_v1_reads_whether_a_model_is_ready(came: dict[str, Any]) -> None:
    """An unknown one is an error in our words."""
    assert came["v1_model_ready"] is True
    assert "'nobody' is not found" in came["v1_unknown_model_ready"]["error"]


def test_v1_predicts(came: dict[str, Any]) -> None:
    """A dict in, a dict out."""
    assert came["v1_predict"] == {"predictions": [[3, 6, 9, 12]]}


def test_v1_tells_a_mistake_in_our_words(came: dict[str, Any]) -> None:
    """With the place."""
    assert "instances.x: shape [1, 1] given" in came["v1_wrong_shape"]["error"]


def test_v1_does_not_explain_and_says_so(came: dict[str, Any]) -> None:
    """501 in words."""
    assert "is not served" in came["v1_explain"]["error"]
    assert "501 Not Implemented" in came["v1_explain"]["error"]
