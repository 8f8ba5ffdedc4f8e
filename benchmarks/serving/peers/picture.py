"""A picture as the tensor of a network, the way most people write it: Pillow, then numpy."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHORTER, CROP = 256, 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def tensor_of(content: bytes) -> NDArray[np.float32]:
    """A batch of one: the shorter side made 256, the centre of 224 x 224, ImageNet's mean and deviation."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    width, height = image.size
    if width < height:
        size = SHORTER, SHORTER * height // width
    else:
        size = SHORTER * width // height, SHORTER
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - CROP) / 2) for side in size)
    image = image.crop((left, top, left + CROP, top + CROP))
    x = (np.asarray(image, np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(x.transpose(2, 0, 1)[np.newaxis])
