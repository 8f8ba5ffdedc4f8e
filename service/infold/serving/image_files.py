"""From the bytes of a JPEG, PNG or WebP file to pixels in memory; whatever is wrong is the caller's error.

The bytes come from strangers. Sizes are read before anything is decoded, work and memory are
bounded, and only what makes the picture reaches the decoders: no colour profile, no text, no animation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from infold.errors import InvalidInputError
from infold.runtime.image_config import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

__all__ = ["decoded", "load_decoders"]

PNG = b"\x89PNG\r\n\x1a\n"
PICTURE_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"eXIf", b"IEND")
MAX_CHUNKS = 65_536  # of a PNG: each costs time, however short it is
MAX_SIDE = 65_535  # what a JPEG can be at most
MAX_SCANNED = 20 * MAX_PIXELS  # of a JPEG in all its scans; usual files have up to ten
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
ORIENTATION = 0x0112


def load_decoders() -> None:
    """What decodes pictures is loaded, so that no request waits for it."""
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin
    import PIL.WebPImagePlugin  # noqa: F401 - used as an attribute of PIL


def decoded(data: bytes | memoryview, grey: bool, exif: bool, place: str) -> Image:
    """The picture of a file, in mode `L` or `RGB`.

    Colours become what Pillow's own `convert` makes of them: alpha is dropped, not blended, and no
    colour profile is applied. Where a colour picture is wanted, a grey one stays `L`, which saves
    two thirds of the work and changes no number. Of 16 bits the upper eight are taken.

    Args:
        data: The file; of an animated one the first picture, or a PNG's default one.
        grey: `L` is wanted.
        exif: Turn it as its EXIF orientation says.
        place: What to call it in an error.

    Raises:
        InvalidInputError: No such file, broken, or too large.
    """
    raw = bytes(data)
    kind = _format(raw)
    if kind is None:
        raise InvalidInputError(place, "is no JPEG, PNG or WebP picture" if raw else "is empty")
    if kind == "WebP":
        _check_size(_webp_size(raw), place)
    try:
        image = _opened(raw, kind, place)
        _check_size(image.size, place)
        if kind == "JPEG":
            _check_scans(raw, image.size, place)
        image.load()
        turn = _orientation(image.info.get("exif")) if exif else 1
        return _turned(_plain(image, grey), turn)
    except InvalidInputError:
        raise
    except Exception as failure:  # decoders fed by a stranger raise what they like
        raise InvalidInputError(place, f"is no readable {kind} picture: {_words(failure)}") from None


def _format(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(PNG):
        return "PNG"
    return "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _opened(data: bytes, kind: str, place: str) -> ImageFile:
    """Past the header, with nothing decoded.

    Straight by the class of the format: `Image.open` would look at a size of its own choice and
    warn, or take a second picture in a JPEG for an animation.
    """
    if kind == "PNG":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile(BytesIO(_picture_chunks(data, place)))
    if kind == "WebP":
        from PIL.WebPImagePlugin import WebPImageFile

        return WebPImageFile(BytesIO(data))
    return _jpeg()(BytesIO(data))


@cache
def _jpeg() -> type[ImageFile]:
    from PIL.JpegImagePlugin import JpegImageFile

    class Jpeg(JpegImageFile):
        def _read_dpi_from_exif(self) -> None:
            """Resolution is of no use here, and broken EXIF would warn."""

    return Jpeg


# -- limits ----------------------------------------------------------------------------------------


def _check_size(size: tuple[int, int], place: str) -> None:
    width, height = size
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 1_000_000} million pixels, or {MAX_SIDE} on a side"
        raise InvalidInputError(place, f"has {width} x {height} pixels, which is more than {limit}")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height that the decoder will get memory for; 0 where the header is cut off."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _check_scans(data: bytes, size: tuple[int, int], place: str) -> None:
    """A JPEG may go over all its pixels again with every hundred bytes: that would keep a core for hours."""
    most = MAX_SCANNED // (size[0] * size[1])
    if data.count(b"\xff\xda") > most and sum(1 for _ in _scans(data)) > most:
        raise InvalidInputError(place, f"goes over its {size[0]} x {size[1]} pixels more than {most} times")


def _scans(data: bytes) -> Iterator[int]:
    """Where each scan of a JPEG begins; pictures within its segments or behind its end do not count."""
    at = 2
    while found := MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return
        if marker == 0xDA:
            yield at
        if marker not in (0x01, 0xD8):  # all others have a length
            at += int.from_bytes(data[at : at + 2])


def _picture_chunks(data: bytes, place: str) -> bytes:
    """A PNG with nothing in it but the picture and its orientation."""
    pieces, at, count = [PNG], len(PNG), 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in PICTURE_CHUNKS:
            pieces.append(data[at : at + 12 + length])
        at += 12 + length
        count += 1
        if count > MAX_CHUNKS:
            raise InvalidInputError(place, f"is a PNG of more than {MAX_CHUNKS} chunks")
        if name == b"IEND":
            break
    return b"".join(pieces)


# -- colours and orientation -----------------------------------------------------------------------


def _plain(image: ImageFile, grey: bool) -> Image:
    if image.mode in ("I", "I;16"):
        from PIL import Image

        levels = np.asarray(image).astype(np.uint16) >> 8  # Pillow would cut off at 255
        return Image.frombytes("L", image.size, levels.astype(np.uint8).tobytes())
    wanted = "L" if grey or image.mode in ("1", "L", "LA") else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _orientation(exif: object) -> int:
    """The number from 1 to 8 in the first directory of an EXIF block; 1 where there is none to be read."""
    block = exif if isinstance(exif, bytes) else b""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, at)
            if tag == ORIENTATION:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _turned(image: Image, orientation: int) -> Image:
    """The picture as it was seen."""
    if orientation == 1:
        return image
    from PIL.Image import Transpose

    steps = (
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    return image.transpose(steps[orientation - 2])


def _words(failure: Exception) -> str:
    """What a decoder said, as one short line."""
    text = " ".join(str(failure).split()) or type(failure).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."
