"""`golden.npz`: inputs and the answers that were given to them once, beside a model.

Arrays `in.<name>` and `out.<name>`. The file comes with the model, from wherever that comes: nothing
in it is unpickled, and nothing is believed of its size before it is counted.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from infold.errors import ConfigError
from infold.runtime.bfloat16 import restored
from infold.runtime.model_files import check_place, open_plain
from infold.tensors import Array

__all__ = ["GOLDEN_FILE", "LIMIT_BYTES", "Golden", "read_golden"]

GOLDEN_FILE = "golden.npz"
INPUT, OUTPUT, SUFFIX = "in.", "out.", ".npy"
LIMIT_BYTES = 256 * 2**20  # of the file, and of all arrays together
MOST_ARRAYS = 4096
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
KINDS = "biufUV"  # V is what bfloat16 has become


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """What such a file holds.

    Attributes:
        inputs: By name.
        outputs: By name; empty where the file has inputs only.
        others: Names of arrays that are neither.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    others: tuple[str, ...] = ()


def read_golden(model: Path, *, inputs_only: bool = False, root: Path | None = None) -> Golden | None:
    """The golden samples beside a model; None where there are none.

    Args:
        model: `<repository>/<name>/<version>/<file>`.
        inputs_only: Outputs are not read.
        root: The repository, where the model lies in another way than that.

    Raises:
        ConfigError: The file cannot be read, is too large, or holds what is no array of numbers or text.
    """
    path = model.with_name(GOLDEN_FILE)
    if not os.path.lexists(path):
        return None
    try:
        if problem := check_place(path, model, root):
            raise ValueError(problem)
        with os.fdopen(open_plain(path), "rb") as file:
            found = _arrays(file, (INPUT,) if inputs_only else (INPUT, OUTPUT))
    except Exception as failure:  # whatever zipfile, zlib and numpy say to a damaged file
        detail = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
        raise ConfigError(str(path), detail) from failure
    known = (INPUT, OUTPUT)
    return Golden(
        {name.removeprefix(INPUT): array for name, array in found.items() if name.startswith(INPUT)},
        {name.removeprefix(OUTPUT): array for name, array in found.items() if name.startswith(OUTPUT)},
        tuple(name for name in found if not name.startswith(known)),
    )


def _arrays(file: IO[bytes], wanted: tuple[str, ...]) -> dict[str, Array]:
    """Arrays by name; empty ones in the place of those that are not wanted."""
    _check_index(file)
    found: dict[str, Array] = {}
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > LIMIT_BYTES:
            raise ValueError(f"its arrays have more than {LIMIT_BYTES} bytes")
        for entry in entries:
            name = entry.filename.removesuffix(SUFFIX)
            if name in found or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name}: is there twice, or compressed as no .npz is")
            if not name.startswith(wanted):
                found[name] = np.empty(0)
                continue
            try:
                with archive.open(entry) as stream:
                    found[name] = _array(stream, entry.file_size)
            except Exception as failure:
                raise ValueError(f"{name}: {str(failure) or type(failure).__name__}") from failure
    return found


def _check_index(file: IO[bytes]) -> None:
    """An index of millions of entries would be read as a whole before the first could be counted."""
    size = file.seek(0, os.SEEK_END)
    if size > LIMIT_BYTES:
        raise ValueError(f"has {size} bytes, more than {LIMIT_BYTES}")
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise ValueError("is no .npz file")
    entries = int.from_bytes(tail[at + 10 : at + 12], "little")
    index_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    if (
        entries > MOST_ARRAYS
        or index_bytes > MOST_ARRAYS * 1024
        or b"PK\x06\x07" in tail[max(0, at - 20) : at]
    ):
        raise ValueError(f"holds more than {MOST_ARRAYS} arrays")
    file.seek(0)


def _array(stream: IO[bytes], size: int) -> Array:
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of numpy's format is not read")
    shape, is_by_columns, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not read; text is to be of type U")
    if dtype.kind not in KINDS or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"is of type {dtype}")
    count = math.prod(shape)
    if any(length < 0 for length in shape) or count * dtype.itemsize > size:
        raise ValueError(f"announces {count} elements, which are not there")
    content = stream.read(count * dtype.itemsize + 1)
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"has other than the {count * dtype.itemsize} bytes of its shape")
    array = np.ndarray(shape, dtype, content, order="F" if is_by_columns else "C")
    if dtype.kind == "U":
        return array.astype(np.object_)
    return restored(array.astype(dtype.newbyteorder("="), order="C"))
