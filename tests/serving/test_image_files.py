"""Files from strangers: decoded as Pillow does it, or refused in words, whatever is in them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from infold.errors import InvalidInputError
from infold.serving import image_files
from infold.serving.image_files import decoded
from pictures import Levels, chunk, encoded, noise, orientation, png_header, with_chunks

COLOUR = noise(9, 13, 3)
GREY = noise(9, 13)
PNG, JPEG, WEBP = (encoded(COLOUR, kind) for kind in ("PNG", "JPEG", "WEBP"))
PROGRESSIVE = encoded(COLOUR, "JPEG", progressive=True)


def levels(data: bytes, *, grey: bool = False, exif: bool = False) -> Levels:
    return np.asarray(decoded(data, grey, exif, "inputs[0]"))


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidInputError) as caught:
        decoded(data, False, False, "inputs[0].data[3]")
    assert caught.value.place == "inputs[0].data[3]"
    assert "\n" not in caught.value.detail and len(caught.value.detail) < 200
    return caught.value.detail


# -- pictures as they should be --------------------------------------------------------------------


@pytest.mark.parametrize("data", [PNG, JPEG, WEBP, PROGRESSIVE], ids=["png", "jpeg", "webp", "progressive"])
@pytest.mark.parametrize("grey", [False, True])
def test_a_picture_is_what_pillow_makes_of_it(data: bytes, grey: bool) -> None:
    """In colour or in grey; a view of its bytes does as well."""
    mode = "L" if grey else "RGB"
    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(opened.convert(mode))
    np.testing.assert_array_equal(levels(data, grey=grey), expected)
    viewed = decoded(memoryview(data), grey, False, "p")
    assert viewed.mode == mode
    np.testing.assert_array_equal(np.asarray(viewed), expected)


def modes() -> dict[str, bytes]:
    """A file of every mode that the three formats have."""
    colour = Image.fromarray(COLOUR)
    alpha = Image.fromarray(noise(9, 13, seed=1))
    palette = colour.quantize(8)
    return {
        "1": encoded(colour.convert("1")),
        "L": encoded(GREY),
        "LA": encoded(Image.merge("LA", (Image.fromarray(GREY), alpha))),
        "P": encoded(palette),
        "P with one colour transparent": encoded(palette, transparency=2),
        "P with transparent colours": encoded(palette, transparency=bytes([0, 99, 255, 3])),
        "L with a transparent level": encoded(Image.fromarray(GREY), transparency=7),
        "RGB with a transparent colour": encoded(colour, transparency=(1, 2, 3)),
        "RGBA": encoded(Image.merge("RGBA", (*colour.split(), alpha))),
        "JPEG L": encoded(GREY, "JPEG"),
        "JPEG CMYK": encoded(colour.convert("CMYK"), "JPEG"),
        "WebP RGBA": encoded(
            Image.merge("RGBA", (*colour.split(), alpha)), "WEBP", lossless=True, exact=True
        ),
        "WebP lossless": encoded(colour, "WEBP", lossless=True),
    }


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("name", modes())
@pytest.mark.parametrize("grey", [False, True])
def test_every_mode_is_converted_as_pillow_does_it(name: str, grey: bool) -> None:
    """Alpha is dropped, not blended; one channel stands for three."""
    data = modes()[name]
    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("L" if grey else "RGB"))
    made = levels(data, grey=grey)
    if made.ndim < expected.ndim:
        made = np.repeat(made[..., np.newaxis], 3, axis=2)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("data", [modes()["P with transparent colours"]])
def test_transparency_warns_nobody(data: bytes) -> None:
    """Warnings are errors here, so that this decodes says enough."""
    assert levels(data).shape == (9, 13, 3)


def test_of_sixteen_bits_the_upper_eight_are_taken() -> None:
    """Pillow's own conversion would cut off at 255 and leave a white picture."""
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for grey in (False, True):
        np.testing.assert_array_equal(levels(encoded(Image.fromarray(wide)), grey=grey), wide >> 8)


