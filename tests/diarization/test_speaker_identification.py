"""Who of the people known by voice speaks: decided purely, and heard in the wheel's recordings."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from wheel_recordings import RATE

from sidecar import errors
from sidecar.audio import Block
from sidecar.diarization.clustering import split_speaker
from sidecar.diarization.diarizer import Diarizer, enrolment_embedding
from sidecar.diarization.speaker_identification import (
    SAME_SPEAKER_SIMILARITY,
    SIMILARITY_MARGIN,
    DiarizedSpeakers,
    SpeakerVector,
    assign_speakers,
    embedding_of,
    identify_speakers,
    mean_vector,
    overlap_seconds,
    vector_of,
)
from sidecar.diarization.speaker_models import SpeakerModels
from sidecar.diarization.word_attribution import merge_turns
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import (
    Finished,
    Segment,
    SpeakerCandidate,
    SpeakerEmbedding,
    Transcript,
    from_wire,
    to_wire,
)


def direction(*values: float) -> np.ndarray:
    vector = np.zeros(256, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def transcript_of(*speakers: int) -> Transcript:
    segments = tuple(
        Segment(float(at), at + 1.0, "words", speaker) for at, speaker in enumerate(speakers)
    )
    return Transcript(segments, "en", float(len(speakers)), "any", "int8", diarized=True)


SURE = SAME_SPEAKER_SIMILARITY + 0.2


@pytest.mark.parametrize(
    ("alike", "persons"),
    [
        ({}, {}),
        ({(0, "anna"): SAME_SPEAKER_SIMILARITY}, {0: "anna"}),
        ({(0, "anna"): SAME_SPEAKER_SIMILARITY - 0.01}, {}),
        ({(0, "anna"): SURE, (0, "ben"): SURE - SIMILARITY_MARGIN + 0.01}, {}),
        ({(0, "anna"): SURE, (0, "ben"): SURE - SIMILARITY_MARGIN - 0.01}, {0: "anna"}),
        ({(0, "anna"): SURE, (1, "anna"): SURE + 0.05}, {1: "anna"}),
        (
            {(0, "anna"): SURE, (0, "ben"): 0.1, (1, "anna"): 0.1, (1, "ben"): SURE},
            {0: "anna", 1: "ben"},
        ),
    ],
)
def test_speaker_is_identified_only_above_threshold_and_margin_and_each_person_once(
    alike: dict[tuple[int, str], float], persons: dict[int, str]
) -> None:
    assert assign_speakers(alike) == persons


def test_speaker_embedding_written_and_read_keeps_cosine_similarity_over_0_999() -> None:
    vector = np.random.default_rng(1).standard_normal(256).astype(np.float32)
    vector /= np.linalg.norm(vector)
    again = vector_of(embedding_of(SpeakerVector(vector, 3.0)))
    assert float(vector @ again) > 0.999
    assert abs(float(np.linalg.norm(again)) - 1) < 1e-6


def test_weight_of_one_long_recording_in_a_mean_embedding_is_limited() -> None:
    one, other = direction(1, 0), direction(0, 1)
    mean = mean_vector(
        [embedding_of(SpeakerVector(one, 3600.0)), embedding_of(SpeakerVector(other, 30.0))]
    )
    assert mean @ one == pytest.approx(mean @ other, abs=1e-3)


def test_overlap_of_two_diarizations_is_counted_in_seconds_for_each_pair_of_speakers() -> None:
    before = [SpeakerTurn(0, 4, 7), SpeakerTurn(3, 6, 8)]
    after = [SpeakerTurn(1, 5, 0), SpeakerTurn(5, 6, 1)]
    assert overlap_seconds(before, after) == {(7, 0): 3, (8, 0): 2, (8, 1): 1}


def test_speaker_of_transcript_gets_the_name_of_the_diarized_speaker_in_the_same_turns() -> None:
    speakers = DiarizedSpeakers(
        [SpeakerTurn(0, 1, 5), SpeakerTurn(1, 2, 3)],
        {5: SpeakerVector(direction(1, 0), 9.0), 3: SpeakerVector(direction(0, 1), 9.0)},
    )
    anna = SpeakerCandidate("a", "Anna", (embedding_of(SpeakerVector(direction(0.1, 1), 5.0)),))
    found = identify_speakers(
        transcript_of(0, 1), speakers, TranscribeOptions(known_voices=(anna,))
    )
    assert [(one.speaker, one.name) for one in found.voices] == [(0, None), (1, "Anna")]
    assert found.voices[0].likeness == pytest.approx(0.1, abs=0.01)
    assert found.name_of(1) == "Anna"
    assert found.name_of(0) is found.name_of(None) is None
    assert found.voices[0].print is None


def test_speaker_with_too_little_speech_is_neither_identified_nor_given_an_embedding() -> None:
    speakers = DiarizedSpeakers([SpeakerTurn(0, 1, 0)], {0: SpeakerVector(direction(1), 1.9)})
    known = (SpeakerCandidate("a", "Anna", (embedding_of(SpeakerVector(direction(1), 9.0)),)),)
    options = TranscribeOptions(known_voices=known, voiceprints=True)
    (found,) = identify_speakers(transcript_of(0), speakers, options).voices
    assert (found.name, found.likeness, found.print) == (None, None, None)


def test_transcript_is_unchanged_without_enrolled_speakers() -> None:
    transcript = transcript_of(0)
    speakers = DiarizedSpeakers([SpeakerTurn(0, 1, 0)], {0: SpeakerVector(direction(1), 9.0)})
    assert identify_speakers(transcript, speakers, TranscribeOptions()) is transcript
    assert identify_speakers(transcript, None, TranscribeOptions()) is transcript


def test_transcript_has_voices_not_compared_notice_if_there_are_no_embeddings() -> None:
    found = identify_speakers(transcript_of(0), None, TranscribeOptions(voiceprints=True))
    assert [notice.code for notice in found.notices] == ["voices_not_compared"]


def test_speaker_identification_options_and_results_survive_serialization() -> None:
    prints = (SpeakerEmbedding("AAAA", 2.5),)
    options = TranscribeOptions(
        known_voices=(SpeakerCandidate("a", "Änna", prints),), voiceprints=True
    )
    assert TranscribeOptions.from_wire(options.to_wire()) == options
    speakers = DiarizedSpeakers([SpeakerTurn(0, 1, 0)], {0: SpeakerVector(direction(1), 9.0)})
    transcript = identify_speakers(transcript_of(0), speakers, TranscribeOptions(voiceprints=True))
    assert from_wire(to_wire(Finished(transcript))) == Finished(transcript)


def test_enrolled_speaker_is_identified_and_a_stranger_is_not(
    models: SpeakerModels, play: Block, novel: Block
) -> None:
    man = SpeakerCandidate("m", "Nagg", (enrolment_embedding(models, [play[: 8 * RATE]]),))
    reader = SpeakerCandidate("r", "Reader", (enrolment_embedding(models, [novel[: 10 * RATE]]),))
    diarizer = Diarizer(models)
    diarizer.feed(play)
    diarizer.finish()
    speakers = diarizer.speakers()
    segments = tuple(Segment(turn.start, turn.end, "words", turn.label) for turn in speakers.turns)
    transcript = replace(transcript_of(), segments=segments)
    found = identify_speakers(transcript, speakers, TranscribeOptions(known_voices=(man, reader)))
    names = {one.name for one in found.voices}
    assert names == {"Nagg", None}
    (nagg,) = [one for one in found.voices if one.name]
    assert found.name_of(next(t.label for t in speakers.turns if t.overlap(23.8, 27.4))) == "Nagg"
    assert nagg.likeness is not None
    assert nagg.likeness > SAME_SPEAKER_SIMILARITY
    assert nagg.seconds > 5


def test_enrolment_clip_with_no_voice_too_little_voice_or_two_voices_is_refused(
    models: SpeakerModels, play: Block
) -> None:
    noise = np.random.default_rng(1).standard_normal(5 * RATE).astype(np.float32) / 10
    for silence in (np.zeros(5 * RATE, np.float32), noise, np.zeros(0, np.float32)):
        with pytest.raises(errors.VoiceAbsent):
            enrolment_embedding(models, [silence])
    with pytest.raises(errors.VoiceTooShort):
        enrolment_embedding(models, [play[: round(1.5 * RATE)]])
    with pytest.raises(errors.SeveralVoices):
        enrolment_embedding(models, [play[4 * RATE : 20 * RATE]])


def voice_of(who: int, at: int, seconds: float = 3.0) -> SpeakerEmbedding:
    """Somebody, a little otherwise each time."""
    random = np.random.default_rng(1000 * who + at)
    vector = 0.3 * random.standard_normal(256).astype(np.float32) / 16
    vector[who] += 1.0
    return embedding_of(SpeakerVector(vector / np.linalg.norm(vector), seconds))


@pytest.mark.parametrize(
    ("who", "into", "groups"),
    [
        ([0, 1, 0, 0, 1], None, [0, 1, 0, 0, 1]),
        ([1, 1, 0, 1, 0, 1], None, [0, 0, 1, 0, 1, 0]),  # who is heard most is the first
        ([0, 1, 2, 0, 0, 1], None, [0, 1, 2, 0, 0, 1]),
        ([0, 1, 2, 0, 1, 0], 3, [0, 1, 2, 0, 1, 0]),
    ],
)
def test_split_of_a_speaker_separates_voices_and_numbers_the_most_heard_first(
    who: Sequence[int], into: int | None, groups: list[int]
) -> None:
    found = split_speaker([voice_of(one, at) for at, one in enumerate(who)], into)
    assert found is not None
    assert found.groups == groups
    assert found.likeness < 0.55


def test_split_of_one_voice_gives_two_groups_and_reports_their_high_similarity() -> None:
    found = split_speaker([voice_of(0, at) for at in range(8)])
    assert found is not None
    assert set(found.groups) == {0, 1}
    assert found.likeness > 0.55


def test_split_gives_unembedded_segments_to_neighbours_and_short_ones_no_own_group() -> None:
    stranger = voice_of(5, 0, seconds=0.3)
    voices = [None, voice_of(0, 1), stranger, voice_of(1, 2), None, voice_of(0, 3)]
    found = split_speaker(voices)
    assert found is not None
    assert [found.groups[at] for at in (0, 1, 3, 4, 5)] == [0, 0, 1, 1, 0]
    assert set(found.groups) == {0, 1}


def test_split_moves_a_segment_to_the_group_that_is_nearest_once_all_have_theirs() -> None:
    degrees_s = [
        *[(0, 5.0)] * 4,
        (60, 2.0),
        (28, 1.0),
        *[(35, 1.0)] * 10,
    ]  # at first 28 is nearer 0
    voices = [
        embedding_of(SpeakerVector(direction(np.cos(angle), np.sin(angle)), seconds))
        for angle, seconds in ((np.radians(degrees), seconds) for degrees, seconds in degrees_s)
    ]
    found = split_speaker(voices, 2)
    assert found is not None
    assert found.groups == [0] * 4 + [1] * 12


def test_split_into_more_speakers_than_embedded_segments_is_refused() -> None:
    assert split_speaker([]) is None
    assert split_speaker([voice_of(0, 0), None]) is None
    assert split_speaker([voice_of(0, 0), voice_of(1, 1)], 3) is None


def test_split_of_a_thousand_segments_finds_four_speakers() -> None:
    who = [at % 7 % 4 for at in range(1000)]
    found = split_speaker([voice_of(one, at) for at, one in enumerate(who)])
    assert found is not None
    assert len({*zip(who, found.groups, strict=True)}) == 4


@pytest.mark.slow
def test_split_of_a_real_recording_restores_two_speakers(
    models: SpeakerModels, play: Block
) -> None:
    diarizer = Diarizer(models)
    for at in range(0, len(play), RATE):
        diarizer.feed(play[at : at + RATE])
    diarizer.finish()
    lines = [one for one in merge_turns(diarizer.turns) if one.end - one.start > 0.6]
    passages = diarizer.speakers().passages
    assert passages is not None
    heard = passages([(one.start, one.end) for one in lines])
    found = split_speaker([one and embedding_of(one) for one in heard])
    assert found is not None
    assert found.groups == [one.label for one in lines]
    assert {0, 1} == set(found.groups)
