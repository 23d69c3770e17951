"""An answer is read while it is written, and helped on where the model is stuck.

The model here is a function from what is written so far to what it writes next, behind a real
tokenizer; the checkpoint that really loops is in test_vibevoice_transcription.py.
"""

import json
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
import tiny_vibevoice
from tokenizers import Tokenizer

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from sidecar.engines.vibevoice.vibevoice_decoder import DRAFT_WIDTH_TOKENS
from sidecar.engines.vibevoice.vibevoice_generation import (
    MAX_DRAFT_TOKENS,
    DraftedGeneration,
    DraftProposals,
    SegmentTemplate,
    WindowGeneration,
)
from sidecar.transcripts.loop_guard import RETRIES, SamplingOptions
from sidecar.transcripts.transcript import LOOP_FLAG, mean_confidence
from sidecar.transcripts.word_timing import estimate_word_times

Writes = Callable[[str, SamplingOptions | None], str]
"""From the answer so far, and how tokens are chosen, to what comes next."""
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(tiny_vibevoice.checkpoint("tiny") / "tokenizer.json"))


class MadeUpModel:
    """Writes what a function says; counts its tokens."""

    def __init__(self, tokenizer: Tokenizer, writes: Writes) -> None:
        self._tokenizer = tokenizer
        self._writes = writes
        self._next: list[int] = []
        self.ids: list[int] = []
        self.spent = 0
        self.ready = True
        self.likelihood = 0.0

    def token(self, sampling: SamplingOptions | None = None) -> int:
        if not self._next:
            text = self._tokenizer.decode(self.ids)
            self._next = self._tokenizer.encode(self._writes(text, sampling)).ids
        self.ids.append(self._next.pop(0))
        self.spent += 1
        self.likelihood = -0.01 * (self.ids[-1] % 50)
        return self.ids[-1]

    def go_on_from(self, ids: list[int]) -> None:
        self.ids, self._next = list(ids), []


def said(number: int, text: str | None = None, start: float | None = None) -> str:
    """The ``number``-th of segments of five seconds."""
    begin = 5.0 * number if start is None else start
    words = f"Sentence {number} is its own." if text is None else text
    return json.dumps(
        {"Start": begin, "End": begin + 4.5, "Speaker": number % 2, "Content": words},
        separators=(",", ":"),
    )


STUCK = "la la la"


def next_number(text: str) -> int:
    """The segment that comes after what is written, repetitions left out."""
    ends = re.findall(r'"End":([\d.]+)(?:,"Speaker":\d)?,"Content":"(?!la la)', text)
    return round(max(map(float, ends), default=0.0) + 0.5) // 5


def run(
    tokenizer: Tokenizer, writes: Writes, seconds: float, limit: int = 100_000, most: int = 1 << 30
) -> tuple[WindowGeneration, MadeUpModel, list[int]]:
    """An answer, which is cancelled after ``most`` tokens."""
    model = MadeUpModel(tokenizer, writes)
    ends = frozenset([tokenizer.token_to_id(END)])
    answer = WindowGeneration(cast(DraftedGeneration, cast(Any, model)), tokenizer, ends, seconds)
    written = answer.run(None, limit, lambda: model.spent >= most)
    closed = [index for index in written if index is not None]
    return answer, model, closed


def sound(until: int) -> Writes:
    """A model that is never stuck."""

    def writes(text: str, sampling: SamplingOptions | None) -> str:
        number = text.count('"Content"')
        if not text:
            return "<|im_start|>assistant\n[" + said(0)
        return "," + said(number) if number < until else "]" + END

    return writes


def stuck_between(first: int, last: int, until: int, *, immune_to: int = 99) -> Writes:
    """Stuck on the segments from ``first`` to ``last``; retry ``immune_to`` gets through."""
    clean = sound(until)

    def writes(text: str, sampling: SamplingOptions | None) -> str:
        number = next_number(text)
        if first <= number <= last and (sampling is None or sampling not in RETRIES[immune_to:]):
            return ("," if text else "[") + said(number, STUCK)
        if not text or number >= until:
            return clean(text, sampling) if not text else "]" + END
        return "," + said(number)

    return writes


