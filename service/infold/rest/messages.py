"""A message of either protocol as work for a model: what reads it, and what writes its answer."""

from __future__ import annotations

import re

from infold.rest import v1, v2
from infold.rest.codec import count_nulls
from infold.rest.replies import reply_of
from infold.rest.reply import Reply
from infold.serving import Asked, Servable, Work
from infold.tensors import Array

__all__ = ["infer_work", "predict_work"]

# JSON of this length is read in the time it takes to wake another thread.
CHEAP_BYTES = 2**14
# What an input of BYTES has in its JSON, in plain letters or not.
MAYBE_BYTES = re.compile(rb"BYTES|\\u")


def infer_work(
    servable: Servable, body: bytes | memoryview, json_bytes: int | None, *, halves: bool
) -> Work[Reply]:
    """A request of protocol v2.

    Args:
        servable: That it is for.
        body: All of it.
        json_bytes: How much of it is JSON; None for all.
        halves: FP16 and BF16 may come and go as JSON.
    """
    version, signature, reading = servable.version, servable.signature, servable.reading
    request = v2.InferRequest({})

    def decode() -> Asked:
        nonlocal request
        request = v2.decode_infer(body, json_bytes, signature, reading, halves=halves)
        return Asked(request.tensors, request.outputs, request.timeout_s)

    def encode(results: dict[str, Array]) -> Reply:
        classes = reading.class_strings
        return reply_of(
            v2.encode_infer(version.name, version.number, request, results, classes, halves=halves)
        )

    text_bytes = len(body) if json_bytes is None else json_bytes
    is_cheap = text_bytes <= CHEAP_BYTES  # tensors are views, however long
    if is_cheap and reading.picture is not None:  # which takes long to decode, however short it is
        is_cheap = MAYBE_BYTES.search(body[:text_bytes]) is None
    return Work(decode, encode, is_cheap)


def predict_work(servable: Servable, body: bytes | memoryview) -> Work[Reply]:
    """A request in TF-Serving's dialect.

    Args:
        servable: That it is for.
        body: All of it.
    """
    signature, reading = servable.signature, servable.reading
    in_rows = False

    def decode() -> Asked:
        nonlocal in_rows
        tensors, in_rows = v1.decode_predict(bytes(body), signature, reading)
        return Asked(tensors)

    def encode(results: dict[str, Array]) -> Reply:
        text = v1.encode_predict(results, signature, in_rows=in_rows)
        return Reply((text,), nulls=count_nulls(text, results.values()))

    is_cheap = len(body) <= CHEAP_BYTES
    if is_cheap and reading.picture is not None:
        is_cheap = v1.KEY not in bytes(body)
    return Work(decode, encode, is_cheap)
