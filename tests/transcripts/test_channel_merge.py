"""Transcripts of channels become one, in order of time, with the channels' names."""

import pytest

from sidecar.transcripts.channel_merge import (
    TranscribedChannel,
    channel_name,
    channel_names,
    merge_channels,
)
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    SPEAKERS_UNAVAILABLE,
    Notice,
    Segment,
    SpeakerEmbedding,
    SpeakerProfile,
    Transcript,
)
from sidecar.transcripts.transcript_formats import to_text, to_vtt


def transcript(*segments: Segment, **more: object) -> Transcript:
    given = {"language": "en", "duration": 9.0, "engine": "e", "precision": "p"} | more
    return Transcript(segments, **given)  # type: ignore[arg-type]


def channels(*transcripts: Transcript) -> list[TranscribedChannel]:
    names = channel_names(len(transcripts))
    return [TranscribedChannel(*pair) for pair in zip(names, transcripts, strict=True)]


def test_segments_of_merged_channels_are_in_order_of_time_with_channel_names() -> None:
    left = transcript(Segment(0, 2, "One.", 0), Segment(4, 6, "Three.", 0))
    right = transcript(Segment(1, 5, "Two.", 0), Segment(7, 8, "Four.", 0))
    merged = merge_channels(channels(left, right))
    assert to_text(merged).splitlines() == [
        "[00:00:00.0] Left: One.",
        "[00:00:01.0] Right: Two.",
        "[00:00:04.0] Left: Three.",
        "[00:00:07.0] Right: Four.",
    ]
    assert "<v.Speaker_1 Right>Two." in to_vtt(merged, "")
    assert merged.num_speakers == 2


def test_several_speakers_of_one_channel_have_its_name_with_a_number() -> None:
    left = transcript(Segment(0, 1, "a", 0), Segment(2, 3, "b", 1))
    right = transcript(Segment(1, 2, "c", 0))
    merged = merge_channels(channels(left, right))
    assert [merged.name_of(one.speaker) for one in merged.segments] == ["Left 1", "Right", "Left 2"]


def test_channel_without_speech_has_no_speaker() -> None:
    music = Segment(0, 1, "[Music]", None, flags=(NON_SPEECH_FLAG,))
    merged = merge_channels(channels(transcript(music), transcript(Segment(1, 2, "a", 0))))
    assert [(one.speaker, one.name) for one in merged.voices] == [(0, "Right")]
    assert [one.speaker for one in merged.segments] == [None, 0]


def test_undiarized_channels_are_one_speaker_each_without_the_notice_of_no_speakers() -> None:
    left = transcript(Segment(0, 1, "a"), notices=(SPEAKERS_UNAVAILABLE, Notice("n", "m")))
    merged = merge_channels(channels(left, transcript(Segment(1, 2, "b"))))
    assert [one.speaker for one in merged.segments] == [0, 1]
    assert merged.diarized
    assert merged.notices == (Notice("n", "m"),)


def test_merged_channels_keep_enrolled_speakers_and_the_embedding_of_each_segment() -> None:
    one, two = SpeakerEmbedding("A", 1.0), SpeakerEmbedding("B", 1.0)
    nell = SpeakerProfile(0, 5.0, "p", "Nell", 0.9)
    left = transcript(Segment(2, 3, "a", 0), voices=(nell,), prints=(one,))
    right = transcript(Segment(0, 1, "b", 0), Segment(4, 5, "c", 0), prints=(two, None))
    merged = merge_channels(channels(left, right))
    assert merged.voices == (nell, SpeakerProfile(1, 0.0, name="Right"))
    assert merged.prints == (two, one, None)


@pytest.mark.parametrize(
    ("number", "count", "given", "name"),
    [
        (0, 2, (), "Left"),
        (1, 2, ("Agent",), "Right"),
        (1, 2, ("", "Caller"), "Caller"),
        (0, 2, ("", "Caller"), "Left"),
        (2, 4, (), "Channel 3"),
    ],
)
def test_channel_has_its_given_name_else_left_or_right_or_a_number(
    number: int, count: int, given: tuple[str, ...], name: str
) -> None:
    assert channel_name(number, count, given) == channel_names(count, given)[number] == name
