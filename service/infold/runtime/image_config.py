"""How a picture becomes an input, and an output classes: two sections of `model.toml`, as plain values.

Knows no picture library: what is said here is checked here, and done in `serving/images.py`
and `serving/classes.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = [
    "COLOURS",
    "LAYOUTS",
    "MAX_PIXELS",
    "RESAMPLERS",
    "RESIZES",
    "Classification",
    "ImageInput",
    "pair",
]

RESIZES = ("none", "shorter", "stretch", "pad")
RESAMPLERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
LAYOUTS = ("NCHW", "NHWC", "NHW", "CHW", "HWC", "HW")
COLOURS = {"RGB": 3, "BGR": 3, "L": 1}  # with their channels
MAX_PIXELS = 50_000_000  # of a picture, as it comes and as it is resized


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How a picture becomes an input tensor; the steps are taken in the order of the attributes.

    Attributes:
        input: The input that takes the picture; "" is the only one.
        exif: Turn the picture as its EXIF orientation says.
        colour: `RGB`, `BGR`, or `L` for one channel of grey.
        resize: `none`; `shorter` makes the shorter side `size`, in proportion; `stretch` makes both
            sides `size`; `pad` fits the picture into `size`, in proportion, and fills what is left.
        size: Height and width, or one number for both.
        resampler: Filter of Pillow; all but `nearest` and `box` weigh every pixel they shrink.
        crop: Height and width cut out of the centre, or one number for both; nothing for no cut.
        pad_value: Level, 0 to 255, of what `pad` fills, and `crop` where the picture is smaller.
        scale: Factor on levels of 0 to 255, before `mean` and `std`.
        mean: What is subtracted then, for all channels or each, in the order of `colour`.
        std: What is divided by at last, likewise.
        layout: Order of the axes; N is rows, and without it a request holds one picture.
    """

    input: str = ""
    exif: bool = False
    colour: str = "RGB"
    resize: str = "none"
    size: tuple[int, ...] = ()
    resampler: str = "bilinear"
    crop: tuple[int, ...] = ()
    pad_value: int = 0
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "NCHW"

    @property
    def channels(self) -> int:
        """How many numbers a pixel becomes."""
        return COLOURS[self.colour]

    def problem(self) -> tuple[str, str] | None:
        """The first key that makes no sense, and why, or None."""
        return self._wrong_word() or self._wrong_extent() or self._wrong_number()

    def _wrong_word(self) -> tuple[str, str] | None:
        for key, value, known in (
            ("colour", self.colour, tuple(COLOURS)),
            ("resize", self.resize, RESIZES),
            ("resampler", self.resampler, RESAMPLERS),
            ("layout", self.layout, LAYOUTS),
        ):
            if value not in known:
                return key, f"'{value}' is none of {', '.join(known)}"
        if "C" not in self.layout and self.channels > 1:
            return "layout", f"{self.layout} has no axis for the channels of colour = '{self.colour}'"
        return None

    def _wrong_extent(self) -> tuple[str, str] | None:
        if self.resize == "none" and self.size:
            return "size", "says nothing while resize = 'none'"
        if self.resize == "shorter" and len(self.size) != 1:
            return "size", f"{list(self.size)} is not one number, the shorter side"
        if self.resize in ("stretch", "pad") and not self.size:
            return "size", f"missing: resize = '{self.resize}' needs height and width"
        for key, extent in (("size", self.size), ("crop", self.crop)):
            if len(extent) > 2 or any(each < 1 for each in extent):
                return key, f"{list(extent)} is not one or two numbers above 0"
            if math.prod(pair(extent)) > MAX_PIXELS:
                return key, f"{list(extent)} is more than {MAX_PIXELS // 1_000_000} million pixels"
        return None

    def _wrong_number(self) -> tuple[str, str] | None:
        if not 0 <= self.pad_value <= 255:
            return "pad_value", f"{self.pad_value} is not between 0 and 255"
        if not math.isfinite(self.scale) or self.scale == 0:
            return "scale", f"{self.scale} is no factor"
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, self.channels):
                wanted = "1 number" if self.channels == 1 else f"1 or {self.channels} numbers"
                return key, f"{list(numbers)} is not {wanted}, as colour = '{self.colour}' asks"
            if not all(map(math.isfinite, numbers)):
                return key, f"{list(numbers)} are not all finite"
        if 0 in self.std:
            return "std", f"{list(self.std)} divides by 0"
        return None


@dataclass(frozen=True, slots=True)
class Classification:
    """How an output is read as classes.

    Attributes:
        output: The output that holds a number for each class; "" is the first.
        labels: File of the classes' names, one a line, below the model's folder; "" for none.
        is_logits: Its numbers become probabilities by softmax first.
        top: How many classes are told.
    """

    output: str = ""
    labels: str = ""
    is_logits: bool = False
    top: int = 5

    def problem(self) -> tuple[str, str] | None:
        """The first key that makes no sense, and why, or None."""
        path = PurePosixPath(self.labels)
        if path.is_absolute() or ".." in path.parts or "\\" in self.labels or "\0" in self.labels:
            return "labels", f"'{self.labels}' is no path below the model's folder"
        if not 1 <= self.top <= 1000:
            return "top", f"{self.top} is not between 1 and 1000"
        return None


def pair(extent: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of what one or two numbers say; of nothing, an empty one."""
    return (extent[0], extent[-1]) if extent else (0, 0)
