"""Which libraries a shared library asks the loader for, read from its file without loading it.

Loading a provider of onnxruntime by ourselves would run its initializers before onnxruntime is ready for
them. Only 64-bit ELF files of this machine's byte order are read: what there is of onnxruntime-gpu.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import BinaryIO

__all__ = ["needed_libraries"]

MAGIC, IS_64_BIT = b"\x7fELF", 2
LITTLE, BIG = 1, 2
LOAD, DYNAMIC = 1, 2  # kinds of segments
NEEDED, STRING_TABLE = 1, 5  # tags of dynamic entries
LONGEST_NAME = 4096


def needed_libraries(path: Path) -> tuple[str, ...]:
    """Names of the libraries that one needs, in the order in which the loader looks for them.

    Args:
        path: Of a shared library.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no ELF file of this machine.
    """
    with path.open("rb") as file:
        try:
            return _needed(file)
        except (struct.error, StopIteration) as cut:
            raise ValueError(f"{path}: no whole ELF file") from cut


def _needed(file: BinaryIO) -> tuple[str, ...]:
    head = file.read(16)
    order = LITTLE if sys.byteorder == "little" else BIG
    if len(head) < 16 or head[:4] != MAGIC or head[4] != IS_64_BIT or head[5] != order:
        raise ValueError(f"{file.name}: no ELF file of this machine")
    (start,) = _read(file, 32, "=Q")
    size, count = _read(file, 54, "=HH")
    segments = [_read(file, start + size * index, "=IIQQQQ") for index in range(count)]
    loads = [(place, offset, length) for kind, _, offset, place, _, length in segments if kind == LOAD]
    dynamic = next((each for each in segments if each[0] == DYNAMIC), None)
    if dynamic is None:
        return ()
    entries = [_read(file, dynamic[2] + 16 * index, "=qQ") for index in range(dynamic[5] // 16)]
    table = next(value for tag, value in entries if tag == STRING_TABLE)
    strings = next(table - place + offset for place, offset, length in loads if 0 <= table - place < length)
    return tuple(_name(file, strings + value) for tag, value in entries if tag == NEEDED)


def _read(file: BinaryIO, offset: int, form: str) -> tuple[int, ...]:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _name(file: BinaryIO, offset: int) -> str:
    file.seek(offset)
    return file.read(LONGEST_NAME).partition(b"\0")[0].decode("utf-8", errors="replace")