def test_sixteen_bits_of_colour_are_treated_the_same() -> None:
    """As Pillow reads them."""
    rows = b"".join(b"\0" + struct.pack(">6H", *(np.arange(6) * 9999 + row)) for row in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    made = levels(b"\x89PNG\r\n\x1a\n" + body)
    assert made[0].tolist() == (np.arange(6) * 9999 >> 8).reshape(2, 3).tolist()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_taken(kind: str) -> None:
    """Nobody asked for a film."""
    frames = [Image.fromarray(noise(5, 4, 3, seed=seed)) for seed in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(levels(data), np.asarray(frames[0]))


# -- orientation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_picture_is_turned_only_if_it_is_wanted(kind: str, order: str, value: int) -> None:
    """All eight ways, in both orders of bytes; training pipelines commonly do not look."""
    data = encoded(COLOUR, kind, exif=orientation(value, order))
    with Image.open(BytesIO(data)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        stored = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(levels(data, exif=True), upright)
    np.testing.assert_array_equal(levels(data), stored)
    assert (upright.shape == stored.shape) is (value < 5)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II",
        b"nothing that is known",
        orientation(0),
        orientation(9),
        orientation(6, kind=4),
        orientation(6)[:20],
        orientation(6)[:-20],
        b"Exif\0\0II*\0" + struct.pack("<I", 2**32 - 1),
        b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65535),
    ],
)
@pytest.mark.parametrize("exif", [False, True])
def test_broken_exif_breaks_no_picture(block: bytes, exif: bool) -> None:
    """Nor does it warn: it stays as it is."""
    data = encoded(COLOUR, "JPEG", exif=block)
    data = data[:2] + data[20:]  # without JFIF's resolution, which Pillow would look up in EXIF
    np.testing.assert_array_equal(levels(data, exif=exif), levels(JPEG))


# -- pictures as they should not be ----------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + bytes(50),
        b"BM" + bytes(50),
        b"not a picture",
        encoded(COLOUR, "GIF"),
        encoded(COLOUR, "BMP"),
        encoded(COLOUR, "TIFF"),
        encoded(COLOUR, "PPM"),
        b"\xff\xd8",
        b"RIFF\0\0\0\0WAVE",
        b" " + PNG,
    ],
)
def test_other_formats_are_refused(data: bytes) -> None:
    """Three formats, told by their first bytes."""
    assert refusal(data) == "is no JPEG, PNG or WebP picture"


def test_nothing_is_no_picture() -> None:
    """An empty body is common enough for words of its own."""
    assert refusal(b"") == "is empty"


@pytest.mark.parametrize("data", [PNG, JPEG, WEBP, PROGRESSIVE], ids=["png", "jpeg", "webp", "progressive"])
def test_a_truncated_picture_is_refused(data: bytes) -> None:
    """Never half a picture with grey below it; a PNG may lack what follows its pixels."""
    spare = 20 if data is PNG else 2
    for length in range(4 if data is JPEG else 12, len(data) - spare, 7):
        assert "picture" in refusal(data[:length]), length


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png_header(7072, 7072), "7072 x 7072"),
        (png_header(2**31 - 1, 2**31 - 1), "2147483647 x 2147483647"),
        (png_header(65536, 1), "65536 x 1"),
        (png_header(1, 65536), "1 x 65536"),
        (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\xff\xff\xff\xff\xff\xff", "16777216 x 16777216"),
        (b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f\xff\xff\xff\x0f", "16384 x 16384"),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + b"\xff\x3f\xff\x3f", "16383 x 16383"),
    ],
)
def test_a_size_is_refused_before_there_is_memory_for_it(data: bytes, size: str) -> None:
    """By the header alone: there is nothing else in these files."""
    limit = "which is more than 50 million pixels, or 65535 on a side"
    assert refusal(data) == f"has {size} pixels, {limit}"


