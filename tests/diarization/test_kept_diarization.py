"""Another diarization from what was kept: words, edits, names."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from generated_edits import lists
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import errors
from sidecar.diarization.clustering import SpeakerCount
from sidecar.diarization.kept_diarization import KeptDiarization, word_ranges_of
from sidecar.diarization.rediarization import diarize_again
from sidecar.diarization.window_embeddings import (
    FRAME_STEP_S,
    MAX_WINDOW_SPEAKERS,
    WINDOW_FRAMES,
    DiarizationWindow,
)
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.diarization.word_attribution import SpeakerLookup, attribute_words, fit_to_turns
from sidecar.transcripts.diarized_pieces import DiarizedPieces, WordRange
from sidecar.transcripts.speaker_turns import number_speakers_by_appearance
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    Segment,
    SpeakerEmbedding,
    SpeakerProfile,
    Transcript,
    Word,
)
from sidecar.transcripts.transcript_edits import (
    MoveSegments,
    RenameSpeaker,
    RewriteSegment,
    apply_operations,
)

TURN_S = 6.0
ONE, OTHER, THIRD = 0, 1, 2


def windows_of(people: Sequence[int]) -> WindowSpeakers:
    """Windows of a recording in which each of these people speaks for `TURN_S`, clustered. The
    first two are a little alike, so that two speakers are found for three people."""
    random = np.random.default_rng(7)
    basis = np.linalg.qr(random.normal(size=(256, 3)))[0].T
    voices = [basis[0], 0.5 * basis[0] + 0.866 * basis[1], basis[2]]
    who = np.repeat(people, round(TURN_S / FRAME_STEP_S))
    windows = []
    for start in range(0, len(who) - WINDOW_FRAMES + 1, 148):
        inside = who[start : start + WINDOW_FRAMES]
        active = np.zeros((WINDOW_FRAMES, MAX_WINDOW_SPEAKERS), np.bool_)
        vectors = np.zeros((MAX_WINDOW_SPEAKERS, 256), np.float16)
        for local, person in enumerate(dict.fromkeys(inside.tolist())):
            active[:, local] = inside == person
            noisy = voices[person] + random.normal(scale=0.01, size=256)
            vectors[local] = noisy / np.linalg.norm(noisy)
        alone_s = (active.sum(axis=0) * FRAME_STEP_S).astype(np.float32)
        windows.append(
            DiarizationWindow(start, np.packbits(active), vectors, alone_s, active.any(axis=0))
        )
    found = WindowSpeakers()
    found.cluster(windows)
    return found


def kept_of(
    people: Sequence[int], *, per_line: int = 2, fitted: bool = False, words: bool = True
) -> tuple[KeptDiarization, Transcript]:
    """What an engine keeps of a recording, and its transcript. An utterance has ``per_line``
    turns, and a word each half second."""
    found = windows_of(people)
    end_s = len(people) * TURN_S
    lines = []
    for at in range(0, len(people), per_line):
        start, end = at * TURN_S, min(at + per_line, len(people)) * TURN_S
        timed = tuple(
            Word(time, time + 0.4, f"w{2 * time:.0f}" + "." * (time % TURN_S == 5.5), 0.9)
            for time in np.arange(start, end, 0.5).tolist()
        )
        text = " ".join(word.text for word in timed)
        label = None if fitted else int(found.persons.max(initial=0))
        lines.append(Segment(start, end, text, label, timed, confidence=0.9))
    if fitted:
        segments = fit_to_turns(attribute_words(lines, found.turns(end_s)), found.turns(end_s))
    else:
        lookup = SpeakerLookup(found.turns(end_s))
        segments = [piece for line in lines for piece in lookup.attributed(line)]
    kept = KeptDiarization(found, end_s, lines, word_ranges_of(lines, segments), fitted)
    shown = segments if words else [replace(one, words=()) for one in segments]
    numbered = tuple(number_speakers_by_appearance(shown))
    transcript = Transcript(numbered, "en", end_s, "engine", "int8", diarized=True)
    return KeptDiarization.from_bytes(kept.to_bytes()), transcript


def diarized(
    kept: KeptDiarization,
    transcript: Transcript,
    number: int | None,
    word_ranges: Sequence[WordRange] | None = None,
) -> tuple[Transcript, DiarizedPieces, tuple[str, ...]]:
    count = None if number is None else SpeakerCount(number, number, exact=True)
    found = diarize_again(
        kept, transcript, kept.word_ranges if word_ranges is None else word_ranges, count
    )
    result = DiarizedPieces.from_bytes(found.result.to_bytes())
    return result.applied(transcript), result, found.lost_names


def said(transcript: Transcript) -> list[str]:
    return [word for one in transcript.segments for word in one.text.split()]


PEOPLE = [ONE, OTHER, ONE, THIRD, ONE, THIRD]


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("words", [False, True])
def test_rediarization_without_a_number_of_speakers_restores_the_engines_transcript(
    fitted: bool, words: bool
) -> None:
    kept, transcript = kept_of(PEOPLE, fitted=fitted, words=words)
    assert transcript.num_speakers == 2
    again, _, _ = diarized(kept, transcript, None)
    assert again == transcript
    assert [one.confidence for one in again.segments] == [
        one.confidence for one in transcript.segments
    ]


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("words", [False, True])
def test_rediarization_into_more_speakers_cuts_utterances_and_into_fewer_joins_them(
    fitted: bool, words: bool
) -> None:
    kept, transcript = kept_of(PEOPLE, fitted=fitted, words=words)
    three, result, _ = diarized(kept, transcript, 3)
    assert [one.speaker for one in three.segments] == [0, 1, 0, 2, 0, 2]
    assert [one.start // TURN_S for one in three.segments] == [0, 1, 2, 3, 4, 5]
    assert said(three) == said(transcript)
    if words:
        assert [[word.text for word in one.words] for one in three.segments] == [
            one.text.split() for one in three.segments
        ]
    one, _, _ = diarized(kept, three, 1, result.word_ranges)
    assert [(each.speaker, each.text) for each in one.segments] == [
        (0, line.text) for line in kept.uncut_segments
    ]
    back, _, _ = diarized(kept, three, None, result.word_ranges)
    assert back == transcript


@pytest.mark.parametrize("words", [False, True])
def test_corrected_words_keep_their_place_when_rediarization_cuts_their_segment(
    words: bool,
) -> None:
    kept, transcript = kept_of(PEOPLE, words=words)
    first = transcript.segments[0].text.split()  # of ONE, then of OTHER, who were taken for one
    first[2:3] = ["quite", "new"]
    first[14:15] = []
    edited = apply_operations(transcript, [RewriteSegment(0, " ".join(first))])
    three, result, _ = diarized(kept, edited, 3)
    assert said(three) == said(edited)
    assert three.segments[0].text == "w0 w1 quite new w3 w4 w5 w6 w7 w8 w9 w10 w11."
    assert three.segments[1].text.startswith("w12 w14 w15")
    again, _, _ = diarized(kept, three, 1, result.word_ranges)
    assert said(again) == said(edited)


def test_corrected_word_that_contains_the_former_word_is_not_cut_by_rediarization() -> None:
    found = windows_of([ONE, THIRD])
    words = Word(5.0, 5.2, "I"), Word(6.3, 6.5, "am"), Word(6.6, 6.9, "here")
    line = Segment(5.0, 7.0, "I am here", None, words)
    kept = KeptDiarization(found, 2 * TURN_S, [line], [WordRange(0, 0, 3)], fitted=True)
    shown = Segment(5.0, 7.0, "I came here", 0)
    transcript = Transcript((shown,), "en", 2 * TURN_S, "engine", "int8", diarized=True)
    two, _, _ = diarized(kept, transcript, 2)
    assert [one.text for one in two.segments] == ["I", "came here"]


def test_text_without_spaces_that_nobody_corrected_is_cut_between_its_words() -> None:
    found = windows_of([ONE, THIRD])
    words = Word(5.0, 5.5, "ผม"), Word(6.5, 6.9, "มา")
    line = Segment(5.0, 7.0, "ผมมา", None, words)
    kept = KeptDiarization(found, 2 * TURN_S, [line], [WordRange(0, 0, 2)], fitted=True)
    shown = Segment(5.0, 7.0, "ผมมา", 0)
    transcript = Transcript((shown,), "th", 2 * TURN_S, "engine", "int8", diarized=True)
    two, _, _ = diarized(kept, transcript, 2)
    assert [one.text for one in two.segments] == ["ผม", "มา"]


def test_name_goes_to_the_new_speaker_with_most_of_its_time_and_lost_names_are_reported() -> None:
    kept, transcript = kept_of(PEOPLE)
    named = apply_operations(transcript, [RenameSpeaker(0, "Nagg"), RenameSpeaker(1, "Clov")])
    three, result, lost = diarized(kept, named, 3)
    assert [three.name_of(speaker) for speaker in range(3)] == ["Nagg", None, "Clov"]
    assert lost == ()
    one, _, lost = diarized(kept, three, 1, result.word_ranges)
    assert (one.name_of(0), lost) == ("Nagg", ("Clov",))


def test_rediarized_speakers_have_new_embeddings_and_one_keeps_the_enrolled_person() -> None:
    kept, transcript = kept_of(PEOPLE)
    print_ = SpeakerEmbedding("AA", 5.0)
    nagg = SpeakerProfile(0, 20.0, "p", "Nagg", 0.9, print_)
    voices = (nagg, SpeakerProfile(1, 9.0, print=print_))
    three, _, _ = diarized(kept, replace(transcript, voices=voices), 3)
    assert [(one.person, one.name, one.likeness) for one in three.voices] == [
        ("p", "Nagg", 0.9),
        (None, None, None),
        (None, None, None),
    ]
    assert all(one.print not in (None, print_) and one.seconds > 5 for one in three.voices)


def test_only_segments_that_rediarization_does_not_cut_keep_their_embeddings() -> None:
    kept, transcript = kept_of(PEOPLE)
    prints = tuple(SpeakerEmbedding("AA", float(at)) for at, _ in enumerate(transcript.segments))
    three, _, _ = diarized(kept, replace(transcript, prints=prints), 3)
    whole = [one.text in {each.text for each in transcript.segments} for one in three.segments]
    assert [one is not None for one in three.prints] == whole


@pytest.mark.parametrize("fitted", [False, True])
def test_segment_rewritten_as_an_event_stays_alone_when_rediarization_joins_the_rest(
    fitted: bool,
) -> None:
    kept, transcript = kept_of(PEOPLE, fitted=fitted)
    three, result, _ = diarized(kept, transcript, 3)
    edited = apply_operations(three, [RewriteSegment(1, "[Music]")])
    one, _, _ = diarized(kept, edited, 1, result.word_ranges)
    assert [each.text for each in one.segments if NON_SPEECH_FLAG in each.flags] == ["[Music]"]
    assert {each.speaker for each in one.segments} == {0}
    assert said(one) == said(edited)


def test_rest_of_a_line_behind_an_event_starts_by_its_first_word_though_its_turn_is_later() -> None:
    found = windows_of([ONE, THIRD, ONE, THIRD])
    words = tuple(
        Word(at / 2, at / 2 + 0.4, f"w{at}" + "." * (at == 10)) for at in range(24)
    )  # the sentence ends half a second before the turn
    line = Segment(0.0, 12.0, " ".join(word.text for word in words), None, words)
    turns = found.turns(24.0)
    segments = fit_to_turns(attribute_words([line], turns), turns)
    kept = KeptDiarization(found, 24.0, [line], word_ranges_of([line], segments), fitted=True)
    transcript = Transcript(
        tuple(number_speakers_by_appearance(segments)), "en", 24.0, "engine", "int8", diarized=True
    )
    assert segments[1].words[0].start < segments[1].start
    edited = apply_operations(transcript, [RewriteSegment(0, "[Music]")])
    again, _, _ = diarized(kept, edited, None)
    assert said(again) == said(edited)
    assert all(one.start <= one.words[0].start < one.end for one in again.segments[:2])
    assert all(one.start < one.end for one in again.segments)


def test_segment_spoken_over_the_dominant_speaker_stays_whole_in_rediarization() -> None:
    kept, transcript = kept_of(PEOPLE, fitted=True)
    words = tuple(Word(start, start + 0.4, "beside") for start in (19.0, 19.5, 20.0))
    third = int(kept.window_speakers.persons[-1].max())
    aside = Segment(19.0, 20.4, "beside beside beside", third, words)
    segments = sorted([*transcript.segments, aside], key=lambda one: (one.start, one.end))
    whole = replace(transcript, segments=tuple(segments))
    word_ranges = [*kept.word_ranges]
    word_ranges.insert(segments.index(aside), WordRange(len(kept.uncut_segments), 0, 3))
    more = KeptDiarization(
        kept.window_speakers, kept.end_s, [*kept.uncut_segments, aside], word_ranges, fitted=True
    )
    for number in (1, 3, None):
        again, _, _ = diarized(KeptDiarization.from_bytes(more.to_bytes()), whole, number)
        texts = [one.text for one in again.segments]
        assert texts.count(aside.text) == 1
        assert sorted(said(again)) == sorted(said(whole))


def test_rediarization_of_a_recording_without_speech_gives_its_empty_transcript() -> None:
    empty = KeptDiarization(WindowSpeakers(), 3.0, [], [])
    kept = KeptDiarization.from_bytes(empty.to_bytes())
    transcript = Transcript((), "en", 3.0, "engine", "int8", diarized=True)
    assert diarized(kept, transcript, 2)[0] == transcript


def test_diarization_of_more_bytes_than_the_limit_has_no_resume_point() -> None:
    kept, _ = kept_of(PEOPLE)
    size = len(kept.to_bytes())
    assert kept.resume_point() is not None
    assert kept.resume_point(size) is not None
    assert kept.resume_point(size - 1) is None


def test_hour_of_windows_and_words_takes_less_than_a_megabyte() -> None:
    people = [*itertools.islice(itertools.cycle(PEOPLE), 600)]
    kept, transcript = kept_of(people, per_line=3)
    assert transcript.duration == 3600
    assert len(kept.to_bytes()) < 1e6
    assert diarized(kept, transcript, 3)[0].num_speakers == 3


@settings(max_examples=60, deadline=None)
@given(
    edits=st.lists(st.tuples(lists, st.none() | st.integers(1, 4)), min_size=1, max_size=4),
    words=st.booleans(),
    fitted=st.booleans(),
)
def test_rediarization_loses_and_doubles_no_word_whatever_was_edited_before(
    edits: list[tuple[tuple, int | None]],  # type: ignore[type-arg]
    words: bool,
    fitted: bool,
) -> None:
    kept, transcript = KEPT[words, fitted]
    word_ranges: Sequence[WordRange] = kept.word_ranges
    for operations, number in edits:
        for operation in operations:
            try:
                transcript = apply_operations(transcript, [operation])
            except errors.EditImpossible:
                continue
        before = transcript
        transcript, result, _ = diarized(kept, before, number, word_ranges)
        word_ranges = result.word_ranges
        assert sorted(said(transcript)) == sorted(said(before))
        if not fitted:
            assert said(transcript) == said(before)
        for one in transcript.segments:
            assert one.start <= one.end
            if words:
                text = "".join(word.text for word in one.words)
                assert "".join(text.split()) == "".join(one.text.split())
        assert all(first <= last for _, first, last in word_ranges)
        for (line, _, last), (other, first, _) in itertools.pairwise(word_ranges):
            assert first == (last if line == other else 0)


KEPT = {
    (words, fitted): kept_of(PEOPLE, words=words, fitted=fitted)
    for words in (False, True)
    for fitted in (False, True)
}


def test_rediarization_gives_a_moved_segment_back_to_the_speaker_of_its_voice() -> None:
    kept, transcript = kept_of(PEOPLE)
    moved = apply_operations(transcript, [MoveSegments((0,), 1)])
    assert diarized(kept, moved, None)[0].segments == transcript.segments
