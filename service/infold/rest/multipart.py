"""The parts of a form, as browsers and `curl -F` send it.

Source: RFC 7578.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from infold.errors import MalformedBodyError

__all__ = ["Part", "parts_of"]

MAX_HEADER_BYTES = 4096


@dataclass(eq=False, slots=True)
class Part:
    """One part.

    Attributes:
        name: Of its field; empty where it has none.
        content: Its bytes.
    """

    name: str = ""
    content: bytearray = field(default_factory=bytearray)


@dataclass(eq=False, slots=True)
class _Collector:
    """What the parser tells, put together."""

    most: int
    parts: list[Part] = field(default_factory=list)
    key: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    is_complete: bool = False

    def begin(self) -> None:
        if len(self.parts) >= self.most:
            raise MalformedBodyError(f"more than {self.most} parts")
        self.parts.append(Part())

    def add_key(self, data: bytes, start: int, end: int) -> None:
        self._add(self.key, data[start:end])

    def add_value(self, data: bytes, start: int, end: int) -> None:
        self._add(self.value, data[start:end])

    def _add(self, text: bytearray, piece: bytes) -> None:
        text += piece
        if len(text) > MAX_HEADER_BYTES:
            raise MalformedBodyError(
                f"part {len(self.parts) - 1}: a header of more than {MAX_HEADER_BYTES} bytes"
            )

    def end_header(self) -> None:
        if self.key.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self.value))
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
        self.key.clear()
        self.value.clear()

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += memoryview(data)[start:end]

    def end(self) -> None:
        self.is_complete = True


def parts_of(body: bytes, content_type: str, most: int) -> list[Part]:
    """All parts of a form.

    Args:
        body: The form.
        content_type: With the boundary.
        most: Parts that are taken.

    Raises:
        MalformedBodyError: It is no form, cut short, or has too many parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise MalformedBodyError("content-type: multipart/form-data without a boundary")
    found = _Collector(most)
    callbacks: dict[str, Any] = {
        "on_part_begin": found.begin,
        "on_header_field": found.add_key,
        "on_header_value": found.add_value,
        "on_header_end": found.end_header,
        "on_part_data": found.add_data,
        "on_end": found.end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a dict of some of its callbacks
        parser.write(body)
        parser.finalize()
    except FormParserError as broken:
        raise MalformedBodyError(f"no form: {broken}") from None
    if not found.is_complete:
        raise MalformedBodyError("the form ends before its last part does")
    return found.parts
