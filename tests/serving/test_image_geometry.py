"""Sizes and offsets of pictures: the rules of training libraries, as algebra."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.runtime import ImageInput
from infold.serving.image_geometry import centred, crop_offset, final_extent, resized_extent

lengths = st.integers(1, 5000)
extents = st.tuples(lengths, lengths)


@given(extents, st.integers(1, 1000))
def test_shorter_keeps_the_proportion_as_torchvision_does(extent: tuple[int, int], size: int) -> None:
    """The shorter side is met; the longer one is cut down, never rounded up."""
    height, width = resized_extent(ImageInput(resize="shorter", size=(size,)), extent)
    short, long = sorted((height, width))
    assert short == size
    assert long == int(size * max(extent) / min(extent))
    assert (height <= width) is (extent[0] <= extent[1]) or height == width


@given(extents, extents)
def test_stretch_and_none_look_at_one_side_of_it_only(extent: tuple[int, int], size: tuple[int, int]) -> None:
    """One takes the size that is wanted, the other the size that is there."""
    assert resized_extent(ImageInput(resize="stretch", size=size), extent) == size
    assert resized_extent(ImageInput(), extent) == extent


@given(extents, extents)
def test_pad_fits_into_its_frame_and_touches_it(extent: tuple[int, int], frame: tuple[int, int]) -> None:
    """One side is met, none is beyond; the other is in proportion to half a pixel, but never nothing."""
    height, width = resized_extent(ImageInput(resize="pad", size=frame), extent)
    assert height == frame[0] or width == frame[1]
    assert 1 <= height <= frame[0] and 1 <= width <= frame[1]
    factor = min(frame[0] / extent[0], frame[1] / extent[1])
    for length, whole in ((height, extent[0]), (width, extent[1])):
        assert abs(length - whole * factor) <= 0.5 + 1e-9 or length == 1


@given(extents, extents)
def test_what_is_centred_has_the_same_margins(inner: tuple[int, int], more: tuple[int, int]) -> None:
    """Or one more below and right."""
    outer = (inner[0] + more[0], inner[1] + more[1])
    for before, inside, whole in zip(centred(inner, outer), inner, outer, strict=True):
        assert whole - inside - before - before in (0, 1)


@given(extents, extents)
def test_a_cut_lies_within_the_picture_or_holds_it(extent: tuple[int, int], crop: tuple[int, int]) -> None:
    """Never over one edge alone, and in the middle to half a pixel."""
    for start, length, wanted in zip(crop_offset(extent, crop), extent, crop, strict=True):
        assert (start >= 0 and start + wanted <= length) or (start <= 0 and start + wanted >= length)
        assert abs(2 * start - (length - wanted)) <= 1


@pytest.mark.parametrize(
    ("length", "crop", "start"),
    [(10, 10, 0), (11, 10, 0), (13, 10, 2), (15, 10, 2), (17, 10, 4), (9, 10, 0), (7, 10, -1), (8, 11, -1)],
)
def test_half_a_pixel_goes_where_torchvision_puts_it(length: int, crop: int, start: int) -> None:
    """To the even number in a cut; below and right in what is added around."""
    assert crop_offset((length, 5), (crop, 5)) == (start, 0)
    assert crop_offset((5, length), (5, crop)) == (0, start)


@pytest.mark.parametrize(
    ("config", "extent"),
    [
        (ImageInput(), (None, None)),
        (ImageInput(resize="shorter", size=(8,)), (None, None)),
        (ImageInput(resize="shorter", size=(8,), crop=(6,)), (6, 6)),
        (ImageInput(resize="stretch", size=(8, 9)), (8, 9)),
        (ImageInput(resize="pad", size=(8,)), (8, 8)),
        (ImageInput(resize="pad", size=(8,), crop=(9, 7)), (9, 7)),
        (ImageInput(crop=(3, 4)), (3, 4)),
    ],
)
def test_what_is_known_before_any_picture_comes(config: ImageInput, extent: tuple[int | None, ...]) -> None:
    """The cut comes last, so it decides."""
    assert final_extent(config) == extent
