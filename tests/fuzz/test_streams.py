"""Below HTTP: bytes over sockets that are no requests, or end too early."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from fuzz.asking import Line, Stream
from fuzz.judging import judge_unparsed
from fuzz.sizes import scaled
from fuzz.streams import STREAMS, mangled, torn
from fuzz.test_tensors import ONE_SERVER


@pytest.mark.parametrize("name", STREAMS)
def test_what_is_hardly_http_is_answered_refused_or_cut_off(line: Line, name: str) -> None:
    """And the next connection is served."""
    stream = Stream(STREAMS[name])
    for answer in line.tell(stream):
        judge_unparsed(stream, answer)


@settings(max_examples=scaled(600), **ONE_SERVER)
@given(stream=mangled())
def test_requests_that_were_mangled_on_their_way(line: Line, stream: Stream) -> None:
    """Whatever is left of them is answered as what it is."""
    for answer in line.tell(stream):
        judge_unparsed(stream, answer)


@settings(max_examples=scaled(300), **ONE_SERVER)
@given(stream=torn())
def test_a_client_that_leaves_in_the_middle(line: Line, stream: Stream) -> None:
    """Nobody waits for it, and nobody else is told."""
    for answer in line.tell(stream):
        judge_unparsed(stream, answer)
