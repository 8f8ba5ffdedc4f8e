"""How pictures become an input of a model, and how an output is read as classes, once it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infold.errors import ConfigError
from infold.runtime import ImageInput
from infold.serving import classes, images
from infold.serving.classes import class_output, labels_file, read_labels, softmax, top_classes
from infold.serving.repository import ModelVersion
from infold.tensors import Array, Signature, TensorSpec, kind_of

__all__ = ["Reading", "reading_of"]

Class = tuple[float, int, str | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model's `[image]` and `[classification]` sections come to.

    Attributes:
        picture: The input that takes pictures; None where none does.
        image: How.
        class_output: The output that is read as classes unless a request says otherwise; None for none.
        top: How many classes are told then.
        is_logits: Its numbers become probabilities first.
        labels: Names of the classes, by output.
        has_rows: The first axis of every output is rows.
    """

    picture: TensorSpec | None = None
    image: ImageInput | None = None
    class_output: str | None = None
    top: int = 5
    is_logits: bool = False
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    has_rows: bool = True

    def takes_pictures(self, spec: TensorSpec) -> bool:
        """A picture may stand where this input does."""
        return self.picture is not None and spec.name == self.picture.name

    def tensor_of(self, pictures: Sequence[bytes | memoryview], place: Callable[[int], str]) -> Array:
        """Pictures as the tensor of the input that takes them.

        Raises:
            InvalidInputError: See `images.tensor_of`.
        """
        assert self.image is not None
        assert self.picture is not None
        return images.tensor_of(pictures, self.image, self.picture, place)

    def classes(self, output: str, array: Array, top: int) -> list[list[Class]]:
        """The largest values of an output, of each row, each with its index and label.

        Args:
            output: Its name.
            array: Its values.
            top: How many; fewer where there are fewer.
        """
        if self._is_by_rows(output, array):
            rows = array if array.ndim > 1 else array.reshape(-1, 1)
        else:
            rows = array.reshape(1, -1)
        if output == self.class_output and self.is_logits:
            rows = softmax(rows)
        # In the fewest digits of its own type, as JSON has it.
        exact = np.float64 if rows.dtype == np.float64 else np.float32
        is_float = kind_of(rows.dtype) == "f"
        return [
            [(float(str(exact(value))) if is_float else value, index, label) for value, index, label in row]
            for row in top_classes(rows, top, self.labels.get(output))
        ]

    def class_strings(self, output: str, array: Array, top: int) -> Array:
        """As `classes`, each as `value:index` or `value:index:label`.

        Returns:
            Strings, [rows, top], or [top] of an output that has no rows.

        Source: Triton's docs/protocol/extension_classification.md.
        """
        texts = [
            [f"{value}:{index}" + ("" if label is None else f":{label}") for value, index, label in row]
            for row in self.classes(output, array, top)
        ]
        strings = np.empty((len(texts), len(texts[0]) if texts else 0), np.object_)
        for row, words in zip(strings, texts, strict=True):
            row[:] = words
        return strings if self._is_by_rows(output, array) else strings.reshape(-1)

    def _is_by_rows(self, output: str, array: Array) -> bool:
        """Its first axis is rows: in the output that `[classification]` means, a fixed one too."""
        return self.has_rows or (output == self.class_output and array.ndim > 1)


def reading_of(version: ModelVersion, signature: Signature) -> Reading:
    """What a loaded version's configuration comes to.

    Raises:
        ConfigError: It does not fit the model, or its labels cannot be read.
    """
    folder = version.folder
    place, config = folder / "model.toml", version.config
    labels: dict[str, Sequence[str]] = {}
    if version.triton is not None:
        labels = {
            output: read_labels(labels_file(folder, name)) for output, name in version.triton.labels.items()
        }
    picture = chosen = None
    if config.image is not None:
        if problem := images.check(config.image, signature):
            raise ConfigError(str(place), problem)
        picture = images.picture_input(config.image, signature)
    told = config.classification
    if told is not None:
        chosen = class_output(told, signature)
        if told.labels and chosen is not None:
            labels[chosen.name] = read_labels(labels_file(folder, told.labels))
        own = labels.get(chosen.name) if chosen is not None else None
        if problem := classes.check(told, own, signature):
            raise ConfigError(str(place), problem)
    return Reading(
        picture,
        config.image,
        None if chosen is None else chosen.name,
        5 if told is None else told.top,
        told is not None and told.is_logits,
        labels,
        signature.is_batched,
    )
