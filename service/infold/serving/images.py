"""Pictures as a tensor, prepared as the model's `[image]` section says; knows no HTTP.

Decoding and resampling are Pillow's, 8 bits a channel, as in most training pipelines. What comes
after is one of 256 levels of each channel, so `(level * scale - mean) / std` is worked out once
for each level, in float64, rounded to the model's type, and looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infold.errors import InvalidInputError
from infold.runtime import ImageInput
from infold.runtime.image_config import MAX_PIXELS, pair
from infold.serving.image_files import decoded, load_decoders
from infold.serving.image_geometry import centred, crop_offset, final_extent, resized_extent
from infold.tensors import Array, Signature, TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PICTURES", "check", "picture_input", "tensor_of"]

MAX_PICTURES = 1024  # of a request
MAX_DECODED = 10 * MAX_PIXELS  # of all pictures of a request, as they come: a few bytes may claim millions
STRIP = 1 << 20  # pixels that are looked up at once, which bounds memory


def picture_input(config: ImageInput, signature: Signature) -> TensorSpec | None:
    """The input that takes the picture; None where the model has it not, or several for no name."""
    if config.input:
        return signature.input(config.input)
    return signature.inputs[0] if len(signature.inputs) == 1 else None


def check(config: ImageInput, signature: Signature) -> str | None:
    """Why this section does not fit the model, its key in front, or None; decoders are loaded then."""
    spec = picture_input(config, signature)
    if spec is None:
        names = ", ".join(f"'{each.name}'" for each in signature.inputs)
        if config.input:
            return f"image.input: the model has no input '{config.input}'; it has {names}"
        return f"image.input: missing, and the model has not one input but {names}"
    problem = _misfit(config, spec) or _out_of_range(config, spec)
    if problem is None:
        load_decoders()
    return problem


def tensor_of(
    pictures: Sequence[bytes | memoryview],
    config: ImageInput,
    spec: TensorSpec,
    place: Callable[[int], str],
) -> Array:
    """Pictures, decoded and prepared, as the tensor of an input.

    Args:
        pictures: JPEG, PNG or WebP files, a row each; one where the layout has no rows.
        config: For which `check` found nothing wrong.
        spec: The input.
        place: What to call a picture in an error, by its number.

    Raises:
        InvalidInputError: What cannot be decoded, or does not fit the model or the other pictures.
    """
    if not pictures:
        raise InvalidInputError(place(0), "no picture is given")
    if len(pictures) > 1 and "N" not in config.layout:
        raise InvalidInputError(place(1), "the model takes one picture a request")
    if len(pictures) > MAX_PICTURES:
        raise InvalidInputError(place(MAX_PICTURES), f"one too many: a request holds {MAX_PICTURES} pictures")
    tables = _tables(config, spec.dtype)
    tensor: Array | None = None
    pixels = 0
    for row, data in enumerate(pictures):
        image = decoded(data, config.colour == "L", config.exif, place(row))
        pixels += image.width * image.height
        if pixels > MAX_DECODED:
            limit = f"a request holds {MAX_DECODED // 1_000_000} million pixels"
            raise InvalidInputError(place(row), f"one too many: {limit} in all its pictures")
        levels = _levels(image, config, place(row))
        if tensor is None:
            _check_extent(levels, config, spec, place(row))
            most = MAX_PIXELS // levels[..., 0].size
            if len(pictures) > most:
                raise InvalidInputError(place(most), f"one too many: of this size a request holds {most}")
            tensor = np.empty(_shape(config, len(pictures), levels), spec.dtype)
            first = levels.shape[:2]
        elif levels.shape[:2] != first:
            theirs, ours = _shown(levels.shape[:2]), _shown(first)
            raise InvalidInputError(place(row), f"becomes {theirs} pixels, but the first picture {ours}")
        target = tensor[row] if "N" in config.layout else tensor
        _write(levels, tables, target, config)
    assert tensor is not None
    return tensor


# -- pixels ----------------------------------------------------------------------------------------


def _levels(image: Image, config: ImageInput, place: str) -> NDArray[np.uint8]:
    """A picture in its final size, as [height, width, 1 or 3]."""
    image = _cropped(_resized(image, config, place), config)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)


def _resized(image: Image, config: ImageInput, place: str) -> Image:
    height, width = resized_extent(config, (image.height, image.width))
    # One side first, the other then: which one differs between versions of Pillow.
    if max(height * width, height * image.width, image.height * width) > MAX_PIXELS:
        before, after = _shown((image.height, image.width)), _shown((height, width))
        limit = f"more than {MAX_PIXELS // 1_000_000} million on the way"
        raise InvalidInputError(place, f"has {before} pixels and becomes {after}, with {limit}")
    if (width, height) != image.size:
        from PIL.Image import Resampling

        image = image.resize((width, height), Resampling[config.resampler.upper()])
    if config.resize != "pad":
        return image
    top, left = centred((height, width), pair(config.size))
    return _on_ground(image, pair(config.size), (top, left), config.pad_value)


def _cropped(image: Image, config: ImageInput) -> Image:
    if not config.crop:
        return image
    height, width = pair(config.crop)
    top, left = crop_offset((image.height, image.width), (height, width))
    if top >= 0 and left >= 0:
        return image.crop((left, top, left + width, top + height))
    return _on_ground(image, (height, width), (-top, -left), config.pad_value)


def _on_ground(image: Image, extent: tuple[int, int], at: tuple[int, int], level: int) -> Image:
    """The picture pasted onto an even one; what lies outside is cut off."""
    from PIL import Image

    ground = Image.new(image.mode, (extent[1], extent[0]), level if image.mode == "L" else (level,) * 3)
    ground.paste(image, (at[1], at[0]))
    return ground


# -- numbers ---------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _tables(config: ImageInput, dtype: np.dtype[np.generic]) -> Array:
    """For each channel of the tensor, what each of the 256 levels becomes, [C, 256]."""
    return _rounded(_exact(config), dtype).astype(dtype)


def _exact(config: ImageInput) -> NDArray[np.float64]:
    mean, std = (np.broadcast_to(each, config.channels)[:, np.newaxis] for each in (config.mean, config.std))
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that `check` refuses
        return np.asarray((np.arange(256) * config.scale - mean) / std, np.float64)


def _rounded(numbers: NDArray[np.float64], dtype: np.dtype[np.generic]) -> NDArray[np.float64]:
    return np.rint(numbers) if dtype.kind in "iu" else numbers


def _write(levels: NDArray[np.uint8], tables: Array, target: Array, config: ImageInput) -> None:
    """Look up every level of a picture, right into its place in the tensor."""
    height, width, bands = levels.shape
    axes = config.layout.removeprefix("N")
    planes = target.transpose([axes.index(each) for each in "CHW"]) if "C" in axes else target[np.newaxis]
    step = max(1, STRIP // width)
    for top in range(0, height, step):
        strip = slice(top, top + step)
        for channel, table in enumerate(tables):
            source = 0 if bands == 1 else 2 - channel if config.colour == "BGR" else channel
            table.take(levels[strip, :, source], out=planes[channel, strip], mode="clip")


def _shape(config: ImageInput, rows: int, levels: NDArray[np.uint8]) -> tuple[int, ...]:
    lengths = {"N": rows, "C": config.channels, "H": levels.shape[0], "W": levels.shape[1]}
    return tuple(lengths[axis] for axis in config.layout)


# -- what fits the model ---------------------------------------------------------------------------


def _misfit(config: ImageInput, spec: TensorSpec) -> str | None:
    if spec.dtype.kind not in "fiu":
        return f"image.input: '{spec.name}' takes {spec.dtype}, and a picture is numbers"
    if spec.shape is None:
        return None
    its = f"input '{spec.name}' of shape {spec.wire_shape()}"
    if len(config.layout) != len(spec.shape):
        return f"image.layout: {config.layout} has {len(config.layout)} axes, which does not fit {its}"
    lengths: dict[str, tuple[int | None, str]] = {"N": (None, ""), "C": (config.channels, "colour")}
    key = "crop" if config.crop else "size"
    lengths["H"], lengths["W"] = ((length, key) for length in final_extent(config))
    for axis, dim in zip(config.layout, spec.shape, strict=True):
        length, key = lengths[axis]
        if isinstance(dim, int) and length not in (None, dim):
            return f"image.{key}: {axis} of {config.layout} becomes {length}, which does not fit {its}"
    return None


def _out_of_range(config: ImageInput, spec: TensorSpec) -> str | None:
    numbers = _rounded(_exact(config), spec.dtype)
    low, high = float(numbers.min()) + 0.0, float(numbers.max()) + 0.0  # no -0 in words
    kind = spec.dtype.name
    if spec.dtype.kind == "f":
        most = float(np.finfo(kind).max)
        is_within = -most <= low and high <= most
    else:  # as Python's numbers, which compare exactly
        is_within = int(np.iinfo(kind).min) <= low and high <= int(np.iinfo(kind).max)
    if is_within:
        return None
    return f"image.scale: levels become {low:g} to {high:g}, which does not fit {kind}"


def _check_extent(levels: NDArray[np.uint8], config: ImageInput, spec: TensorSpec, place: str) -> None:
    """Only where the picture decides its size can it fail to be the model's."""
    dims = dict(zip(config.layout, spec.shape or (), strict=False))
    for axis, length in zip("HW", levels.shape, strict=False):
        dim = dims.get(axis)
        if isinstance(dim, int) and dim != length:
            word = "high" if axis == "H" else "wide"
            raise InvalidInputError(place, f"becomes {length} pixels {word}, the model takes {dim}")


def _shown(extent: tuple[int, ...]) -> str:
    return f"{extent[1]} x {extent[0]}"
