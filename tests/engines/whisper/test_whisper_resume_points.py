"""A recording that Whisper goes on with where an attempt ended."""

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
import tiny_whisper
from engine_requests import SampleStream, request_of, transcript_of
from tiny_whisper import PLAY, PROSE
from wheel_recordings import RATE, clip

from sidecar.engines.moonshine_whisper import MoonshineWhisperEngine
from sidecar.engines.whisper import WhisperEngine
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
    TranscriptionRequest,
)
from sidecar.transcripts.transcript import (
    Finished,
    Progress,
    ResumePoint,
    SegmentReady,
    TranscriptionEvent,
    from_wire,
    to_wire,
)

pytest.importorskip("faster_whisper", reason="the extra 'whisper'")


@pytest.fixture(scope="module")
def request_() -> TranscriptionRequest:
    """A minute of two people and a reader, in two languages."""
    samples = np.concatenate([clip(PLAY), clip(PROSE), clip(PLAY)])
    options = TranscribeOptions(words=True, keeps_diarization=True, voiceprints=True)
    return request_of(SampleStream(samples, RATE), options)


def loaded(engine: Any) -> Any:
    load = LoadOptions(Precision.FP32, str(tiny_whisper.model()), "cpu")
    assert list(engine.load(load))
    return engine


def attempt_points(events: Sequence[TranscriptionEvent]) -> list[Any]:
    """The resume points of attempts, as they come back from a job's store."""
    points = [one for one in events if isinstance(one, ResumePoint) and not one.keeps_diarization]
    return [from_wire(json.loads(json.dumps(to_wire(one)))) for one in points]


def reports(events: Sequence[TranscriptionEvent]) -> list[dict[str, Any]]:
    """All but the resume points of attempts."""
    return [
        to_wire(one) for one in events if not isinstance(one, ResumePoint) or one.keeps_diarization
    ]


@pytest.mark.slow
def test_transcription_by_whisper_from_any_resume_point_has_the_same_events_after_it(
    request_: TranscriptionRequest,
) -> None:
    engine = loaded(WhisperEngine())
    whole = list(engine.transcribe_from((), request_))
    points = attempt_points(whole)
    assert len(points) >= 2
    assert any(point.segments for point in points[:-1])
    places = [at for at, one in enumerate(whole) if isinstance(one, ResumePoint)]
    for number, place in enumerate(places[: len(points)], 1):
        again = list(engine.transcribe_from(points[:number], request_))
        assert reports(again) == reports(whole[place + 1 :])
        known = [one for point in points[:number] for one in point.segments]
        transcript_of([*map(SegmentReady, count(), known), *again])
    assert reports(whole) == reports(list(engine.transcribe(request_)))


def test_recording_that_is_not_english_goes_on_with_whisper_from_its_resume_points() -> None:
    engine = loaded(MoonshineWhisperEngine())
    samples = np.concatenate([clip(PROSE)] * 4)
    request = request_of(SampleStream(samples, RATE), TranscribeOptions(language="de"))
    unnamed = request_of(SampleStream(samples, RATE), TranscribeOptions())
    whole = list(engine.transcribe_from((), request))
    points = attempt_points(whole)
    assert points
    again = list(engine.transcribe_from(points, unnamed))
    assert transcript_of_last(again).text == transcript_of_last(whole).text
    done = [one.audio_s_done for one in again if isinstance(one, Progress)]
    assert done[0] > points[-1].audio_s - 30.0, "it was heard again"


def transcript_of_last(events: Sequence[TranscriptionEvent]) -> Any:
    assert isinstance(events[-1], Finished)
    return events[-1].transcript
