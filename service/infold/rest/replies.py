"""What is sent back: an infer response as a reply, and answers to what came without a message around it."""

from __future__ import annotations

import math

from infold.rest import v1, v2
from infold.rest.codec import count_nulls
from infold.rest.parameters import OutputParameters
from infold.rest.reply import Reply
from infold.serving import Servable
from infold.tensors import Array

__all__ = ["infer_reply", "predict_reply", "reply_of"]

OCTETS = b"application/octet-stream"


def reply_of(response: v2.InferResponse) -> Reply:
    """An infer response with the headers that it needs."""
    if response.json_bytes is None:
        return Reply(response.parts, nulls=response.nulls)
    length = (v2.HEADER_LENGTH.lower().encode(), b"%d" % response.json_bytes)
    return Reply(response.parts, OCTETS, (length,), response.nulls)


def infer_reply(servable: Servable, results: dict[str, Array], output: str | None) -> Reply:
    """The answer in protocol v2.

    Args:
        servable: Who computed it.
        results: Outputs by name.
        output: The one that is read as classes; None for none.
    """
    reading, version = servable.reading, servable.version
    wishes = {} if output is None else {output: OutputParameters(None, reading.top)}
    request = v2.InferRequest({}, wishes=wishes)
    return reply_of(v2.encode_infer(version.name, version.number, request, results, reading.class_strings))


def predict_reply(servable: Servable, results: dict[str, Array], output: str | None) -> Reply:
    """The answer in TF-Serving's dialect: a prediction for each row, where the model has rows.

    Args:
        servable: Who computed it.
        results: Outputs by name.
        output: The one that is read as classes; None for none.
    """
    reading = servable.reading
    if output is None:
        in_rows = reading.has_rows or len(results) == 1
        text = v1.encode_predict(results, servable.signature, in_rows=in_rows)
        return Reply((text,), nulls=count_nulls(text, results.values()))
    rows = reading.classes(output, results[output], reading.top)
    nulls = sum(not math.isfinite(score) for row in rows for score, _, _ in row)
    return Reply((v1.encode_classes(rows),), nulls=nulls)
