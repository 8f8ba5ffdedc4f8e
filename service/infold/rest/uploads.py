"""Bodies that are no message of a protocol: a picture, several in a form, an array of numpy's."""

from __future__ import annotations

import io
import math
import tokenize
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.lib import format as npy

from infold.errors import InvalidInputError, UnsupportedMediaError
from infold.rest.binary import read_blob
from infold.rest.codec import DATATYPES, MAX_RANK
from infold.rest.multipart import parts_of
from infold.serving import Reading
from infold.tensors import Array, Signature

__all__ = ["Form", "Upload", "form_of", "tensors_of"]

MAX_PICTURES = 256
MAX_ELEMENTS = 2**31
LONGEST_HEADER = 10_000


class Form(Enum):
    """What the bytes of a body are."""

    JSON = auto()
    PICTURE = auto()
    PICTURES = auto()
    ARRAY = auto()


# Types of bodies by what curl, browsers and clients call them; none at all is JSON.
FORMS = {
    "": Form.JSON,
    "application/x-www-form-urlencoded": Form.JSON,  # what curl says of anything
    "application/octet-stream": Form.JSON,  # what aiohttp says; a header tells of bytes behind the JSON
    "multipart/form-data": Form.PICTURES,
    "application/x-npy": Form.ARRAY,
    "application/npy": Form.ARRAY,
}


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that carries inputs without a message around them.

    Attributes:
        form: What it is.
        content_type: As its header says, with the boundary of a form's parts.
    """

    form: Form
    content_type: str


def form_of(content_type: str | None) -> Form:
    """What a body of a content type is.

    Raises:
        UnsupportedMediaError: None that is served.
    """
    if content_type is None or content_type == "application/json":
        return Form.JSON
    media = content_type.partition(";")[0].strip().lower()
    if media in FORMS:
        return FORMS[media]
    kind, _, name = media.partition("/")
    if kind == "image":
        return Form.PICTURE
    if kind == "text" or name == "json" or name.endswith("+json"):
        return Form.JSON
    raise UnsupportedMediaError(
        f"content-type '{media[:100]}' is not served; JSON is, and image/jpeg, image/png, image/webp, "
        "multipart/form-data, application/x-npy and application/octet-stream"
    )


def tensors_of(
    upload: Upload, body: bytes | memoryview, signature: Signature, reading: Reading
) -> dict[str, Array]:
    """The inputs that an upload holds.

    Raises:
        UnsupportedMediaError: The model takes no pictures.
        MalformedBodyError: A form that is none.
        InvalidInputError: What it holds does not fit the model; names the place.
    """
    if upload.form is Form.ARRAY:
        return _array(memoryview(body), signature)
    if reading.picture is None:
        raise UnsupportedMediaError("the model takes no pictures: its model.toml has no section [image]")
    if len(signature.inputs) != 1:
        names = ", ".join(f"'{each.name}'" for each in signature.inputs)
        raise InvalidInputError("body", f"the model has several inputs, send a message: {names}")
    if upload.form is Form.PICTURE:
        return {reading.picture.name: reading.tensor_of([body], lambda _: "body")}
    parts = parts_of(bytes(body), upload.content_type, MAX_PICTURES)
    places = [f"part '{part.name}'" if part.name else f"part {number}" for number, part in enumerate(parts)]
    if not parts:
        raise InvalidInputError("body", "the form has no parts")
    pictures = [memoryview(part.content) for part in parts]
    return {reading.picture.name: reading.tensor_of(pictures, places.__getitem__)}


def _array(body: memoryview, signature: Signature) -> dict[str, Array]:
    """The only input, from a `.npy` file; its data is not copied where it lies as it must."""
    if len(signature.inputs) != 1:
        names = ", ".join(f"'{each.name}'" for each in signature.inputs)
        raise InvalidInputError("body", f"the model has several inputs, and a .npy file holds one: {names}")
    (spec,) = signature.inputs
    shape, is_fortran, dtype, start = _npy_header(body)
    if dtype.newbyteorder("=") != spec.dtype:
        detail = f"holds {dtype.newbyteorder('=')}, the model takes {spec.dtype} ({DATATYPES[spec.dtype]})"
        raise InvalidInputError("body", detail)
    data = body[start:]
    if dtype.newbyteorder("<") != dtype:
        whole = data[: len(data) // dtype.itemsize * dtype.itemsize]
        data = memoryview(np.frombuffer(whole, dtype).astype(dtype.newbyteorder("<")).tobytes())
    array = read_blob(data, spec.dtype, shape[::-1] if is_fortran else shape, "body")
    if is_fortran:
        array = np.ascontiguousarray(array.T)
    if problem := spec.mismatch(array):
        raise InvalidInputError("body", problem)
    return {spec.name: array}


def _npy_header(body: memoryview) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, whether it is column-major, type, and where the data begins."""
    file = io.BytesIO(bytes(body[: LONGEST_HEADER + 12]))
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read(file, max_header_size=LONGEST_HEADER)
    except (ValueError, KeyError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError):
        raise InvalidInputError("body", "is no .npy file") from None
    if dtype.kind not in "biuf" or len(shape) > MAX_RANK or any(length < 0 for length in shape):
        raise InvalidInputError("body", f"holds {str(dtype)[:100]} in {len(shape)} axes, which is no tensor")
    if math.prod(max(1, length) for length in shape) >= MAX_ELEMENTS:
        raise InvalidInputError("body", f"shape {list(shape)} has too many elements")
    return shape, is_fortran, dtype, file.tell()