def test_a_large_jpeg_is_refused_by_its_header() -> None:
    """Not warned of, and not decoded first."""
    at = JPEG.index(b"\xff\xc0") + 5
    data = JPEG[:at] + struct.pack(">HH", 65500, 65500) + JPEG[at + 4 :]
    assert refusal(data).startswith("has 65500 x 65500 pixels")


def test_a_size_that_is_said_twice_is_counted_once() -> None:
    """A second header within a PNG, behind the one that was checked."""
    twice = with_chunks(PNG, chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)))
    assert refusal(twice).startswith(("has 60000 x 60000", "is no readable PNG"))


def test_the_largest_picture_is_read() -> None:
    """Just below the limit; flat, so that the file is small."""
    assert decoded(encoded(Image.new("1", (10_000, 5_000))), True, False, "p").size == (10_000, 5_000)


def test_many_scans_of_a_large_jpeg_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred bytes each would keep a core busy with all the pixels again."""
    start = PROGRESSIVE.rindex(b"\xff\xda")
    end = len(PROGRESSIVE) - 2
    monkeypatch.setattr(image_files, "MAX_SCANNED", 9 * 13 * 20)
    usual = PROGRESSIVE.count(b"\xff\xda")
    fits = PROGRESSIVE[:end] + PROGRESSIVE[start:end] * (20 - usual) + PROGRESSIVE[end:]
    np.testing.assert_array_equal(levels(fits).shape, (9, 13, 3))
    more = PROGRESSIVE[:end] + PROGRESSIVE[start:end] * (21 - usual) + PROGRESSIVE[end:]
    assert refusal(more) == "goes over its 13 x 9 pixels more than 20 times"


def test_what_looks_like_scans_but_is_none_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preview in a segment, a film behind the picture."""
    monkeypatch.setattr(image_files, "MAX_SCANNED", 9 * 13)
    looks = b"\xff\xda\0\0" * 50
    segment = b"\xff\xe5" + struct.pack(">H", 2 + len(looks)) + looks
    data = JPEG[:2] + segment + JPEG[2:] + b"\0\2" + looks
    np.testing.assert_array_equal(levels(data), levels(JPEG))


def test_a_png_of_many_chunks_is_refused() -> None:
    """However short they are, each takes its time."""
    empty = chunk(b"teSt", b"")
    np.testing.assert_array_equal(levels(with_chunks(PNG, empty * 1000)), COLOUR)
    assert refusal(with_chunks(PNG, empty * 65536)) == "is a PNG of more than 65536 chunks"


def test_what_is_no_pixel_is_not_even_read() -> None:
    """Text that inflates a thousandfold, a broken profile, a broken animation, numbers that warn."""
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * 5_000_000, zip=True)
    data = encoded(Image.fromarray(COLOUR), pnginfo=text)
    frames = chunk(b"acTL", struct.pack(">II", 0, 0))
    for each in (data, with_chunks(PNG, frames, frames), with_chunks(PNG, chunk(b"iCCP", b"x\0\0broken"))):
        np.testing.assert_array_equal(levels(each), COLOUR)
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(5_000_000)))
    np.testing.assert_array_equal(levels(with_chunks(PNG, bomb)), COLOUR)


@pytest.mark.parametrize(
    "failure", [MemoryError(), RecursionError(), zlib.error("x"), KeyError("k"), ValueError()]
)
def test_whatever_a_decoder_raises_is_the_callers_error(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Strangers choose what it meets."""

    def fail(self: object) -> None:
        raise failure

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    assert refusal(PNG).startswith("is no readable PNG picture: ")


@given(st.sampled_from([PNG, JPEG, WEBP, PROGRESSIVE]), st.data())
def test_bytes_that_are_changed_give_a_picture_or_a_refusal(file: bytes, draw: st.DataObject) -> None:
    """Nothing else ever comes out."""
    data = bytearray(file)
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=4)):
        data[at] = draw.draw(st.integers(0, 255))
    try:
        assert decoded(bytes(data), False, True, "p").mode in ("L", "RGB")
    except InvalidInputError as refused:
        assert refused.place == "p"
