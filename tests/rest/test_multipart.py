"""Forms: whatever clients write comes apart as it was put together; all else is refused, and soon."""

from __future__ import annotations

import re

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infold.errors import MalformedBodyError, RequestError
from infold.rest.multipart import MAX_HEADER_BYTES, parts_of

TYPE = "multipart/form-data; boundary=b"
HEADER = b'Content-Disposition: form-data; name="x"\r\n'
# Contents that look like what stands between parts.
contents = st.lists(
    st.sampled_from([b"\r\n", b"--", b"b", b"\r", b"\n", b"-", b"\r\n--", b"\r\n-b", b"\0\xff"]), max_size=12
).map(b"".join) | st.binary(max_size=200)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    """Parts as they are, between delimiters."""
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b" + end


def split(body: bytes, content_type: str = TYPE, most: int = 9) -> list[tuple[str, bytes]]:
    return [(part.name, bytes(part.content)) for part in parts_of(body, content_type, most)]


def refusal(body: bytes, content_type: str = TYPE, most: int = 9) -> str:
    """What is said of a body that is not taken."""
    with pytest.raises(MalformedBodyError) as caught:
        parts_of(body, content_type, most)
    return str(caught.value)


# -- what clients write ----------------------------------------------------------------------------


@given(st.lists(st.tuples(names, contents), min_size=1, max_size=5))
def test_what_httpx_writes_comes_apart_as_it_was(given_parts: list[tuple[str, bytes]]) -> None:
    """Order, names that come twice, and every byte."""
    files = [(name, ("file.png", content, "image/png")) for name, content in given_parts]
    request = httpx.Request("POST", "http://here", files=files)
    found = split(request.read(), request.headers["content-type"])
    assert [content for _, content in found] == [content for _, content in given_parts]
    for (told, _), (name, _) in zip(found, given_parts, strict=True):
        assert told == re.sub(r'["\0-\x1a\x1c-\x1f]', lambda found: f"%{ord(found[0]):02X}", name)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="image"; filename="a.png"', "image"),
        ('form-data; filename="a; name=no"; name="image"', "image"),
        ('form-data; filename="a\\"; name=\\"no"; name="image"', "image"),
        ("form-data;name=image", "image"),
        ('form-data ; NAME = "im;age"', "im;age"),
        ('form-data; name="zw\u00f6lf"', "zw\u00f6lf"),
        ('form-data; name="a\\"b\\\\c"', 'a"b\\c'),
        ("form-data; name*=utf-8''no; name=\"image\"", "image"),
        ('form-data; name="image', '"image'),
        ("form-data; name=", ""),
        ("form-data", ""),
        ('form-data; name="first"; name="second"', "first"),
    ],
)
def test_a_part_has_the_name_of_its_field(disposition: str, name: str) -> None:
    """As the header has it, quoted or not; nothing within another parameter counts."""
    header = f"Content-Type: image/png\r\ncontent-disposition: {disposition}\r\nX: name=no\r\n".encode()
    assert split(form(header + b"\r\n1")) == [(name, b"1")]


def test_bytes_that_are_no_utf_8_in_a_name_are_shown_as_such() -> None:
    """A name is only told."""
    assert split(form(b'Content-Disposition: form-data; name="\xff"\r\n\r\n1')) == [("\ufffd", b"1")]


def test_a_part_may_have_no_headers_or_no_content() -> None:
    """Both are how browsers and hands write it."""
    assert split(form(b"\r\n1", HEADER + b"\r\n", b"\r\n")) == [("", b"1"), ("x", b""), ("", b"")]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", b"b"),
        ('Multipart/Form-Data;charset=utf-8; BOUNDARY="b"', b"b"),
        ('multipart/form-data; boundary="a b\\"c"', b'a b"c'),
        ("multipart/form-data; boundary=" + "x" * 200, b"x" * 200),
        ("multipart/form-data; boundary=----WebKitFormBoundaryABC", b"----WebKitFormBoundaryABC"),
    ],
)
def test_the_boundary_is_what_the_content_type_says(content_type: str, boundary: bytes) -> None:
    """Quoted or not, beside other parameters."""
    body = b"--" + boundary + b"\r\n" + HEADER + b"\r\n1\r\n--" + boundary + b"--"
    assert split(body, content_type) == [("x", b"1")]


def test_what_stands_in_front_and_behind_is_passed_over() -> None:
    """As are spaces behind a boundary; all of that RFC 2046 allows."""
    body = b"preamble --b\r\n--b \t\r\n" + HEADER + b"\r\n1\r\n--b--epilogue\r\n--b\r\n"
    assert split(body) == [("x", b"1")]
    assert split(b"\r\n" + form(HEADER + b"\r\n1", end=b"--")) == [("x", b"1")]


