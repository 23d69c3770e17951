"""What OpenAI-compatible servers have in common: events in any pieces, lists of models."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.openai_http import (
    MAX_MODELS,
    EventStream,
    authorization,
    client_options,
    model_names,
)

STREAM = (
    b': a comment\nevent: x\ndata: {"a":1}\r\n\nid: 7\ndata:2\n\ndata: [DONE]\n\nbroken\ndata: 3\n'
)


class Wrong(Exception):
    """What a stream raises."""


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_in_whatever_pieces_they_come(cuts: list[int]) -> None:
    events, found = EventStream(100, Wrong), list[bytes]()
    borders = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(borders):
        found += events.feed(STREAM[start:end])
    assert [one.strip() for one in found] == [b'{"a":1}', b"2"]
    assert events.done


def test_what_comes_before_a_line_that_is_none_is_read() -> None:
    events = EventStream(100, Wrong)
    read = events.feed(b'data: 1\n{"error": "full"}\ndata: 2\n')
    assert next(read) == b" 1"
    with pytest.raises(Wrong, match="full"):
        next(read)


def test_a_line_without_an_end_is_not_collected_for_ever() -> None:
    with pytest.raises(Wrong, match="None"):
        list(EventStream(100, Wrong).feed(bytes(101)))


@pytest.mark.parametrize("body", [None, [], "x", {"data": None}, {"data": [1, {}, {"id": ""}]}])
def test_a_list_of_models_that_is_none_has_no_names(body: object) -> None:
    assert model_names(body) == []


def test_of_a_long_list_of_models_the_beginning_is_read() -> None:
    names = [str(number) for number in range(2 * MAX_MODELS)]
    assert model_names({"data": [{"id": name} for name in names]}) == names[:MAX_MODELS]


def test_what_is_sent_follows_no_redirect_and_no_proxy_of_the_environment() -> None:
    options = client_options(3.0, key="secret")
    assert (options["trust_env"], options["follow_redirects"]) == (False, False)
    assert options["headers"]["Authorization"] == "Bearer secret"
    assert authorization("") == {}
