"""What OpenAI-compatible servers have in common: events in any pieces, lists of models."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.openai_http import (
    MAX_MODELS,
    authorization,
    client_options,
    event_data,
    model_names,
)

STREAM = b': a comment\nevent: x\ndata: {"a":1}\r\n\nid: 7\ndata:2\n\n: alive\n\ndata: [DONE]\n'


class Wrong(Exception):
    """What a stream raises."""


def read(*pieces: bytes, longest: int = 100) -> list[bytes]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def all_of() -> list[bytes]:
        return [data async for data in event_data(body(), longest, Wrong)]

    return asyncio.run(all_of())


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_in_whatever_pieces_they_come(cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(borders)]
    assert read(*pieces) == [b'{"a":1}', b"2", b"[DONE]"]


def test_a_body_without_events_is_told_by_its_beginning() -> None:
    with pytest.raises(Wrong, match="full"):
        read(b'{"error": "full"}\n')


def test_an_event_without_an_end_is_not_collected_for_ever() -> None:
    with pytest.raises(Wrong, match="None"):
        read(b"data: " + bytes(50), bytes(50))
    assert len(read(*[b"data: " + b"x" * 50 + b"\n\n"] * 9)) == 9


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
