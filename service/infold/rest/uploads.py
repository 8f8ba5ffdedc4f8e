"""Bodies that are no message of a protocol: a picture, several in a form, an array of numpy's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from infold.errors import InvalidInputError, UnsupportedMediaError
from infold.rest.multipart import parts_of
from infold.rest.npy import read_npy
from infold.serving import MAX_PICTURES, Reading
from infold.tensors import Array, Signature

__all__ = ["Form", "Upload", "form_of", "refuse_if_unfit", "tensors_of"]

MAX_NAME = 100


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


def refuse_if_unfit(form: Form, signature: Signature, reading: Reading) -> None:
    """The model takes such bodies, whatever is in them; messages every model takes.

    Raises:
        UnsupportedMediaError: It takes no pictures.
        InvalidInputError: It has several inputs, and a body without a message holds one.
    """
    if form is Form.JSON:
        return
    if form is not Form.ARRAY and reading.picture is None:
        raise UnsupportedMediaError("the model takes no pictures: its model.toml has no section [image]")
    if len(signature.inputs) != 1:
        names = ", ".join(f"'{each.name}'" for each in signature.inputs)
        raise InvalidInputError(
            "body", f"holds one input, and the model has several, send a message: {names}"
        )


def tensors_of(
    upload: Upload, body: bytes | memoryview, signature: Signature, reading: Reading
) -> dict[str, Array]:
    """The inputs that an upload holds.

    Args:
        upload: What the model was found to take.
        body: All of it.
        signature: The model's.
        reading: How it takes pictures.

    Raises:
        MalformedBodyError: A form that is none.
        InvalidInputError: What it holds does not fit the model; names the place.
    """
    (spec,) = signature.inputs
    match upload.form:
        case Form.ARRAY:
            array = read_npy(memoryview(body), spec, "body")
            if problem := spec.mismatch(array):
                raise InvalidInputError("body", problem)
            return {spec.name: array}
        case Form.PICTURE:
            return {spec.name: reading.tensor_of([body], lambda _: "body")}
        case Form.PICTURES:
            return {spec.name: _from_form(body, upload.content_type, reading)}
        case Form.JSON:
            raise AssertionError("a message is no upload")


def _from_form(body: bytes | memoryview, content_type: str, reading: Reading) -> Array:
    parts = parts_of(bytes(body), content_type, MAX_PICTURES)
    if not parts:
        raise InvalidInputError("body", "the form has no parts")
    places = [f"parts[{index}]{_called(part.name)}" for index, part in enumerate(parts)]
    return reading.tensor_of([part.content for part in parts], places.__getitem__)


def _called(name: str) -> str:
    """How a part's name is added to its number: names come twice."""
    return f" '{name[:MAX_NAME]}'" if name else ""
