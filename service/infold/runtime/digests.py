"""What a model file is, in one digest, without reading it again while it lies as it lay.

Hashing a model takes a good part of a start. So a digest is kept with the file's
size, times and inode, and believed as long as none of them has changed. A file
that was written a moment ago is not remembered: it might be written once more
within what its file system can tell apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Digest", "Digests"]

# An entry of external data as protobuf writes it, up to the length of its value.
LOCATION = b"\x0a\x08location\x12"
FOLDER = ".digests"
PIECE_BYTES = 2**20
# An entry may lie across two pieces: what is kept of one for the next.
LONGEST_ENTRY_BYTES = 2**14 + 2**5
SETTLED_NS = 2 * 10**9  # older than the coarsest time a file system keeps


@dataclass(frozen=True, slots=True)
class Digest:
    """A model file.

    Attributes:
        sha256: Of its bytes, as hexadecimal digits.
        weight_files: Names it gives of files with weights, sorted.
    """

    sha256: str
    weight_files: tuple[str, ...]


class Digests:
    """Digests of files, remembered in a folder.

    Args:
        folder: A cache's own; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / FOLDER

    def of(self, model: Path) -> Digest:
        """The digest of a file.

        Raises:
            OSError: It cannot be read.
            ValueError: It is empty.
        """
        before = _stamp(model)
        if (known := self._remembered(model, before)) is not None:
            return known
        digest = _computed(model)
        if _stamp(model) == before and time.time_ns() - max(before[1:3]) > SETTLED_NS:
            self._remember(model, before, digest)
        return digest

    def _place(self, model: Path) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / hashlib.sha256(os.fsencode(model.resolve())).hexdigest()

    def _remembered(self, model: Path, stamp: tuple[int, ...]) -> Digest | None:
        place = self._place(model)
        if place is None:
            return None
        try:
            kept = json.loads(place.read_text(encoding="utf-8"))
            if tuple(kept["stamp"]) != stamp or len(kept["sha256"]) != hashlib.sha256().digest_size * 2:
                return None
            return Digest(str(kept["sha256"]), tuple(map(str, kept["weight_files"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, model: Path, stamp: tuple[int, ...], digest: Digest) -> None:
        place = self._place(model)
        if place is None:
            return
        kept = {"stamp": stamp, "sha256": digest.sha256, "weight_files": digest.weight_files}
        new = place.with_name(f"{place.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            place.parent.mkdir(mode=0o700, exist_ok=True)
            new.write_text(json.dumps(kept), encoding="utf-8")
            new.replace(place)


def _stamp(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev


def _computed(model: Path) -> Digest:
    """Read piece by piece: one call for all of it would keep every other thread waiting."""
    digest, names, rest = hashlib.sha256(), set[str](), b""
    with model.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            rest += piece
            names |= _weight_files(rest)
            rest = rest[-LONGEST_ENTRY_BYTES:]
    if not rest:
        raise ValueError("an empty file")
    return Digest(digest.hexdigest(), tuple(sorted(names)))


def _weight_files(content: bytes) -> set[str]:
    """Names that a model gives of files with weights, as they usually stand in its bytes.

    Source: ONNX, TensorProto.external_data: entries of a key, `location`, and a value.
    """
    found: set[str] = set()
    at = content.find(LOCATION)
    while at >= 0:
        start = at + len(LOCATION)
        head = content[start : start + 2]
        length, start = head[0] if head else 0, start + 1
        if length >= 0x80 and len(head) == 2:  # a length of two bytes; no file's name has more
            length, start = (length & 0x7F) | head[1] << 7, start + 1
        if start + length <= len(content):  # or the rest of it is to come
            found.add(content[start : start + length].decode("utf-8", "replace"))
        at = content.find(LOCATION, start)
    return found
