"""Transcripts edited after the fact: pure, total, undone to the last bit."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import generated_edits
import pytest
import webvtt_parser
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import BadRequest, EditImpossible, EditsFull, FieldInvalid, FieldMissing
from sidecar.transcripts import transcript_edits
from sidecar.transcripts.edit_serialization import edit_step_from_json, edit_step_to_json
from sidecar.transcripts.subtitle_cues import MAX_LINE_COLUMNS
from sidecar.transcripts.transcript import (
    LOOP_FLAG,
    NON_SPEECH_FLAG,
    WORDS_BY_ATTENTION,
    WORDS_BY_RULE,
    Segment,
    SpeakerEmbedding,
    SpeakerProfile,
    Transcript,
    Word,
)
from sidecar.transcripts.transcript_edits import (
    EditHistory,
    EditOperation,
    EditStep,
    MergeSpeakers,
    MoveSegments,
    RedoStep,
    RenameSpeaker,
    RewriteSegment,
    SplitSegments,
    UndoStep,
    apply_operations,
    replace_segment_text,
)
from sidecar.transcripts.transcript_formats import FORMATS, render_transcript
from sidecar.transcripts.word_timing import estimate_word_times, text_columns

PRINT = SpeakerEmbedding("AAAA", 9.0)
TALK = Transcript(
    (
        Segment(0.0, 2.0, "Do you hear me?", 0),
        Segment(2.0, 4.0, "I hear you.", 1),
        Segment(4.0, 5.0, "[Music]", None, (), (NON_SPEECH_FLAG,)),
        Segment(5.0, 6.0, "And now?", 2),
        Segment(6.0, 8.0, "Now, too.", 1),
    ),
    "en", 8.0, "scripted", "fp32", True, (),
    (SpeakerProfile(0, 9.0, "p1", "Nagg", 0.7, PRINT), SpeakerProfile(1, 8.0, print=PRINT)),
)  # fmt: skip
ALONE = replace(
    TALK, segments=tuple(replace(one, speaker=None) for one in TALK.segments), diarized=False,
    voices=(),
)  # fmt: skip
WITH_WORDS = replace(TALK, segments=tuple(map(estimate_word_times, TALK.segments)))
transcripts = st.sampled_from([TALK, ALONE, WITH_WORDS, replace(TALK, segments=())])


def speakers(transcript: Transcript) -> list[int | None]:
    return [one.speaker for one in transcript.segments]


def names(transcript: Transcript) -> dict[int, str | None]:
    return {one.speaker: one.name for one in transcript.voices}


@given(transcripts, generated_edits.lists)
def test_random_edits_keep_times_of_segments_and_render_in_every_format(
    before: Transcript, operations: Sequence[EditOperation]
) -> None:
    try:
        after = apply_operations(before, operations)
    except EditImpossible:
        return
    assert len(after.segments) == len(before.segments), "places never move"
    for old, new in zip(before.segments, after.segments, strict=True):
        assert (old.start, old.end) == (new.start, new.end)
        times = [at for word in new.words for at in (word.start, word.end)]
        assert all(new.start <= at <= new.end for at in times)
        assert all(one.start <= other.start for one, other in pairwise(new.words))
        assert (new.words_by == "") == (not new.words)
    there = {*speakers(after)}
    gone = {*speakers(before)} - there
    assert {one.speaker for one in after.voices} <= there | ({*names(before)} - gone)
    shown = {fmt: render_transcript(after, fmt) for fmt in FORMATS}
    assert json.loads(shown["json"])["metadata"]["num_speakers"] == after.num_speakers
    webvtt_parser.read(shown["vtt"])
    for line in shown["srt"].splitlines():
        assert line.count("-->") <= 1
        assert text_columns(line) <= MAX_LINE_COLUMNS
    assert {line.count("\t") for line in shown["tsv"].splitlines()} in ({3}, {4})
    assert all(len(line.split(" ")) == 10 for line in shown["rttm"].splitlines())


@given(transcripts, st.lists(generated_edits.steps, max_size=12))
def test_undo_and_redo_restore_every_revision(first: Transcript, steps: Sequence[EditStep]) -> None:
    history, transcript = EditHistory(), first
    states = [first]
    for step in steps:
        try:
            after = history.after(transcript, step, 1.0)
        except EditImpossible:
            continue
        if after is None:
            continue
        assert after[0].revision == history.revision + 1
        history, transcript = after
        states = [*states[: history.applied], transcript] if isinstance(step, tuple) else states
        assert transcript == states[history.applied]
    now = history, transcript
    for at in reversed(range(history.applied)):
        undone = history.after(transcript, UndoStep(), 2.0)
        assert undone is not None
        history, transcript = undone
        assert transcript == states[at]
    assert transcript == first
    with pytest.raises(EditImpossible, match="nothing to undo"):
        history.after(transcript, UndoStep(), 2.0)
    for state in states[1 : now[0].applied + 1]:
        again = history.after(transcript, RedoStep(), 3.0)
        assert again is not None
        history, transcript = again
        assert transcript == state
    assert transcript == now[1]


@given(generated_edits.steps)
def test_edit_step_survives_serialization(step: EditStep) -> None:
    assert edit_step_from_json(json.loads(json.dumps(edit_step_to_json(step)))) == step


@pytest.mark.parametrize(
    ("operation", "who", "called"),
    [
        (RenameSpeaker(1, "Nell"), [0, 1, None, 2, 1], {0: "Nagg", 1: "Nell"}),
        (RenameSpeaker(2, "Clov"), [0, 1, None, 2, 1], {0: "Nagg", 1: None, 2: "Clov"}),
        (RenameSpeaker(0, None), [0, 1, None, 2, 1], {0: None, 1: None}),
        (MergeSpeakers(0, 1), [1, 1, None, 2, 1], {1: None}),
        (MergeSpeakers(2, 0), [0, 1, None, 0, 1], {0: "Nagg", 1: None}),
        (SplitSegments((4,)), [0, 1, None, 2, 3], {0: "Nagg", 1: None}),
        (SplitSegments((0, 4), "Hamm"), [3, 1, None, 2, 3], {1: None, 3: "Hamm"}),
        (MoveSegments((1, 3), 0), [0, 0, None, 0, 1], {0: "Nagg", 1: None}),
    ],
)
def test_speaker_edit_gives_the_expected_labels_and_names(
    operation: EditOperation, who: list[int | None], called: dict[int, str | None]
) -> None:
    after = apply_operations(TALK, [operation])
    assert (speakers(after), names(after)) == (who, called)


def test_renamed_speaker_loses_its_identified_person_and_keeps_its_embedding() -> None:
    renamed = apply_operations(TALK, [RenameSpeaker(0, "Hamm")]).voices[0]
    assert (renamed.person, renamed.likeness, renamed.print) == (None, None, PRINT)


def test_speaker_split_off_has_no_embedding_and_one_that_takes_another_keeps_its_own() -> None:
    assert apply_operations(TALK, [SplitSegments((1,))]).voices[1].print is None
    assert apply_operations(TALK, [MergeSpeakers(2, 1)]).voices[1].print == PRINT, (
        "its own part is its own"
    )


def test_undiarized_transcript_becomes_diarized_by_speaker_edits_not_by_a_rewrite() -> None:
    after = apply_operations(ALONE, [RenameSpeaker(0, "Nell"), SplitSegments((1, 4), "Nagg")])
    assert speakers(after) == [0, 1, None, 0, 1]
    assert after.diarized
    assert "[00:00:00.0] Nell: Do you hear me?\n" in render_transcript(after, "text")
    assert not apply_operations(ALONE, [RewriteSegment(0, "Said.")]).diarized


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (RenameSpeaker(3, "x"), "no Speaker_3"),
        (MergeSpeakers(0, 3), "no Speaker_3"),
        (MergeSpeakers(1, 1), "into itself"),
        (MoveSegments((0,), 9), "no Speaker_9"),
        (MoveSegments((5,), 0), "no segment 5"),
        (SplitSegments((2,)), "segment 2 has no speaker"),
        (RewriteSegment(-1, "x"), "no segment -1"),
    ],
)
def test_edits_with_an_impossible_one_are_refused_with_its_number_and_reason(
    operation: EditOperation, said: str
) -> None:
    with pytest.raises(EditImpossible, match=f"Operation 1: .*{said}"):
        apply_operations(TALK, [RenameSpeaker(0, "Hamm"), operation])


def test_unchanged_words_keep_their_times_and_others_share_the_gaps() -> None:
    said = (1.0, 1.4, "We"), (1.5, 2.0, "was"), (2.2, 2.6, "never"), (2.7, 3.0, "there")
    words = tuple(Word(*one) for one in said)
    line = Segment(1.0, 3.2, "We was never there", 0, words, (), WORDS_BY_ATTENTION)
    same = replace_segment_text(line, "we was, never there!")
    assert [(one.start, one.end) for one in same.words] == [(one.start, one.end) for one in words]
    assert same.words_by == WORDS_BY_ATTENTION
    changed = replace_segment_text(line, "We had been there again").words
    assert [one.text for one in changed] == ["We", "had", "been", "there", "again"]
    assert changed[0] == words[0]
    assert changed[3] == words[3]
    assert (changed[1].start, changed[2].end) == (1.5, 2.6)
    assert changed[1].end == changed[2].start
    assert (changed[4].start, changed[4].end) == (3.0, 3.2)
    assert replace_segment_text(line, "We had been there again").words_by == WORDS_BY_RULE
    shorter = replace_segment_text(line, "We there")
    assert shorter.words == (words[0], words[3])
    assert shorter.words_by == WORDS_BY_ATTENTION


def test_word_inserted_before_a_word_that_begins_before_its_segment_stays_before_it() -> None:
    words = Word(5.5, 5.9, "so"), Word(6.0, 6.4, "we"), Word(6.5, 6.9, "go")
    line = Segment(6.03, 12.04, "so we go", 0, words, (), WORDS_BY_ATTENTION)
    changed = replace_segment_text(line, "And so we go").words
    assert changed[1:] == words
    assert (changed[0].text, changed[0].start, changed[0].end) == ("And", 5.5, 5.5)


def test_few_edits_of_long_segment_of_few_different_words_keep_times_of_all_other_words() -> None:
    said = ["X", *("the", "a", "of", "to", "and") * 60, "Y"]
    words = tuple(Word(at * 0.5, at * 0.5 + 0.4, text) for at, text in enumerate(said))
    line = Segment(0.0, 151.0, " ".join(said), 0, words, (), WORDS_BY_ATTENTION)
    fresh = ["Z", *said[1:150], *said[151:-1], "Q"]
    changed = replace_segment_text(line, " ".join(fresh)).words
    kept = {(one.text, one.start, one.end) for one in words}
    assert [one.text for one in changed] == fresh
    assert sum((one.text, one.start, one.end) in kept for one in changed) == len(fresh) - 2


def test_rewritten_segment_is_no_loop_and_is_speech_unless_bracketed() -> None:
    stuck = Segment(0.0, 1.0, "[Unintelligible Speech]", None, (), (NON_SPEECH_FLAG, LOOP_FLAG))
    assert replace_segment_text(stuck, "I said so.").flags == ()
    assert replace_segment_text(stuck, "[Laughter]").flags == (NON_SPEECH_FLAG,)
    assert replace_segment_text(stuck, "[Laughter] [[Applause]]").flags == (NON_SPEECH_FLAG,)


@pytest.mark.parametrize("text", ["[laughs] Well, that is great! [applause]", "[a] b [c] [d]"])
def test_words_between_notes_in_brackets_stay_speech(text: str) -> None:
    after = apply_operations(TALK, [RewriteSegment(0, text)])
    assert after.segments[0].flags == ()
    assert text in after.text
    assert f"Nagg: {text}" in render_transcript(after, "text")


def test_rewrite_of_a_long_repetitive_segment_gives_each_new_word_a_time() -> None:
    line = estimate_word_times(Segment(0.0, 600.0, "a b " * 2500, 0))
    after = replace_segment_text(line, "b c a " * 1600)
    assert len(after.words) == 4800


@given(st.text("abc", min_size=1, max_size=10), st.text("abc", max_size=10))
def test_rewrite_keeps_times_of_at_least_the_longest_common_subsequence_of_words(
    before: str, after: str
) -> None:
    words = tuple(Word(float(at), at + 0.5, text) for at, text in enumerate(before))
    line = Segment(0.0, 99.0, " ".join(before), 0, words, (), WORDS_BY_ATTENTION)
    changed = replace_segment_text(line, " ".join(after)).words
    kept = sum(one in words for one in changed)
    subsequences = {
        chosen for count in range(len(after) + 1) for chosen in combinations(after, count)
    }
    longest = max(len(one) for one in subsequences if is_subsequence(one, before))
    assert [one.text for one in changed] == [*after]
    assert kept >= longest


def is_subsequence(some: Sequence[str], others: str) -> bool:
    rest = iter(others)
    return all(one in rest for one in some)


NOT_OF_ITS_LENGTH = "'text' does not have"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([], FieldInvalid, "1 to 500"),
        ([{"op": "undo"}] * 501, FieldInvalid, "1 to 500"),
        ("undo", FieldInvalid, "1 to 500"),
        ([1], FieldInvalid, "Operation 0 is not an object"),
        ([{"op": "erase"}], FieldInvalid, "'op' is not"),
        ([{"op": []}], FieldInvalid, "'op' is not"),
        ([{"op": "undo"}, {"op": "redo"}], FieldInvalid, "'undo' cannot be combined"),
        ([{"op": "redo", "times": 2}], FieldInvalid, "'redo' cannot be combined"),
        ([{"op": "rename", "speaker": "Speaker_0"}], FieldMissing, "'name' is missing"),
        ([{"op": "rename", "speaker": 0, "name": "x"}], FieldInvalid, "'speaker' is not a speaker"),
        ([{"op": "merge", "speaker": "Speaker_01", "into": "x"}], FieldInvalid, "not a speaker"),
        ([{"op": "split", "segments": []}], FieldInvalid, "not a list"),
        ([{"op": "split", "segments": [True]}], FieldInvalid, "no place"),
        ([{"op": "split", "segments": [1e3]}], FieldInvalid, "no place"),
        ([{"op": "text", "segment": 0, "text": " \n\ud800 "}], FieldInvalid, NOT_OF_ITS_LENGTH),
        ([{"op": "text", "segment": 0, "text": "x" * 10_001}], FieldInvalid, NOT_OF_ITS_LENGTH),
        ([{"op": "rename", "speaker": "Speaker_0", "name": "x" * 201}], FieldInvalid, "'name'"),
        ([{"op": "text", "segment": 0, "text": "x", "by": "me"}], FieldInvalid, "the field by"),
    ],
)
def test_invalid_edit_is_refused_with_the_reason(
    given: Any, error: type[BadRequest], said: str
) -> None:
    with pytest.raises(error, match=said):
        edit_step_from_json(given)


def test_edit_or_redo_beyond_its_limit_of_revisions_is_refused_and_undo_is_not() -> None:
    most = transcript_edits.MAX_EDITS
    history, transcript = EditHistory(revision=most - 2), TALK
    for name in ("one", "two"):
        after = history.after(transcript, (RenameSpeaker(1, name),), 0.0)
        assert after is not None
        history, transcript = after
    with pytest.raises(EditsFull):
        history.after(transcript, (RenameSpeaker(1, "three"),), 0.0)
    for _ in range(2):
        after = history.after(transcript, UndoStep(), 0.0)
        assert after is not None
        history, transcript = after
    assert transcript == TALK
    with pytest.raises(EditsFull):
        replace(history, revision=2 * most).after(transcript, RedoStep(), 0.0)


def test_edit_beyond_the_size_limit_of_the_edit_history_is_refused() -> None:
    history = EditHistory(said=transcript_edits.MAX_HISTORY_BYTES - 1000)
    with pytest.raises(EditsFull, match="MB"):
        history.after(TALK, (RewriteSegment(0, "x" * 2000),), 0.0)


def test_subtitles_show_names_and_shorten_long_ones_and_tsv_has_a_name_column() -> None:
    long = apply_operations(
        TALK, [RenameSpeaker(0, "Nagg of the ashbin, father of Hamm"), RenameSpeaker(1, "N & N")]
    )
    srt, vtt = render_transcript(long, "srt"), render_transcript(long, "vtt")
    assert "\nNagg of the ashbin, father of…: Do you\n" in srt
    assert "\nN & N: I hear you.\n" in srt
    assert "\nSpeaker_2: And now?\n" in srt
    assert "<v.Speaker_1 N &amp; N>I hear you." in vtt
    assert "<v Speaker_2>And now?" in vtt
    assert render_transcript(long, "tsv").splitlines()[0] == "start\tend\tspeaker\ttext\tname"
    assert "2000\t4000\tSpeaker_1\tI hear you.\tN & N\n" in render_transcript(long, "tsv")