def test_valid_answer_is_parsed_into_segments(tokenizer: Tokenizer) -> None:
    answer, _, ready = run(tokenizer, sound(12), 60.0)
    assert ready == list(range(12))
    assert [segment.start for segment in answer.segments] == [5.0 * n for n in range(12)]
    assert (answer.loops, answer.truncated) == (0, False)


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_retry_ends_repetition_loop_without_loss(tokenizer: Tokenizer, needed: int) -> None:
    answer, _, _ = run(tokenizer, stuck_between(4, 4, 12, immune_to=needed - 1), 60.0)
    texts = [segment.text for segment in answer.segments if segment.text != STUCK]
    assert texts == [f"Sentence {n} is its own." for n in range(12)]
    assert answer.loops == needed
    assert not any(LOOP_FLAG in segment.flags for segment in answer.segments)


def test_second_loop_after_one_among_turns_of_an_item_doubles_or_loses_no_segment(
    tokenizer: Tokenizer,
) -> None:
    stuck = stuck_between(6, 6, 9, immune_to=0)

    def writes(text: str, sampling: SamplingOptions | None) -> str:
        if next_number(text) == 4 and "Yes." not in text:
            return ',{"Start":20,"End":20.1,"Content":"Yes.\\nYes.\\nYes."}'
        return "," + said(4) if text.endswith('Yes."}') else stuck(text, sampling)

    answer, _, _ = run(tokenizer, writes, 45.0)
    texts = [segment.text for segment in answer.segments if segment.text != STUCK]
    whole = [f"Sentence {n} is its own." for n in range(9)]
    assert texts == [*whole[:4], "Yes.", *whole[4:]]
    assert answer.loops == 2


@pytest.mark.slow
def test_repetition_loop_in_hour_loses_at_most_75_s(tokenizer: Tokenizer) -> None:
    clean, model, _ = run(tokenizer, sound(720), 3600.0)
    stuck, helped, _ = run(tokenizer, stuck_between(300, 311, 720), 3600.0)
    lost = [segment for segment in stuck.segments if LOOP_FLAG in segment.flags]
    assert lost
    assert sum(segment.end - segment.start for segment in lost) <= 75.0
    heard = {segment.text for segment in stuck.segments}
    missing = {segment.text for segment in clean.segments} - heard
    assert len(missing) <= 15
    assert all(300 <= int(text.split()[1]) <= 315 for text in missing)
    assert helped.spent <= 1.2 * model.spent


@pytest.mark.parametrize("text", ['He said "no".', "déjà vu, 嗯 嗯.", "a\tb 2", "1 1 1"])
def test_confidence_is_mean_of_tokens_that_wrote_the_characters(
    tokenizer: Tokenizer, text: str
) -> None:
    answer, _, _ = run(tokenizer, lambda before, _: said(0, text) + "]" + END, 10.0)
    written = said(0, text) + "]"
    tokens = tokenizer.encode(written)
    pairs = [*zip(tokens.ids, tokens.offsets, strict=True)]
    segment = answer.with_confidence(0, estimate_word_times(answer.segments[0]))
    assert segment.words
    begin = written.index('"Content":"') + len('"Content":"')

    def expected(first: int, last: int) -> float | None:
        inside = {at: id_ for id_, at in pairs if at[0] < last and first < at[1]}
        return mean_confidence(-0.01 * (id_ % 50) for id_ in inside.values())

    assert segment.confidence == expected(begin, len(written) - 3)
    done = begin
    for word in segment.words:
        spelled = json.dumps(word.text)[1:-1]
        done = written.index(spelled, done) + len(spelled)
        assert word.confidence == expected(done - len(spelled), done), word.text


def test_kept_and_recovered_segments_have_confidence_and_skipped_ones_none(
    tokenizer: Tokenizer,
) -> None:
    plain, _, _ = run(tokenizer, sound(12), 60.0)
    whole = {one.text: plain.with_confidence(at, one) for at, one in enumerate(plain.segments)}
    for stuck in (stuck_between(4, 4, 12, immune_to=1), stuck_between(4, 5, 12)):
        answer, _, _ = run(tokenizer, stuck, 60.0)
        for at, segment in enumerate(answer.segments):
            found = answer.with_confidence(at, segment).confidence
            if LOOP_FLAG in segment.flags:
                assert found is None
            elif segment.text != STUCK:
                assert found == whole[segment.text].confidence


