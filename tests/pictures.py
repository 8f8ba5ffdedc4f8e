"""Small picture files for tests, made in memory."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Levels:
    """Levels of which no two rows are alike."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(picture: Image.Image | Levels, kind: str = "PNG", **options: Any) -> bytes:
    """The file that Pillow writes."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG, its checksum right."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks put in behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has nothing in it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def orientation(value: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block that says how a picture is turned, behind a tag that does not matter."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tags = struct.pack(f"{order}HHIHxx", 0x0100, 3, 1, 9) + struct.pack(
        f"{order}HHIHxx", 0x0112, kind, 1, value
    )
    return b"Exif\0\0" + mark + struct.pack(f"{order}IH", 8, 2) + tags + struct.pack(f"{order}I", 0)
