"""What grows with the length of a recording is sent in several frames, each far below the limit."""

import json
from pathlib import Path

import pytest
from recordings import wav

from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource, open_recording_file
from sidecar.engines import scripted_engine
from sidecar.interfaces.engine_interface import LoadOptions, Precision, TranscribeOptions
from sidecar.transcripts.transcript import (
    Finished,
    ResumePoint,
    Segment,
    SegmentReady,
    SpeakerEmbedding,
    Transcript,
    TranscriptionEvent,
    join_parts,
    to_wire,
)
from sidecar.workers.channel import MAX_FRAME_BYTES
from sidecar.workers.engine_lease import EngineLease, RecordingRequest
from sidecar.workers.worker_process import WorkerProcess

THIRD_BYTES = 3 * MAX_FRAME_BYTES // 8
"""Of three, each fits into a frame, and not all of them."""
SECONDS = 3


def transcript_of(*texts: str) -> Transcript:
    segments = [Segment(at, at + 1.0, text) for at, text in enumerate(texts)]
    return Transcript(tuple(segments), "en", float(len(texts)), "scripted", "fp32")


@pytest.fixture
def source(tmp_path: Path) -> AudioSource:
    (tmp_path / "talk.wav").write_bytes(wav(bytes(range(250)) * 64 * SECONDS, rate=16000, bits=8))
    return open_recording_file(str(tmp_path / "talk.wav"))


async def events(
    source: AudioSource, points: list[ResumePoint] | None = None
) -> list[TranscriptionEvent]:
    worker = WorkerProcess("scripted")
    try:
        load = {"engine": scripted_engine.SPEC.factory, "options": LoadOptions().to_wire()}
        await worker.ask("load", **load)
        engine = EngineLease(worker, Precision.FP32, lambda plan: None)
        facts = AudioInfo("wav", "sndfile", float(SECONDS))
        request = RecordingRequest(source, facts, TranscribeOptions(), points)
        return [event async for event in engine.transcribe(request, 60.0)]
    finally:
        await worker.close()


async def test_resume_points_larger_than_a_frame_in_all_reach_the_worker_in_order(
    source: AudioSource,
) -> None:
    whole = await events(source)
    reported = [one.segment for one in whole if isinstance(one, SegmentReady)]
    points = [
        ResumePoint(one.end, "scripted-1", (one,), {"fingerprint": 0, "rest": "r" * THIRD_BYTES})
        for one in reported
    ]
    (*_, end) = await events(source, points)
    assert isinstance(end, Finished)
    assert [one.text for one in end.transcript.segments] == [one.text for one in reported]
    assert len(reported) == SECONDS


async def test_transcript_larger_than_a_frame_reaches_the_service_whole(
    source: AudioSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Finished(transcript_of(*(letter * THIRD_BYTES for letter in "abc")))
    script = tmp_path / "events.json"
    script.write_text(json.dumps([to_wire(long)]), "utf-8")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_EVENTS", str(script))
    (*_, end) = await events(source)
    assert isinstance(end, Finished)
    assert end.transcript.segments == long.transcript.segments


@pytest.mark.parametrize("embedded", [False, True])
def test_parts_of_a_transcript_have_its_segments_once_in_order_and_a_bounded_text(
    embedded: bool,
) -> None:
    whole = transcript_of(*(f"{number} " * 400 for number in range(100)))
    if embedded:
        prints = [SpeakerEmbedding(str(number), 1.0) for number in range(99)]
        whole = Transcript(whole.segments, "en", 100.0, "e", "fp32", prints=(*prints, None))
    parts = [*whole.parts()]
    assert 1 < len(parts) < 100
    assert all(0 < sum(len(s.text) for s in one.segments) < 15_000 for one in parts)
    assert join_parts(parts) == whole
    assert [*transcript_of("short").parts()] == [transcript_of("short")]
    assert [*transcript_of().parts()] == [transcript_of()]
