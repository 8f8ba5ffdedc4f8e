"""infold's reading and writing of FP32 part by part, to see which of them takes the time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from cases import Values, body_of

from infold.rest.binary import blob, read_blob
from infold.rest.codec import decode_array, encode_json, json_ready
from infold.rest.cutting import SMALL_BYTES, cut
from infold.rest.plain import read_plain
from infold.rest.v2 import DATA_KEY, decode_infer

__all__ = ["PARTS", "parts_of"]

WHOLE, PLAIN, CUT, ARRAY = "v2.decode_infer", "plain.read_plain", "cutting.cut", "codec.decode_array"
READ_BLOB, BLOB, ENCODE = "binary.read_blob", "binary.blob", "codec.encode_json"
PARTS = (WHOLE, PLAIN, CUT, ARRAY, ENCODE, READ_BLOB, BLOB)


def parts_of(values: Values) -> dict[str, Callable[[], object]]:
    """Each part on what it is given inside a whole request; without those that such a request skips."""
    array, signature = values.array, values.signature
    body = body_of(values)
    text = body[body.index(b'"data"') :]
    text = text[text.index(b"[") : text.rindex(b"]}]}") + 1]
    raw, flat = memoryview(array.tobytes()), array.reshape(-1)
    calls: dict[str, Callable[[], object]] = {
        WHOLE: partial(decode_infer, body, None, signature),
        ARRAY: partial(decode_array, text, array.dtype, "data"),
        ENCODE: lambda: encode_json(json_ready(flat)),
        READ_BLOB: partial(read_blob, raw, np.dtype(np.float32), array.shape, "data"),
        BLOB: partial(blob, array),
    }
    if len(body) <= SMALL_BYTES:
        calls[PLAIN] = partial(read_plain, body, signature)
    else:
        calls[CUT] = partial(cut, body, DATA_KEY)
    return calls
