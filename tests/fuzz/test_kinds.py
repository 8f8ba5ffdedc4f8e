"""Every other kind of request, fuzzed: served or not, it is answered or refused, never our failure."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import pictures
from fuzz.asking import Line, Request
from fuzz.compression import compressed_drafts
from fuzz.drafts import Draft, assert_answered
from fuzz.judging import judge
from fuzz.kinds import KINDS
from fuzz.routes import PATHS, VERBS
from fuzz.sizes import scaled
from fuzz.test_tensors import ONE_SERVER


@pytest.mark.parametrize("requests", KINDS, ids=lambda each: each.__name__)
@settings(max_examples=scaled(600), **ONE_SERVER)
@given(data=st.data())
def test_every_kind_is_answered_or_refused(
    line: Line, requests: Callable[[], st.SearchStrategy[Request]], data: st.DataObject
) -> None:
    """200, 4xx, or 501 for parts of the protocol that are not served at all."""
    request = data.draw(requests())
    judge(request, line.ask(request))


@settings(max_examples=scaled(600), **ONE_SERVER)
@given(asked=compressed_drafts())
def test_a_right_body_compressed_rightly_is_read_or_said_not_to_be(
    line: Line, asked: tuple[Draft, Request]
) -> None:
    """Never taken for a mistake of the caller's."""
    draft, request = asked
    answer = line.ask(request)
    judge(request, answer)
    if answer.status != 415:
        assert_answered(draft, answer)


@pytest.mark.parametrize("body", [None, b"", b"{}"], ids=["no body", "empty", "object"])
def test_every_verb_on_every_path(line: Line, body: bytes | None) -> None:
    """Answered, or refused as any other request."""
    for verb, path in itertools.product(VERBS, PATHS):
        request = Request(path, body, method=verb)
        judge(request, line.ask(request))


@pytest.mark.parametrize("target", pictures.TARGETS)
def test_right_pictures_are_read(line: Line, target: bytes) -> None:
    """Losslessly packed in either way, they say the same."""
    kinds = [(b"image/png", pictures.PNG), (b"image/webp", pictures.WEBP)]
    answers = [line.ask(Request(target, body, headers=((b"content-type", kind),))) for kind, body in kinds]
    assert [answer.status for answer in answers] == [200, 200], answers
    assert answers[0].body == answers[1].body
