"""Inputs, outputs and samples of a Triton configuration: what is wrong with them, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from infold.errors import ConfigError
from infold.runtime.triton_words import DATA_TYPES, TritonTensor, Warmup, WarmupInput

__all__ = ["label_files", "plain_name", "tensors", "warmups", "word"]

MOST_RUNS = 10_000  # of one warm-up sample
MOST_AXES = 32  # as requests may have
# Fields of an input or output that would change what it means, and what they would mean.
UNSERVED = {
    "is_shape_tensor": "shape tensors are not served",
    "allow_ragged_batch": "rows of different shapes are not joined",
    "optional": "optional inputs are not served",
    "is_non_linear_format_io": "other orders of elements are not served",
}


def tensors(declared: Sequence[Any], place: str) -> tuple[TritonTensor, ...]:
    """All inputs, or all outputs.

    Raises:
        ConfigError: One makes no sense, or asks for what is not served.
    """
    found: dict[str, TritonTensor] = {}
    for index, each in enumerate(declared):
        tensor = _tensor(each, f"{place}[{index}]")
        if tensor.name in found:
            raise ConfigError(f"{place}[{index}].name", f"'{tensor.name}' is declared twice")
        found[tensor.name] = tensor
    return tuple(found.values())


def _tensor(declared: Any, place: str) -> TritonTensor:
    if not declared.name:
        raise ConfigError(f"{place}.name", "missing")
    known = declared.DESCRIPTOR.fields_by_name
    for name, why in UNSERVED.items():
        if name in known and getattr(declared, name):
            raise ConfigError(f"{place}.{name}", why)
    dims = _dims(declared.dims, f"{place}.dims")
    reshape = None
    if declared.HasField("reshape"):
        reshape = _dims(declared.reshape.shape, f"{place}.reshape.shape")
        if _runs_of_lengths(dims) != _runs_of_lengths(reshape):
            raise ConfigError(
                f"{place}.reshape.shape", f"{list(reshape)} does not hold the same elements as {list(dims)}"
            )
    data_type = word(declared, "data_type", place)
    if data_type == "TYPE_INVALID":
        raise ConfigError(f"{place}.data_type", "missing")
    order = word(declared, "format", place) if "format" in known else "FORMAT_NONE"
    return TritonTensor(declared.name, data_type, dims, reshape, order)


def _dims(dims: Sequence[int], place: str) -> tuple[int, ...]:
    if len(dims) > MOST_AXES:
        raise ConfigError(place, f"{len(dims)} axes; {MOST_AXES} are the most")
    if any(dim < 1 and dim != -1 for dim in dims):
        raise ConfigError(place, f"{list(dims)[:10]} are not all at least 1, or -1 for any length")
    return tuple(dims)


def _runs_of_lengths(dims: Sequence[int]) -> list[int]:
    """Products of the lengths between the open ones, which thereby keep their places in a reshape."""
    products = [1]
    for dim in dims:
        if dim == -1:
            products.append(1)
        else:
            products[-1] *= dim
    return products


def label_files(outputs: Sequence[Any], place: str) -> dict[str, str]:
    """Files of labels by the output's name.

    Raises:
        ConfigError: A name leads out of the model's folder.
    """
    return {
        each.name: inner_path(each.label_filename, f"{place}[{index}].label_filename")
        for index, each in enumerate(outputs)
        if each.label_filename
    }


def warmups(samples: Sequence[Any], place: str, most: int) -> tuple[Warmup, ...]:
    """All samples to run; one of `batch_size` 0 is, as in Triton, not run.

    Args:
        samples: As they stand.
        place: Where they do.
        most: Rows that one may have; 0 where that is not said.

    Raises:
        ConfigError: One makes no sense.
    """
    return tuple(
        _warmup(sample, f"{place}[{index}]", most)
        for index, sample in enumerate(samples)
        if sample.batch_size
    )


def _warmup(sample: Any, place: str, most: int) -> Warmup:
    if most and sample.batch_size > most:
        raise ConfigError(f"{place}.batch_size", f"{sample.batch_size} is more than {most}")
    if sample.count > MOST_RUNS:
        raise ConfigError(f"{place}.count", f"{sample.count} is more than {MOST_RUNS}")
    inputs = tuple(_warmup_inputs(sample.inputs, f"{place}.inputs"))
    return Warmup(sample.name or place.rpartition(": ")[2], sample.batch_size, inputs, sample.count or 1)


def _warmup_inputs(inputs: Any, place: str) -> Iterator[WarmupInput]:
    for name in sorted(inputs):
        given, where = inputs[name], f"{place}['{name}']"
        data = given.WhichOneof("input_data_type")
        if data is None:
            raise ConfigError(where, "says neither zero_data nor random_data nor input_data_file")
        data_type = word(given, "data_type", where)
        if data_type not in DATA_TYPES:
            raise ConfigError(f"{where}.data_type", f"{data_type} cannot be made here")
        dims = tuple(given.dims)
        if any(dim < 0 for dim in dims):
            raise ConfigError(f"{where}.dims", f"{list(dims)[:10]} are not all given")
        file = (
            inner_path(given.input_data_file, f"{where}.input_data_file") if data == "input_data_file" else ""
        )
        yield WarmupInput(name, data_type, dims, data, file)


def word(message: Any, field: str, place: str) -> str:
    """The word of a field that takes one of a few.

    Raises:
        ConfigError: It is a number that stands for none.
    """
    number = getattr(message, field)
    values = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    if number not in values:
        raise ConfigError(f"{place}.{field}", f"{number} stands for nothing")
    return str(values[number].name)


def plain_name(name: str, place: str) -> str:
    """The name, which is one of a file and no path.

    Raises:
        ConfigError: It is not.
    """
    if len(name) > 128 or name in (".", "..") or any(each in name for each in "/\\\0"):
        raise ConfigError(place, f"'{name[:100]}' is no name of a file in the version's folder")
    return name


def inner_path(text: str, place: str) -> str:
    """A path that leads down only.

    Raises:
        ConfigError: It does not.
    """
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or any(each in text for each in "\\\0"):
        raise ConfigError(place, f"'{text[:100]}' leads out of the model's folder")
    return str(path)
