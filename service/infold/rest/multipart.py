"""The parts of a form, as browsers and `curl -F` send it.

The boundary is looked for by `bytes.find`, and what is no delimiter but begins like one is
refused: a reader that goes through it byte by byte can be kept busy by a body made for that.

Source: RFC 7578; RFC 2046, 5.1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from infold.errors import MalformedBodyError

__all__ = ["MAX_HEADER_BYTES", "Part", "parts_of"]

MAX_HEADER_BYTES = 4096  # of all headers of a part
MAX_BOUNDARY_BYTES = 200
NEW_LINE = b"\r\n"
PARAMETER = re.compile(rb';[ \t]*([^=;"\s]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# Behind the boundary: the end of its line, or two hyphens behind the last part.
END_OF_DELIMITER = re.compile(rb"(--)|[ \t]*\r\n")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One part.

    Attributes:
        name: Of its field; empty where it has none.
        content: Its bytes.
    """

    name: str
    content: memoryview


def parts_of(body: bytes, content_type: str, most: int) -> list[Part]:
    """All parts of a form, their contents views of it.

    Args:
        body: The form.
        content_type: With the boundary.
        most: Parts that are taken.

    Raises:
        MalformedBodyError: It is no form, cut short, or has too many parts.
    """
    boundary = _parameters(content_type.encode("latin-1")).get(b"boundary", b"")
    if not boundary:
        raise MalformedBodyError("content-type: multipart/form-data without a boundary")
    if len(boundary) > MAX_BOUNDARY_BYTES:
        raise MalformedBodyError(f"content-type: a boundary of more than {MAX_BOUNDARY_BYTES} bytes")
    delimiter = b"\r\n--" + boundary
    is_at_once = body.startswith(delimiter[2:])  # without a line of its own in front
    found = -2 if is_at_once else body.find(delimiter)
    if found == -1:
        what = "the boundary that content-type tells is not in it" if body else "is empty"
        raise MalformedBodyError(f"body: {what}")
    parts: list[Part] = []
    while True:
        end = END_OF_DELIMITER.match(body, found + len(delimiter))
        if end is None:
            raise MalformedBodyError(f"parts[{len(parts)}]: begins behind a boundary whose line goes on")
        if end[1]:
            return parts
        if len(parts) == most:
            raise MalformedBodyError(f"body: more than {most} parts")
        found = body.find(delimiter, end.end() - len(NEW_LINE))
        if found < 0:
            raise MalformedBodyError(f"parts[{len(parts)}]: the form ends before this part does")
        parts.append(_part(body, end.end(), found, f"parts[{len(parts)}]"))


def _part(body: bytes, begin: int, end: int, place: str) -> Part:
    """What stands between two delimiters: headers, an empty line, the content."""
    if body.startswith(NEW_LINE, begin) and begin + len(NEW_LINE) <= end:
        return Part("", memoryview(body)[begin + len(NEW_LINE) : end])
    last = body.find(2 * NEW_LINE, begin, min(end, begin + MAX_HEADER_BYTES))
    if last < 0:
        if end - begin > MAX_HEADER_BYTES:
            raise MalformedBodyError(f"{place}: no content within {MAX_HEADER_BYTES} bytes of headers")
        raise MalformedBodyError(f"{place}: has no empty line behind its headers")
    return Part(_name(body[begin:last]), memoryview(body)[last + 2 * len(NEW_LINE) : end])


def _name(headers: bytes) -> str:
    for line in headers.split(NEW_LINE):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            return _parameters(value).get(b"name", b"").decode("utf-8", "replace")
    return ""


def _parameters(header: bytes) -> dict[bytes, bytes]:
    """Parameters of a header by their names in lower case, the first of each."""
    found: dict[bytes, bytes] = {}
    for name, value in PARAMETER.findall(header):
        is_quoted = value.startswith(b'"') and value.endswith(b'"') and len(value) > 1
        plain = ESCAPED.sub(rb"\1", value[1:-1]) if is_quoted else value.strip(b" \t")
        found.setdefault(name.lower(), plain)
    return found