def test_repetition_loop_from_the_first_segment_on_is_stopped(tokenizer: Tokenizer) -> None:
    answer, model, _ = run(tokenizer, stuck_between(0, 999, 12), 60.0)
    assert all(LOOP_FLAG in segment.flags or segment.text == STUCK for segment in answer.segments)
    assert model.spent < 3_000


def test_endless_text_that_never_opens_a_segment_is_stopped(tokenizer: Tokenizer) -> None:
    answer, model, _ = run(tokenizer, lambda text, sampling: "na na na ", 60.0)
    assert model.spent < 5_000
    assert answer.loops > 0


def test_answer_cut_at_token_limit_keeps_complete_segments(tokenizer: Tokenizer) -> None:
    answer, model, _ = run(tokenizer, sound(12), 60.0, limit=100)
    assert model.spent == 100
    assert answer.truncated
    assert 0 < len(answer.segments) < 12


def test_cancelled_answer_takes_no_further_token(tokenizer: Tokenizer) -> None:
    answer, model, closed = run(tokenizer, sound(12), 60.0, most=37)
    assert model.spent == 37
    assert closed == list(range(len(answer.segments)))
    assert len(closed) < 12


TALK = [
    {"Start": 0, "End": 4.25, "Speaker": 0, "Content": "Who is there?"},
    {"Start": 4.25, "End": 7.5, "Speaker": 1, "Content": 'He said "me", again.'},
    {"Start": 7.5, "End": 11, "Speaker": 0, "Content": "Start, End and Speaker are words too."},
    {"Start": 11, "End": 12.5, "Content": "[Music]"},
    {"Start": 12.5, "End": 15, "Speaker": 1, "Content": "Good."},
]


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


def test_draft_proposals_for_alternating_speakers_save_40_percent_of_passes(
    tokenizer: Tokenizer,
) -> None:
    talk = [
        {"Start": 2.5 * i, "End": 2.5 * i + 2.5, "Speaker": i % 2, "Content": "Yes, and then?"}
        for i in range(20)
    ]
    ids = spelled(tokenizer, talk)
    runs, vain = passes(tokenizer, ids)
    assert runs < 0.6 * len(ids)
    assert vain == 0


def test_draft_proposals_after_a_pause_still_save_passes_of_each_segment(
    tokenizer: Tokenizer,
) -> None:
    talk = [{**one, "Start": one["Start"] + 0.25} for one in TALK]
    runs, _ = passes(tokenizer, spelled(tokenizer, talk))
    assert runs < len(spelled(tokenizer, talk)) - 5 * len(talk)


def test_json_keys_in_text_give_no_proposal(tokenizer: Tokenizer) -> None:
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


def test_proposal_after_a_segment_without_speaker_begins_the_next_where_it_ended(
    tokenizer: Tokenizer,
) -> None:
    proposals = DraftProposals(SegmentTemplate(tokenizer))
    for token in spelled(tokenizer, TALK[3:4]):
        proposals.read(token)
    opening = next(i for i in spelled(tokenizer) if SegmentTemplate(tokenizer).opens(i))
    proposals.read(opening)
    assert tokenizer.decode([*proposals.next()]) == 'Start":12.5,"End":'


def test_decoding_graph_has_room_for_longest_proposal() -> None:
    assert DRAFT_WIDTH_TOKENS == MAX_DRAFT_TOKENS + 1


def test_tokenizer_that_joins_digits_keys_or_marks_is_refused_for_proposals() -> None:
    whole = Tokenizer(models.WordLevel({"0": 0, "?": 1}, unk_token="?"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="spell"):
        SegmentTemplate(whole)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_draft_proposals_after_tokens_in_any_order_are_at_most_as_long_as_allowed(
    data: st.DataObject,
) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_vibevoice.checkpoint("tiny") / "tokenizer.json"))
    known = spelled(tokenizer)
    proposals = DraftProposals(SegmentTemplate(tokenizer))
    for token in data.draw(st.lists(st.sampled_from(known), max_size=60)):
        proposals.read(token)
        assert len(proposals.next()) <= MAX_DRAFT_TOKENS
