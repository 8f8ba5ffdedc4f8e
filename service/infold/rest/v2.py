"""Open Inference Protocol v2: an infer request to tensors, and tensors to its response.

Tensors come as JSON, as bytes behind a JSON header (the binary extension), or a
request is nothing but the bytes of the only input. Each output goes back as its
request wants it.

Source: open-inference-protocol, specification/protocol/inference_rest.md; Triton's
docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from infold.errors import HalfInJsonError, InvalidInputError, MalformedBodyError
from infold.rest.binary import blob, open_shape, read_blob
from infold.rest.codec import DATATYPES, TOO_DEEP, count_nulls, encode_json, json_ready
from infold.rest.cutting import SMALL_BYTES, Body, read_cut
from infold.rest.infer_request import MAX_ID_BYTES, InferRequest
from infold.rest.parameters import OutputParameters, request_parameters
from infold.rest.plain import read_plain, read_plain_bytes
from infold.rest.v2_tensors import HALVES, AskedModel, has_halves, read_inputs, read_json, read_outputs
from infold.serving import Reading
from infold.tensors import Array, Signature, Tensors

__all__ = ["HEADER_LENGTH", "InferRequest", "InferResponse", "decode_infer", "encode_infer"]

MAX_TENSORS = 64
MAX_HEADER_BYTES = 2**20
# The HTTP header that says how much of a body is JSON.
HEADER_LENGTH = "Inference-Header-Content-Length"
PLAIN = OutputParameters()
DATA_KEY = re.compile(rb'"data"\s*:\s*\[')


class _Envelope(msgspec.Struct):
    inputs: list[msgspec.Raw]
    outputs: list[msgspec.Raw] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


_envelopes = msgspec.json.Decoder(_Envelope)


@dataclass(slots=True, eq=False)
class InferResponse:
    """A body in parts, to be sent one after another.

    Attributes:
        parts: JSON first.
        json_bytes: Length of the JSON where bytes follow it; None where it is all.
        nulls: Values that JSON has no number for.
    """

    parts: list[bytes | memoryview]
    json_bytes: int | None = None
    nulls: int = 0


def decode_infer(
    body: bytes | memoryview,
    json_bytes: int | None,
    signature: Signature,
    reading: Reading | None = None,
    *,
    halves: bool = True,
) -> InferRequest:
    """Read an infer request for a model.

    Args:
        body: All of it.
        json_bytes: How much of it is JSON, as `HEADER_LENGTH` says; None for all, 0 for a
            body that is the only input.
        signature: The model's.
        reading: How an input takes pictures, which then come as BYTES: in JSON in base64.
        halves: FP16 and BF16 may come as JSON, and are rounded.

    Raises:
        MalformedBodyError: The body is no such request.
        InvalidInputError: A tensor does not fit; names the place.
    """
    if json_bytes is None:
        is_small = len(body) <= SMALL_BYTES and (halves or not has_halves(signature))
        if is_small and (plain := read_plain(bytes(body), signature)) is not None:
            return plain
    elif not json_bytes:
        return _only_input(memoryview(body), signature)
    try:
        return _read(body, json_bytes, signature, reading or Reading(), halves)
    except RecursionError:
        raise MalformedBodyError(TOO_DEEP) from None


def _read(
    body: bytes | memoryview, json_bytes: int | None, signature: Signature, reading: Reading, halves: bool
) -> InferRequest:
    """Any request of which a part is JSON; one of bytes by the reader for plain ones, where it is one."""
    if json_bytes is None:
        whole = bytes(body) if isinstance(body, memoryview) else body
        model = AskedModel(signature, reading, halves)
        return read_cut(whole, DATA_KEY, lambda text: _careful(text, memoryview(b""), model))
    text, blobs = _parted(memoryview(body), json_bytes)
    if (plain := read_plain_bytes(text.text, blobs, signature)) is not None:
        return plain
    return _careful(text, blobs, AskedModel(signature, reading, halves))


def _careful(text: Body, blobs: memoryview, model: AskedModel) -> InferRequest:
    """Any form of request; names every mistake."""
    envelope = read_json(_envelopes, text.text, "request")
    if len(envelope.inputs) > MAX_TENSORS or len(envelope.outputs or ()) > MAX_TENSORS:
        raise MalformedBodyError(f"more than {MAX_TENSORS} inputs or outputs")
    if envelope.id is not None and len(envelope.id.encode()) > MAX_ID_BYTES:
        raise MalformedBodyError(f"id: longer than {MAX_ID_BYTES} bytes")
    tensors, left = read_inputs(envelope.inputs, text, blobs, model)
    if left:
        raise MalformedBodyError(f"{left} bytes are left behind the last input")
    wishes = read_outputs(envelope.outputs or [], model.signature)
    own = request_parameters(envelope.parameters)
    return InferRequest(tensors, tuple(wishes) or None, envelope.id, wishes, own.is_binary, own.timeout_s)


def _parted(body: memoryview, json_bytes: int) -> tuple[Body, memoryview]:
    if json_bytes > MAX_HEADER_BYTES:
        raise MalformedBodyError(
            f"{HEADER_LENGTH}: {json_bytes} exceeds the maximum allowed {MAX_HEADER_BYTES}"
        )
    if json_bytes > len(body):
        raise MalformedBodyError(f"{HEADER_LENGTH}: {json_bytes}, but the body has {len(body)} bytes")
    return Body(bytes(body[:json_bytes])), body[json_bytes:]


def _only_input(body: memoryview, signature: Signature) -> InferRequest:
    if len(signature.inputs) != 1:
        known = ", ".join(f"'{spec.name}'" for spec in signature.inputs)
        raise InvalidInputError(
            "body", f"the model has several inputs, send a header that names them: {known}"
        )
    (spec,) = signature.inputs
    shape = open_shape(spec, len(body))
    if spec.dtype.kind == "O":
        size = len(body).to_bytes(4, "little")
        body = memoryview(size + bytes(body))
    return InferRequest({spec.name: read_blob(body, spec.dtype, shape, "body")}, is_binary=True)


def encode_infer(
    model: str,
    version: int,
    request: InferRequest,
    results: Tensors,
    classes: Callable[[str, Array, int], Array],
    *,
    halves: bool = True,
) -> InferResponse:
    """The response, outputs in the order asked, data flat and row-major.

    Args:
        model: Its name.
        version: Its version.
        request: What was asked.
        results: Outputs by name, in that order.
        classes: Of an output's name, its values and a number k, the k largest as strings.
        halves: FP16 and BF16 may go as JSON.

    Raises:
        HalfInJsonError: They may not, and would have to.
    """
    content: dict[str, Any] = {"model_name": model, "model_version": str(version)}
    if request.id is not None:
        content["id"] = request.id
    blobs: list[bytes | memoryview] = []
    as_json: list[Array] = []
    outputs = content["outputs"] = []
    for name, array in results.items():
        wish = request.wishes.get(name, PLAIN)
        if wish.classes:
            array = classes(name, array, wish.classes)
        output: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPES[array.dtype],
            "shape": list(array.shape),
        }
        if request.is_binary if wish.is_binary is None else wish.is_binary:
            data = blob(array)
            output["parameters"] = {"binary_data_size": len(data)}
            blobs.append(data)
        else:
            if not halves and output["datatype"] in HALVES:
                raise HalfInJsonError("outputs", "output", name, output["datatype"])
            output["data"] = json_ready(array.reshape(-1))
            as_json.append(array)
        outputs.append(output)
    text = encode_json(content)
    nulls = count_nulls(text, as_json)
    return InferResponse([text, *blobs], len(text) if blobs else None, nulls)
