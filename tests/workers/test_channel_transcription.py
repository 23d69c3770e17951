"""A recording is transcribed channel by channel, and goes on where an attempt ended."""

import random
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from engine_requests import request_of
from recordings import wav

from sidecar.audio import SAMPLE_RATE
from sidecar.audio.audio_decoder import DecodedAudio, open_audio, probe_audio
from sidecar.audio.channel_survey import ChannelSurvey
from sidecar.audio.selected_channel import SelectedChannel
from sidecar.engines.scripted_engine import ScriptedEngine
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions
from sidecar.transcripts.channel_merge import TranscribedChannel, merge_channels
from sidecar.transcripts.dialogue import cut_as_dialogue
from sidecar.transcripts.transcript import (
    Finished,
    Peaks,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    Word,
    from_wire,
    to_wire,
)
from sidecar.workers.channel_transcription import ChannelTranscription, MergedSegments

SECONDS, SETTLES = 8, 2
Transcribe = Callable[..., list[TranscriptionEvent]]


@pytest.fixture
def stereo(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Noise on three channels, the last of which is the first again unless a test gives it another
    seed; 8 bit at 2 kHz."""
    seeds = 1, 2, getattr(request, "param", 1)
    channels = [random.Random(seed).randbytes(2000 * SECONDS) for seed in seeds]
    path = tmp_path / "three.wav"
    frames = bytes(byte for frame in zip(*channels, strict=True) for byte in frame)
    path.write_bytes(wav(frames, channels=3, rate=2000, bits=8))
    return path


@pytest.fixture
def transcribe(stereo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transcribe]:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", str(SETTLES))
    engine = ScriptedEngine()
    list(engine.load(LoadOptions()))
    with stereo.open("rb", buffering=0) as file:
        facts = probe_audio(file.fileno(), 60.0)

        def open_channel(channel: SelectedChannel | ChannelSurvey) -> DecodedAudio:
            return open_audio(file.fileno(), facts, rate=SAMPLE_RATE, max_s=60.0, channel=channel)

        def run(
            points: Sequence[ResumePoint] | None = (),
            cancelled: Callable[[], bool] = lambda: False,
            pointless: Container[int] = (),
            characters: int = 0,
        ) -> list[TranscriptionEvent]:
            """``pointless``: channels in which the engine makes no resume point. ``characters``:
            of a segment, at least."""
            opened = list[int]()

            def open_numbered(channel: SelectedChannel | ChannelSurvey) -> DecodedAudio:
                if isinstance(channel, SelectedChannel):
                    opened.append(channel.number)
                return open_channel(channel)

            def engine_events(
                audio: DecodedAudio,
                options: TranscribeOptions,
                points: Sequence[ResumePoint] | None,
            ) -> Iterator[TranscriptionEvent]:
                request = request_of(audio, options, cancelled)
                if points is None or opened[-1] in pointless:
                    return engine.transcribe(request)
                return (
                    replace(
                        event,
                        transcript=replace(
                            event.transcript,
                            segments=tuple(
                                replace(one, text=one.text.ljust(characters, "."))
                                for one in event.transcript.segments
                            ),
                        ),
                    )
                    if isinstance(event, Finished)
                    else event
                    for event in engine.transcribe_from(points, request)
                )

            options = TranscribeOptions(channel_names=("Agent", "Caller"))
            work = ChannelTranscription(
                facts.channels, options, open_numbered, engine_events, lambda: False
            )
            # As over the wire and from the disk.
            return [from_wire(to_wire(event)) for event in work.events(points)]

        yield run


def finished(events: Sequence[TranscriptionEvent]) -> Transcript:
    assert isinstance(events[-1], Finished)
    return events[-1].transcript


def test_each_different_channel_is_transcribed_once_and_a_copy_left_out_with_a_notice(
    transcribe: Transcribe,
) -> None:
    events = transcribe()
    found = finished(events)
    texts = [one.text for one in found.segments]
    assert len(texts) == len({*texts}) == 2 * SECONDS
    assert [one.start for one in found.segments] == sorted(2 * [*range(SECONDS)])
    names = {one.name for one in found.voices}
    assert names == {"Agent 1", "Agent 2", "Caller 1", "Caller 2"}
    (notice,) = found.notices
    assert (notice.code, "Channel 3 that of Agent" in notice.message) == ("channels_same", True)
    (peaks,) = (one for one in events if isinstance(one, Peaks))
    assert len(peaks.levels) == 10 * SECONDS


def test_segments_are_reported_as_they_are_in_the_transcript(transcribe: Transcribe) -> None:
    events = transcribe()
    reported = [one for one in events if isinstance(one, SegmentReady)]
    assert [one.index for one in reported] == [*range(len(reported))]
    assert [one.segment for one in reported] == [*finished(events).segments]


def test_progress_grows_to_the_length_of_the_recording(transcribe: Transcribe) -> None:
    done = [one.audio_s_done for one in transcribe() if isinstance(one, Progress)]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(SECONDS, abs=0.1)
    assert done[SECONDS // 2] < SECONDS / 2, "half of one channel is no half"


def test_every_resume_point_leads_to_the_same_transcript_and_nothing_before_it_is_redone(
    transcribe: Transcribe,
) -> None:
    events = transcribe()
    points = [one for one in events if isinstance(one, ResumePoint)]
    assert any("finished" in one.state for one in points)
    assert [one.audio_s for one in points] == sorted(one.audio_s for one in points)
    assert all(one.form == points[0].form for one in points)
    for count in range(1, len(points) + 1):
        again = transcribe(points[:count])
        assert finished(again) == finished(events)
        reported = [one.segment for one in again if isinstance(one, SegmentReady)]
        assert reported == [*finished(events).segments]
        more = [one for one in again if isinstance(one, ResumePoint)]
        assert more == points[count:], "nothing is done again"


def test_attempt_that_ended_between_the_parts_of_a_done_channel_is_followed_by_the_same_transcript(
    transcribe: Transcribe,
) -> None:
    long = partial(transcribe, characters=5000)
    events = long()
    points = [one for one in events if isinstance(one, ResumePoint)]
    parts = [at for at, one in enumerate(points, 1) if "finished" in one.state]
    assert len(parts) > 2
    for count in parts:
        again = long(points[:count])
        assert finished(again) == finished(events)
        more = [one for one in again if isinstance(one, ResumePoint)]
        assert finished(long([*points[:count], *more])) == finished(events)


def test_channel_without_resume_points_is_redone_and_the_next_resumes_from_its_own(
    transcribe: Transcribe,
) -> None:
    events = transcribe(pointless={0})
    points = [one for one in events if isinstance(one, ResumePoint)]
    assert points
    again = transcribe(points[:1], pointless={0})
    assert finished(again) == finished(events)
    more = [one for one in again if isinstance(one, ResumePoint) and "point" in one.state]
    assert more == points[1:], "what the next channel has is not done again"


@pytest.mark.parametrize("stereo", [3], indirect=True)
def test_resumed_transcript_has_done_channels_in_which_the_engine_made_no_resume_point(
    transcribe: Transcribe,
) -> None:
    events = transcribe(pointless={0, 2})
    texts = [one.text for one in finished(events).segments]
    assert len({*texts}) == len(texts) == 3 * SECONDS
    points = [one for one in events if isinstance(one, ResumePoint)]
    assert [one.state["channel"] for one in points if "finished" in one.state] == [0, 1]
    assert [one.audio_s for one in points] == sorted(one.audio_s for one in points)
    for count in range(1, len(points) + 1):
        assert finished(transcribe(points[:count], pointless={0, 2})) == finished(events)
    without_first = [one for one in points if one.state["channel"] == 1]  # as releases before did
    assert finished(transcribe(without_first, pointless={0, 2})) == finished(events)


def test_transcription_that_wants_no_resume_points_makes_none_and_the_same_transcript(
    transcribe: Transcribe,
) -> None:
    events = transcribe(None)
    assert not any(isinstance(one, ResumePoint) for one in events)
    assert finished(events) == finished(transcribe())


@pytest.mark.parametrize("after", [3, SECONDS + 3])
def test_cancelled_transcription_ends_without_a_transcript(
    transcribe: Transcribe, after: int
) -> None:
    asked = iter(range(1000))
    events = transcribe((), lambda: next(asked) > after)
    assert not any(isinstance(one, Finished) for one in events)
    assert len([one for one in events if isinstance(one, Progress)]) <= after + 1


def test_reported_segments_of_channels_are_cut_in_the_order_of_the_dialogue() -> None:
    """What is reported is what the transcript has, also where the last channel's segments cut those
    of the one before; a segment that is reported again replaces its pieces."""
    words = [Word(at, at + 0.4, f"w{at}") for at in range(20)]
    long = Segment(0, 19.4, " ".join(word.text for word in words), 0, tuple(words))
    answers = [
        Segment(at + 0.5, at + 0.9, f"a{at}", 0, (Word(at + 0.5, at + 0.9, f"a{at}"),))
        for at in (3, 9, 14)
    ]
    done, last = (
        Transcript(segments, "en", 20.0, "e", "p") for segments in ((long,), tuple(answers))
    )
    merged = MergedSegments([done], timed=True)
    reported = [
        one for at, each in enumerate(answers) for one in merged.add(SegmentReady(at, each))
    ]
    assert not [*merged.add(SegmentReady(2, answers[2]))][1:]
    reported += merged.rest()
    names = ["Left", "Right"]
    expected = merge_channels([*map(TranscribedChannel, names, cut_as_dialogue([done, last]))])
    assert [one.segment for one in reported] == [*expected.segments]
    assert [one.index for one in reported] == [*range(7)]
    assert [one.text[0] for one in expected.segments] == [*"wawawaw"]
