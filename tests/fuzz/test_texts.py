"""JSON bodies, fuzzed: refused as the caller's mistake, or answered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.asking import Line, Request
from fuzz.judging import judge
from fuzz.messages import MESSAGES
from fuzz.rows import RowDraft, assert_predicted, row_drafts
from fuzz.sizes import scaled
from fuzz.test_tensors import ONE_SERVER
from fuzz.texts import TEXTS


@pytest.mark.parametrize("texts", TEXTS, ids=lambda each: each.__name__)
@settings(max_examples=scaled(1200), **ONE_SERVER)
@given(data=st.data())
def test_what_is_no_tensor_is_refused(
    line: Line, texts: Callable[[], st.SearchStrategy[tuple[Request, bool]]], data: st.DataObject
) -> None:
    """By its place; what could be meant in earnest may be answered."""
    request, must_be_refused = data.draw(texts())
    answer = line.ask(request)
    judge(request, answer)
    assert answer.status != 200 or not must_be_refused, (request, answer)


@pytest.mark.parametrize("messages", MESSAGES, ids=lambda each: each.__name__)
@settings(max_examples=scaled(1200), **ONE_SERVER)
@given(data=st.data())
def test_whatever_is_sent_is_answered_as_the_callers_doing(
    line: Line, messages: Callable[[], st.SearchStrategy[Request]], data: st.DataObject
) -> None:
    """200 or 4xx."""
    request = data.draw(messages())
    judge(request, line.ask(request))


@settings(max_examples=scaled(1500), **ONE_SERVER)
@given(asked=row_drafts())
def test_right_rows_and_columns_come_back_as_they_went(line: Line, asked: RowDraft) -> None:
    """Bare or by name."""
    assert_predicted(asked, line.ask(asked.request))
