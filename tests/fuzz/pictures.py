"""Pictures as bodies, alone, in forms and in messages: whole, damaged, and of sizes that they cannot have."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from fuzz.asking import Request, infer, json_length, predict
from fuzz.damage import damaged

__all__ = ["PNG", "TARGETS", "WEBP", "images", "multipart", "pictures_in_messages"]


def _saved(kind: str, mode: str, **options: Any) -> bytes:
    """A picture of 8 x 8 that is right."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _png(width: int, height: int, pixels: bytes, *, depth: int = 8, color: int = 2) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def _jpeg(width: int, height: int) -> bytes:
    """The beginning of an image of that size."""
    frame = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    return (
        b"\xff\xd8\xff\xc0"
        + struct.pack(">H", len(frame) + 2)
        + frame
        + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\0\xff\xd9"
    )


PNG, WEBP = _saved("PNG", "RGB"), _saved("WEBP", "RGB", lossless=True)
IMAGES = [
    PNG,
    WEBP,
    _saved("JPEG", "RGB"),
    _saved("PNG", "RGBA"),
    _saved("PNG", "P"),
    _saved("PNG", "1"),
    _saved("PNG", "LA"),
    _saved("JPEG", "CMYK"),
    _saved("JPEG", "L", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    _saved("GIF", "P"),
    _saved("BMP", "RGB"),
    _png(50_000, 50_000, b"\0" * 100),
    _png(2**31 - 1, 1, b""),
    _png(0, 0, b""),
    _png(1, 1, b"\0\0\0", depth=16, color=6),
    _png(3000, 3000, b"\0" * 27_003_000),
    _jpeg(65_500, 65_500),
    _jpeg(1, 1),
    b"GIF89a\x01\0\x01\0\0\0\0;",
    b"II*\0\x08\0\0\0\xff\xff",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
]


TARGETS = b"/v2/models/picture/infer /v2/models/picture/versions/1/infer /v1/models/picture:predict".split()
OTHER_TARGETS = [
    b"/v2/models/echo_uint8/infer",
    b"/v1/models/echo_float:predict",
    b"/v2/models/sums/infer?top=3",
]
ANY_TARGET = st.sampled_from(TARGETS * 3 + OTHER_TARGETS)


@st.composite
def images(draw: st.DrawFn) -> Request:
    """Pictures as they are, under types they need not be of."""
    types = [b"image/png", b"image/jpeg", b"image/gif", b"image/x; a=b", b"IMAGE/PNG", b"image/"]
    body = damaged(draw, draw(st.sampled_from(IMAGES)))
    return Request(draw(ANY_TARGET), body, headers=((b"content-type", draw(st.sampled_from(types))),))


@st.composite
def multipart(draw: st.DrawFn) -> Request:
    """Forms with parts of any number, their boundary present, absent or something else."""
    part = b"--b\r\ncontent-disposition: form-data; name=%s; filename=%s\r\n"
    part += b"content-type: image/png\r\n\r\n%s\r\n"
    names = [b'"image"', b'"x"', b"", b'"../../etc/passwd"', b'"\0"', b'"' + b"n" * 5000 + b'"']
    name, file = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    parts = [part % (name, file, draw(st.sampled_from(IMAGES)))] * draw(st.sampled_from([0, 1, 1, 2, 300]))
    types = [
        b"boundary=b",
        b"boundary=b",
        b"boundary=",
        b"",
        b"boundary=c",
        b'boundary="b',
        b"boundary=" + b"b" * 5000,
    ]
    headers = ((b"content-type", b"multipart/form-data; " + draw(st.sampled_from(types))),)
    return Request(draw(ANY_TARGET), damaged(draw, b"".join(parts) + b"--b--\r\n"), headers=headers)


@st.composite
def pictures_in_messages(draw: st.DrawFn) -> Request:
    """Pictures in base 64, in rows, in columns, as data; or as bytes behind a header."""
    files = [damaged(draw, draw(st.sampled_from(IMAGES))) for _ in range(draw(st.sampled_from([1, 1, 2, 0])))]
    texts = [base64.b64encode(each).decode() for each in files]
    count = len(files) + draw(st.sampled_from([0, 0, 0, 1]))
    entry: dict[str, Any] = {"name": "x", "shape": [count, 1], "datatype": "BYTES"}
    match draw(st.sampled_from(["rows", "named rows", "column", "data", "bytes"])):
        case "rows":
            return predict("picture", json.dumps({"instances": [{"b64": each} for each in texts]}).encode())
        case "named rows":
            rows = [{"x": {"b64": each}} for each in texts]
            return predict("picture", json.dumps({"instances": rows}).encode())
        case "column":
            column = {"x": [{"b64": each} for each in texts]}
            return predict("picture", json.dumps({"inputs": column}).encode())
        case "data":
            return infer("picture", json.dumps({"inputs": [{**entry, "data": texts}]}).encode())
    blob = b"".join(struct.pack("<I", len(each)) + each for each in files)
    entry["parameters"] = {"binary_data_size": len(blob)}
    text = json.dumps({"inputs": [entry]}).encode()
    return infer("picture", text + blob, json_length(len(text)))
