"""What the format forces is proposed: the right tokens, at the right places, nothing elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny_vibevoice
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

from sidecar.engines.vibevoice.vibevoice_decoder import DRAFT_WIDTH_TOKENS
from sidecar.engines.vibevoice.vibevoice_generation import (
    MAX_DRAFT_TOKENS,
    DraftProposals,
    SegmentTemplate,
)

TALK = [
    {"Start": 0, "End": 4.25, "Speaker": 0, "Content": "Who is there?"},
    {"Start": 4.25, "End": 7.5, "Speaker": 1, "Content": 'He said "me", again.'},
    {"Start": 7.5, "End": 11, "Speaker": 0, "Content": "Start, End and Speaker are words too."},
    {"Start": 11, "End": 12.5, "Content": "[Music]"},
    {"Start": 12.5, "End": 15, "Speaker": 1, "Content": "Good."},
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(tiny_vibevoice.checkpoint("tiny") / "tokenizer.json"))


def spelled(tokenizer: Tokenizer, talk: list[dict[str, Any]] = TALK) -> list[int]:
    text = "<|im_start|>assistant\n" + json.dumps(talk, separators=(",", ":")) + "\n"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def passes(tokenizer: Tokenizer, ids: list[int]) -> tuple[int, int]:
    """How often a decoder that writes ``ids`` must run, and how many proposals were in vain."""
    proposals, runs, vain, at = DraftProposals(SegmentTemplate(tokenizer)), 0, 0, 0
    while at < len(ids):
        proposal = proposals.next()
        runs += 1
        right = 0
        while right < len(proposal) and ids[at : at + right + 1] == [*proposal[: right + 1]]:
            right += 1
        vain += bool(proposal) and not right
        for token in ids[at : at + right + 1]:
            proposals.read(token)
        at += right + 1
    return runs, vain


def test_two_people_in_turns_take_half_of_the_passes(tokenizer: Tokenizer) -> None:
    talk = [
        {"Start": 2.5 * i, "End": 2.5 * i + 2.5, "Speaker": i % 2, "Content": "Yes, and then?"}
        for i in range(20)
    ]
    ids = spelled(tokenizer, talk)
    runs, vain = passes(tokenizer, ids)
    assert runs < 0.6 * len(ids)
    assert vain == 0


def test_a_pause_before_a_segment_costs_only_what_was_guessed(tokenizer: Tokenizer) -> None:
    talk = [{**one, "Start": one["Start"] + 0.25} for one in TALK]
    runs, _ = passes(tokenizer, spelled(tokenizer, talk))
    assert runs < len(spelled(tokenizer, talk)) - 5 * len(talk)


def test_keys_in_a_text_are_words(tokenizer: Tokenizer) -> None:
    proposals = DraftProposals(SegmentTemplate(tokenizer))
    ids = spelled(tokenizer)
    text = tokenizer.decode(ids)
    inside = 0
    for at, token in enumerate(ids):
        proposals.read(token)
        written = tokenizer.decode(ids[: at + 1])
        if written.endswith((" Start", " Start,", " End", " Speaker", '\\"me\\"', '\\"me\\",')):
            inside += 1
            assert proposals.next() == ()
    assert inside >= 3, text


def test_a_segment_without_a_speaker_is_no_stumbling_block(tokenizer: Tokenizer) -> None:
    proposals = DraftProposals(SegmentTemplate(tokenizer))
    for token in spelled(tokenizer, TALK[3:4]):
        proposals.read(token)
    opening = next(i for i in spelled(tokenizer) if SegmentTemplate(tokenizer).opens(i))
    proposals.read(opening)
    assert tokenizer.decode([*proposals.next()]) == 'Start":12.5,"End":'


def test_a_graph_has_room_for_the_longest_proposal() -> None:
    assert DRAFT_WIDTH_TOKENS == MAX_DRAFT_TOKENS + 1


def test_a_tokenizer_that_spells_otherwise_gets_no_proposals() -> None:
    whole = Tokenizer(models.WordLevel({"0": 0, "?": 1}, unk_token="?"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="spell"):
        SegmentTemplate(whole)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_no_tokens_in_any_order_make_it_raise(data: st.DataObject) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_vibevoice.checkpoint("tiny") / "tokenizer.json"))
    known = spelled(tokenizer)
    proposals = DraftProposals(SegmentTemplate(tokenizer))
    for token in data.draw(st.lists(st.sampled_from(known), max_size=60)):
        proposals.read(token)
        assert len(proposals.next()) <= MAX_DRAFT_TOKENS
