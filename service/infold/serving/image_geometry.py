"""Where the pixels of a picture go: sizes and offsets, as training libraries compute them; pure numbers.

Every extent is height and width, in this order, as in `model.toml` and in tensors.
"""

from __future__ import annotations

from infold.runtime.image_config import ImageInput, pair

__all__ = ["Extent", "centred", "crop_offset", "final_extent", "resized_extent"]

Extent = tuple[int, int]


def resized_extent(config: ImageInput, extent: Extent) -> Extent:
    """The size that a picture is resampled to.

    For `shorter` as torchvision's Resize of one number does: the longer side is cut to a whole
    number. For `pad` the longer side fits and the other is rounded, at least one pixel.
    """
    height, width = extent
    if config.resize == "none":
        return extent
    wanted = pair(config.size)
    if config.resize == "stretch":
        return wanted
    if config.resize == "shorter":
        size = wanted[0]
        if height <= width:
            return size, int(size * width / height)
        return int(size * height / width), size
    if wanted[0] * width <= wanted[1] * height:  # in whole numbers, so that one side fits exactly
        return wanted[0], max(1, round(width * wanted[0] / height))
    return max(1, round(height * wanted[1] / width)), wanted[1]


def centred(inner: Extent, outer: Extent) -> Extent:
    """Top and left of a picture in the middle of a larger one; what is odd goes below and right."""
    return (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2


def crop_offset(extent: Extent, crop: Extent) -> Extent:
    """Top and left of the cut, as torchvision's CenterCrop has them; negative around a smaller picture."""
    return _cut(extent[0], crop[0]), _cut(extent[1], crop[1])


def final_extent(config: ImageInput) -> tuple[int | None, int | None]:
    """Height and width of every picture in the tensor; None where they depend on the picture."""
    if config.crop:
        return pair(config.crop)
    if config.resize in ("stretch", "pad"):
        return pair(config.size)
    return None, None


def _cut(length: int, crop: int) -> int:
    # Half an odd remainder: to the even number where pixels go, to the lower where some are added.
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
