"""What every answer must be, whatever was asked: never a failure of ours, and a refusal that says where."""

from __future__ import annotations

import re

import orjson

from fuzz.asking import Answer, Request, Stream

__all__ = ["NOT_SERVED", "judge", "judge_unparsed", "refusal"]

# Parts of the protocol that a server may do without, and then says so by 501.
NOT_SERVED = re.compile(
    rb"/v2/(?:systemsharedmemory|cudasharedmemory|logging|trace)"
    rb"|/(?:generate|generate_stream|trace)\b|:(?:classify|regress|explain)\b"
)

# The words by which a refusal names its place: parts of a request as the protocols call them, a header,
# a model or path, or the file of a model.
PLACE = re.compile(
    r"^(?:inputs|outputs|instances|parameters|id|signature_name|request|body|JSON|models|input)\b"
    r"|^parts\[\d+\]"
    r"|`[a-z_]+`|Expected `|'instances'|'inputs'|not a predict request|\brequest body\b"
    r"|^Inference-Header-Content-Length|\bcontent-encoding\b|\bcontent-type\b|^Content-|^Accept"
    r"|unknown model: '|^model '|^failed to load '|deadline passed after|there is no /|is not allowed on /"
    r"| is not served by infold$|--model-control explicit$|its model\.toml has no"
    r"|^HTTP request: |bytes are left behind the last input|^more than \d+ (?:inputs|parts|bytes of headers)"
)


def judge(request: Request, answer: Answer) -> None:
    """Pass an answer that a caller may get: a success, or a refusal that says what and where."""
    allowed = {501} if NOT_SERVED.search(request.target) else set[int]()
    if b'"timeout"' in (request.body or b""):
        allowed.add(504)  # a microsecond is soon over
    _check(answer, request, allowed, has_body=request.method != b"HEAD")


def judge_unparsed(stream: Stream, answer: Answer) -> None:
    """The same for an answer to bytes that may be no HTTP at all."""
    if answer.status == 400 and b"HTTP request" in answer.body:
        assert answer.is_last, stream
    _check(answer, stream, {501}, has_body=True)


def _check(answer: Answer, asked: Request | Stream, allowed: set[int], *, has_body: bool) -> None:
    assert answer.status < 500 or answer.status in allowed, (asked, answer)
    assert b"set-cookie" not in answer.headers, asked  # nobody writes headers through a path
    if answer.status >= 400 and has_body:
        text = refusal(answer)
        assert PLACE.search(text), f"no place in {text[:400]!r}: {asked}"


def refusal(answer: Answer) -> str:
    """The text of a refusal, which is JSON of one key."""
    assert answer.headers.get(b"content-type") == b"application/json", answer
    content = orjson.loads(answer.body)
    assert list(content) == ["error"] and isinstance(content["error"], str), answer
    assert content["error"].strip(), answer
    return content["error"]
