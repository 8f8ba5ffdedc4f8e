"""What parameters of a request, an input and an output say, and what of them is refused."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import numpy as np
import pytest

from infold.errors import InvalidInputError, MalformedBodyError, RequestError
from infold.rest import v2
from infold.rest.parameters import (
    OutputParameters,
    RequestParameters,
    binary_size,
    output_parameters,
    request_parameters,
)
from infold.rest.v2 import InferRequest, decode_infer
from infold.tensors import Signature, TensorSpec

F32 = np.dtype(np.float32)
ONE = Signature((TensorSpec("x", F32, ("n",)),), (TensorSpec("y", F32, ("n",)),))
UNKNOWN = {"a": "text", "b": 1, "c": 2.5, "d": True, "e": None, "tritonish": 1, "": 0, "sequence": 3}


# -- of a request -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, {}, UNKNOWN, {"binary_data_output": None}, {"timeout": 0}])
def test_what_says_nothing_changes_nothing(given: dict[str, Any] | None) -> None:
    """Nor does what nobody here knows."""
    assert request_parameters(given) == RequestParameters(is_binary=False, timeout_s=None)


@pytest.mark.parametrize(
    ("timeout_us", "seconds"),
    [(1, 1e-6), (1_500_000, 1.5), (2**53 - 1, (2**53 - 1) / 1e6), (None, None), (0, None)],
)
def test_a_timeout_is_in_microseconds_and_0_is_none(timeout_us: int | None, seconds: float | None) -> None:
    """As Triton has it."""
    assert request_parameters({"timeout": timeout_us}).timeout_s == seconds


@pytest.mark.parametrize("flag", [True, False])
def test_outputs_as_bytes_are_asked_for_by_a_flag(flag: bool) -> None:
    """Both ways."""
    assert request_parameters({"binary_data_output": flag}).is_binary is flag


@pytest.mark.parametrize("key", ["sequence_id", "sequence_start", "sequence_end"])
@pytest.mark.parametrize("value", [1, "a", True, 0.5, 2**63])
def test_a_sequence_is_refused(key: str, value: object) -> None:
    """Its requests would be answered without what went before."""
    with pytest.raises(InvalidInputError) as refused:
        request_parameters({key: value})
    assert str(refused.value) == f"parameters.{key}: sequences are not served"


@pytest.mark.parametrize("key", ["sequence_id", "sequence_start", "sequence_end"])
@pytest.mark.parametrize("value", [0, "", False, None])
def test_no_sequence_is_no_mistake(key: str, value: object) -> None:
    """Clients send it so."""
    assert request_parameters({key: value}) == RequestParameters()


@pytest.mark.parametrize("value", [1, None, "x", False])
def test_what_triton_keeps_for_itself_is_refused(value: object) -> None:
    """Whatever it says."""
    with pytest.raises(InvalidInputError) as refused:
        request_parameters({"a": 1, "triton_enable_empty_final_response": value})
    place = "parameters.triton_enable_empty_final_response"
    assert str(refused.value) == f"{place}: is a reserved parameter"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": [1]}, "parameters.a: must be a string, a number, true or false"),
        ({"a": {}}, "parameters.a: must be a string, a number, true or false"),
        ({"binary_data_output": 1}, "parameters.binary_data_output: must be true or false"),
        ({"binary_data_output": "true"}, "parameters.binary_data_output: must be true or false"),
        ({"timeout": -1}, "parameters.timeout: -1 is no whole number from 0 to 9007199254740991"),
        ({"timeout": 2**53}, f"parameters.timeout: {2**53} is no whole number from 0 to {2**53 - 1}"),
        ({"timeout": True}, "parameters.timeout: True is no whole number from 0 to 9007199254740991"),
        ({"timeout": 1.0}, "parameters.timeout: 1.0 is no whole number from 0 to 9007199254740991"),
        ({"timeout": "1"}, "parameters.timeout: '1' is no whole number from 0 to 9007199254740991"),
        ({"priority": -1}, f"parameters.priority: -1 is no whole number from 0 to {2**64 - 1}"),
        ({"priority": 2**64}, f"parameters.priority: {2**64} is no whole number from 0 to {2**64 - 1}"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(given: dict[str, Any], message: str) -> None:
    """With what it may be."""
    with pytest.raises(RequestError) as refused:
        request_parameters(given)
    assert str(refused.value) == message


def test_every_priority_is_taken() -> None:
    """All requests are equal here."""
    for priority in (0, 1, 2**64 - 1, None):
        assert request_parameters({"priority": priority}) == RequestParameters()


# -- of an input ------------------------------------------------------------------------------------


def test_an_input_says_how_many_bytes_it_has() -> None:
    """None of them is something else than none at all."""
    assert [binary_size(each, "inputs[0]") for each in (None, {}, UNKNOWN, {"binary_data_size": None})] == [
        None
    ] * 4
    assert binary_size({"binary_data_size": 0}, "inputs[0]") == 0
    assert binary_size({**UNKNOWN, "binary_data_size": 2**40}, "inputs[0]") == 2**40


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"binary_data_size": -1}, "binary_data_size: -1 is no number of bytes"),
        ({"binary_data_size": True}, "binary_data_size: True is no number of bytes"),
        ({"binary_data_size": 4.0}, "binary_data_size: 4.0 is no number of bytes"),
        ({"binary_data_size": "4"}, "binary_data_size: '4' is no number of bytes"),
        ({"shared_memory_region": "r"}, "shared_memory_region: shared memory is not served"),
        ({"shared_memory_region": None}, "shared_memory_region: shared memory is not served"),
        ({"a": []}, "a: must be a string, a number, true or false"),
    ],
)
def test_a_wrong_parameter_of_an_input_is_named(given: dict[str, Any], message: str) -> None:
    """By its own place."""
    with pytest.raises(RequestError) as refused:
        binary_size(given, "inputs[2]")
    assert str(refused.value) == f"inputs[2].parameters.{message}"


# -- of an output -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, OutputParameters(None, 0)),
        (UNKNOWN, OutputParameters(None, 0)),
        ({"binary_data": None, "classification": None}, OutputParameters(None, 0)),
        ({"binary_data": False}, OutputParameters(False, 0)),
        ({"binary_data": True, "classification": 3}, OutputParameters(True, 3)),
        ({"classification": 2**31 - 2}, OutputParameters(None, 2**31 - 2)),
    ],
)
def test_an_output_says_how_it_is_wanted(given: dict[str, Any] | None, wanted: OutputParameters) -> None:
    """Nothing said leaves it to the request."""
    assert output_parameters(given, "outputs[0]") == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"binary_data": 0}, "binary_data: must be true or false"),
        ({"classification": -1}, "classification: -1 is no whole number from 0 to 2147483646"),
        ({"classification": True}, "classification: True is no whole number from 0 to 2147483646"),
        ({"classification": 2**31}, "classification: 2147483648 is no whole number from 0 to 2147483646"),
        ({"shared_memory_region": "r"}, "shared_memory_region: shared memory is not served"),
        ({"a": {"b": 1}}, "a: must be a string, a number, true or false"),
    ],
)
def test_a_wrong_parameter_of_an_output_is_named(given: dict[str, Any], message: str) -> None:
    """By its own place."""
    with pytest.raises(RequestError) as refused:
        output_parameters(given, "outputs[1]")
    assert str(refused.value) == f"outputs[1].parameters.{message}"


# -- in a request, whichever reader has it ----------------------------------------------------------


def read(of_request: object, of_input: object, of_output: object, *, as_bytes: bool) -> InferRequest:
    """A request with these parameters, in JSON or in bytes."""
    entry: dict[str, Any] = {"name": "x", "shape": [2], "datatype": "FP32"}
    blob = np.array([1, 2], np.float32).tobytes() if as_bytes else b""
    if as_bytes:
        assert of_input is None or isinstance(of_input, dict)
        entry["parameters"] = {**(of_input or {}), "binary_data_size": len(blob)}
    else:
        entry |= {"data": [1, 2], "parameters": of_input}
    body: dict[str, Any] = {"inputs": [entry], "parameters": of_request}
    if of_output is not None:
        body["outputs"] = [{"name": "y", "parameters": of_output}]
    text = json.dumps(body).encode()
    return decode_infer(text + blob, len(text) if as_bytes else None, ONE)


@pytest.mark.parametrize("as_bytes", [False, True], ids=["json", "bytes"])
@pytest.mark.parametrize("where", ["request", "input", "output", "all"])
@pytest.mark.parametrize("is_careful", [False, True], ids=["as it is read", "read carefully"])
def test_what_nobody_knows_is_passed_over_by_every_reader(
    as_bytes: bool, where: str, is_careful: bool
) -> None:
    """In the request, an input or an output: the tensors are the same."""
    given = [UNKNOWN if where in (name, "all") else None for name in ("request", "input", "output")]
    none = mock.patch.multiple(v2, read_plain=mock.Mock(return_value=None), read_plain_bytes=none_at_all)
    with none if is_careful else mock.patch.object(v2, "MAX_TENSORS", v2.MAX_TENSORS):
        request = read(*given, as_bytes=as_bytes)
    assert request.tensors["x"].tolist() == [1, 2]
    assert (request.is_binary, request.timeout_s) == (False, None)


def none_at_all(*_: object) -> None:
    """A reader that reads nothing."""


@pytest.mark.parametrize("as_bytes", [False, True], ids=["json", "bytes"])
def test_what_is_known_comes_through_every_reader(as_bytes: bool) -> None:
    """Also where a quicker reader was tried first."""
    given = {"timeout": 2_000_000, "binary_data_output": True, "priority": 1}
    request = read(given, None, {"binary_data": False}, as_bytes=as_bytes)
    assert (request.timeout_s, request.is_binary) == (2.0, True)
    assert request.wishes == {"y": OutputParameters(is_binary=False)}
    assert read(given, None, None, as_bytes=as_bytes).timeout_s == 2.0


@pytest.mark.parametrize("as_bytes", [False, True], ids=["json", "bytes"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sequence_id": 5}, "parameters.sequence_id: sequences are not served"),
        ({"triton_x": 1}, "parameters.triton_x: is a reserved parameter"),
        ({"timeout": -1}, "parameters.timeout: -1 is no whole number from 0 to 9007199254740991"),
        ({"binary_data_output": 1}, "parameters.binary_data_output: must be true or false"),
        ({"a": [1]}, "parameters.a: must be a string, a number, true or false"),
    ],
)
def test_what_is_refused_is_refused_by_every_reader(
    given: dict[str, Any], message: str, as_bytes: bool
) -> None:
    """The quick ones leave it to the careful one."""
    with pytest.raises(RequestError) as refused:
        read(given, None, None, as_bytes=as_bytes)
    assert str(refused.value) == message


@pytest.mark.parametrize("place", ["parameters", "inputs[0].parameters"])
def test_parameters_are_an_object(place: str) -> None:
    """Or the body is no request."""
    with pytest.raises(MalformedBodyError, match=place.replace("[", r"\[")):
        read(*((3, None) if place == "parameters" else (None, 3)), None, as_bytes=False)
