"""Triton's model repository extension as its Python client asks for it: index, load, unload."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from clients.models import TIMES, write
from servers import Server


def first(client: InferenceServerClient, model: str) -> float:
    """The first number of a model's answer to a row of ones."""
    ones = InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.ones((1, 4), np.float32))
    array = client.infer(model, [ones]).as_numpy("y")
    assert array is not None
    return float(array[0, 0])


def index(client: InferenceServerClient) -> dict[tuple[str, str], str]:
    """State by model and version."""
    told = client.get_model_repository_index()
    return {(each["name"], each.get("version", "")): each.get("state", "") for each in told}


@pytest.fixture
def manager(managed: tuple[Server, Path]) -> Iterator[InferenceServerClient]:
    """A client of a server of its own."""
    with InferenceServerClient(managed[0].address) as client:
        yield client


def test_the_index_lists_every_version_that_is_served(manager: InferenceServerClient) -> None:
    """Name, version, state and reason of each."""
    assert set(index(manager)) == {("times", "1"), ("times", "2"), ("plain", "1")}
    for each in manager.get_model_repository_index():
        assert (each["state"], each["reason"]) == ("READY", "")


def test_the_index_of_what_is_ready_leaves_out_what_is_unloaded(
    managed: tuple[Server, Path], manager: InferenceServerClient
) -> None:
    """The whole index says UNAVAILABLE and why."""
    manager.unload_model("plain")
    whole = [each for each in manager.get_model_repository_index() if each["name"] == "plain"]
    assert {each["state"] for each in whole} == {"UNAVAILABLE"}
    assert all(each["reason"] for each in whole)
    with httpx.Client(base_url=managed[0].url) as http:
        ready = http.post("/v2/repository/index", json={"ready": True}).json()
        assert {each["name"] for each in ready} == {"times"}
        every = http.post("/v2/repository/index", json={"ready": False}).json()
        assert {each["name"] for each in every} == {"times", "plain"}


def test_an_unloaded_model_is_gone_and_comes_back(manager: InferenceServerClient) -> None:
    """Not ready and not answering in between; the others do not notice."""
    manager.unload_model("plain")
    assert not manager.is_model_ready("plain")
    with pytest.raises(InferenceServerException, match="plain") as caught:
        first(manager, "plain")
    assert caught.value.status() in ("404", "503")
    assert first(manager, "times") == 3
    assert manager.is_server_ready()
    manager.load_model("plain")
    assert manager.is_model_ready("plain")
    assert first(manager, "plain") == 1


def test_unloading_dependents_is_taken(manager: InferenceServerClient) -> None:
    """There are none."""
    manager.unload_model("plain", unload_dependents=True)
    assert not manager.is_model_ready("plain")


def test_loading_a_loaded_model_serves_what_lies_there_now(
    managed: tuple[Server, Path], manager: InferenceServerClient
) -> None:
    """A version that was added answers as soon as the call returns; the model never stops answering."""
    write(managed[1], "plain", TIMES[2], version=2)
    assert first(manager, "plain") == 1
    manager.load_model("plain")
    assert first(manager, "plain") == 3
    assert index(manager)["plain", "2"] == "READY"


def test_a_model_that_came_later_can_be_loaded(
    managed: tuple[Server, Path], manager: InferenceServerClient
) -> None:
    """Its folder was not there when the server started."""
    write(managed[1], "later", TIMES[1])
    manager.load_model("later")
    assert first(manager, "later") == 2


def test_a_load_can_carry_a_configuration(
    managed: tuple[Server, Path], manager: InferenceServerClient
) -> None:
    """It counts instead of Triton's beside the model: fewer rows at once, and the older of two versions."""
    for version, text in TIMES.items():
        write(managed[1], "later", text, version)
    policy = {"specific": {"versions": [1]}}
    override = {"backend": "onnxruntime", "max_batch_size": 2, "version_policy": policy}
    manager.load_model("later", config=json.dumps(override))
    assert first(manager, "later") == 2
    assert not manager.is_model_ready("later", "2")
    three_rows = InferInput("x", [3, 4], "FP32").set_data_from_numpy(np.ones((3, 4), np.float32))
    with pytest.raises(InferenceServerException, match=r"\[400\]"):
        manager.infer("later", [three_rows])


def test_a_configuration_sent_along_is_told(manager: InferenceServerClient) -> None:
    """By the model's configuration from then on."""
    manager.load_model("plain", config='{"backend": "onnxruntime", "max_batch_size": 2}')
    assert manager.get_model_config("plain")["max_batch_size"] == 2


@pytest.mark.parametrize("override", ["{", '{"no_such_key": 1}', '{"max_batch_size": "many"}', "7"])
def test_a_configuration_that_makes_no_sense_changes_nothing(
    manager: InferenceServerClient, override: str
) -> None:
    """The load fails in words, and the model answers as before."""
    with pytest.raises(InferenceServerException, match="failed to load 'times'") as caught:
        manager.load_model("times", config=override)
    assert caught.value.status() == "400"
    assert first(manager, "times") == 3


def test_a_load_that_fails_says_why_and_changes_nothing(
    managed: tuple[Server, Path], manager: InferenceServerClient
) -> None:
    """A broken file beside good ones: its name is told, and what answered goes on answering."""
    broken = managed[1] / "plain/2"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InferenceServerException, match="failed to load 'plain'") as caught:
        manager.load_model("plain")
    assert caught.value.status()[0] == "4"
    assert first(manager, "plain") == 1
    assert manager.is_model_ready("plain")


@pytest.mark.parametrize("name", ["nobody", "../times", "times/1", ".hidden"])
def test_what_is_not_in_the_repository_cannot_be_loaded_or_unloaded(
    manager: InferenceServerClient, name: str
) -> None:
    """Nor what is no name."""
    actions: tuple[Callable[[str], None], ...] = (manager.load_model, manager.unload_model)
    for action in actions:
        with pytest.raises(InferenceServerException) as caught:
            action(name)
        assert caught.value.status() in ("400", "404")
        assert "an exception occurred in the client" not in caught.value.message()
    with pytest.raises(InferenceServerException, match="failed to load 'nobody'"):
        manager.load_model("nobody")


def test_callers_load_nothing_unless_the_server_was_started_so(triton: InferenceServerClient) -> None:
    """403 in words; the index is told all the same."""
    actions: tuple[Callable[[str], None], ...] = (triton.load_model, triton.unload_model)
    for action in actions:
        with pytest.raises(
            InferenceServerException, match="explicit model load / unload is not allowed"
        ) as caught:
            action("times")
        assert caught.value.status() == "403"
    assert index(triton)["times", "1"] == "READY"
    assert triton.is_model_ready("times")
