"""The version that a path or a message asks for."""

from __future__ import annotations

from infold.errors import ModelNotFoundError
from infold.rest.wire import LABEL
from infold.serving import Catalogue

__all__ = ["version_asked"]


def version_asked(models: Catalogue, model: str, text: str | None) -> int | None:
    """The number that a path gives, by itself or as a label; None where it gives none.

    Raises:
        ModelNotFoundError: It is no number, or no label of the model.
    """
    if text is None:
        return None
    if text.startswith(LABEL):
        return models.labelled(model, text.removeprefix(LABEL))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelNotFoundError(model, text)
    return int(text)
