"""The binary extension, fuzzed: what is right is answered rightly, what is wrong is refused by its place."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.asking import Line
from fuzz.drafts import Draft, assert_answered, drafts
from fuzz.judging import judge
from fuzz.mistakes import MISTAKES, Mistake, mistaken
from fuzz.sizes import scaled

ONE_SERVER = {"suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=scaled(1500), **ONE_SERVER)
@given(draft=drafts())
def test_right_bytes_come_back_as_they_went(line: Line, draft: Draft) -> None:
    """Whatever the bits, the datatype, the order and the form that outputs are asked for in."""
    assert_answered(draft, line.ask(draft.request))


@settings(max_examples=scaled(1500), **ONE_SERVER)
@given(draft=drafts(with_bytes=False))
def test_right_json_comes_back_as_it_went(line: Line, draft: Draft) -> None:
    """Flat or nested, in any order."""
    assert_answered(draft, line.ask(draft.request))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__.strip("_"))
@settings(max_examples=scaled(250), **ONE_SERVER)
@given(data=st.data())
def test_one_thing_wrong_is_the_callers_mistake(line: Line, mistake: Mistake, data: st.DataObject) -> None:
    """Never ours; and never taken for something else where it cannot be meant."""
    request, must_be_refused = data.draw(mistaken(mistake))
    answer = line.ask(request)
    judge(request, answer)
    assert answer.status != 200 or not must_be_refused, (request, answer)