def test_a_form_may_have_no_parts() -> None:
    """Whoever wants some says so."""
    assert split(form()) == []


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("multipart/form-data", "without a boundary"),
        ("multipart/form-data; boundary=", "without a boundary"),
        ('multipart/form-data; boundary=""', "without a boundary"),
        ("multipart/form-data; xboundary=b", "without a boundary"),
        ("multipart/form-data; boundary*=b", "without a boundary"),
        ("multipart/form-data; boundary=" + "x" * 201, "a boundary of more than 200 bytes"),
    ],
)
def test_without_a_boundary_there_are_no_parts(content_type: str, words: str) -> None:
    """The header is named."""
    text = refusal(form(b"\r\n1"), content_type)
    assert text.startswith("content-type: ")
    assert words in text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "body: is empty"),
        (b"hello", "body: the boundary that content-type tells is not in it"),
        (b"--c\r\n\r\n1\r\n--c--", "body: the boundary that content-type tells is not in it"),
        (b" --b\r\n\r\n1\r\n", "body: the boundary that content-type tells is not in it"),
        (b"--b", "parts[0]: begins behind a boundary whose line goes on"),
        (b"--b\n\n1\n--b--", "parts[0]: begins behind a boundary whose line goes on"),
        (form(b"\r\n1", end=b"b\r\n"), "parts[1]: begins behind a boundary whose line goes on"),
        (form(b"\r\n1", end=b"-\r\n"), "parts[1]: begins behind a boundary whose line goes on"),
        (form(b"\r\n1\r\n--bc\r\n"), "parts[1]: begins behind a boundary whose line goes on"),
        (b"--b\r\n", "parts[0]: the form ends before this part does"),
        (form(b"\r\n1", end=b"\r\n\r\n2\r\n-"), "parts[1]: the form ends before this part does"),
        (form(HEADER), "parts[0]: has no empty line behind its headers"),
        (form(b"1"), "parts[0]: has no empty line behind its headers"),
        (b"--b\r\n--b--", "parts[0]: has no empty line behind its headers"),
        (b"--b\r\n\r\n--b--", "parts[0]: has no empty line behind its headers"),
        (form(b"\r\n1", b"", b"\r\n2"), "parts[1]: has no empty line behind its headers"),
    ],
)
def test_what_is_no_form_is_told_by_its_place(body: bytes, text: str) -> None:
    """The first thing that is wrong."""
    assert refusal(body) == text


def test_too_many_parts_and_too_long_headers_are_refused() -> None:
    """To the byte."""
    assert len(split(form(*[b"\r\n1"] * 9))) == 9
    assert refusal(form(*[b"\r\n1"] * 10)) == "body: more than 9 parts"
    for more in (0, 1):
        header = b"X: " + b"y" * (MAX_HEADER_BYTES - 7 + more) + b"\r\n\r\n"
        body = form(b"\r\n0", header + b"1")
        if more:
            assert refusal(body) == f"parts[1]: no content within {MAX_HEADER_BYTES} bytes of headers"
        else:
            assert split(body) == [("", b"0"), ("", b"1")]


@pytest.mark.parametrize("cut", range(len(form(HEADER + b"\r\n1", b"\r\n22")) - 2))
def test_a_form_that_is_cut_off_is_never_half_a_form(cut: int) -> None:
    """Wherever it is, up to its last hyphen."""
    assert refusal(form(HEADER + b"\r\n1", b"\r\n22")[:cut])


@settings(max_examples=400)
@given(st.data())
def test_whatever_comes_is_parts_or_a_refusal(data: st.DataObject) -> None:
    """What httpx writes with bytes changed, put in, taken out and doubled; so with the content type."""
    files = [("a", ("n", b"\r\n--x")), ("b", ("m", b"12"))]
    request = httpx.Request("POST", "http://here", files=files, headers={"content-type": TYPE})
    spoilt = [bytearray(request.read()), bytearray(TYPE.encode())]
    pieces = [
        b"\r\n",
        b"--b",
        b"\r\n--b",
        b"--",
        b'"',
        b";",
        b"=",
        b":",
        b"\r\n\r\n",
        b"boundary=",
        b"name=",
        b"\xff",
    ]
    for _ in range(data.draw(st.integers(1, 6))):
        target = spoilt[data.draw(st.sampled_from([0, 0, 0, 1]))]
        at, cut = data.draw(st.integers(0, len(target))), data.draw(st.integers(0, 5))
        target[at : at + cut] = data.draw(st.sampled_from(pieces) | st.binary(max_size=2))
    body, content_type = bytes(spoilt[0]), spoilt[1].decode("latin-1")
    try:
        found = parts_of(body, content_type, 9)
    except RequestError as refused:
        assert len(str(refused)) < 300
        return
    assert sum(len(part.content) for part in found) <= len(body)


@pytest.mark.parametrize(
    "piece", [b"\r\n--b", b"\r\n--bx", b"\r\n--b-", b"\r\n--", b"\r", b"\r\n", b"--b\r\n", b" "]
)
def test_a_body_made_to_take_long_takes_no_step_for_each_byte(piece: bytes) -> None:
    """The boundary is looked for once a part, however often it begins."""
    looked = 0

    class Counted(bytes):
        def find(self, *arguments: object) -> int:  # type: ignore[override]
            nonlocal looked
            looked += 1
            return super().find(*arguments)  # type: ignore[arg-type]

    for begin in (b"", b"--b\r\n", b"--b\r\n\r\n", b"--b\r\n" + HEADER):
        with pytest.raises(MalformedBodyError):
            parts_of(Counted(begin + piece * 10_000), TYPE, 9)
    assert looked <= 4 * 20
