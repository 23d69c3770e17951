"""What every engine promises, said once and asked of each."""

from functools import partial
from pathlib import Path

import pytest
import tiny_streaming
import tiny_transformers
import tiny_vibevoice
import tiny_whisper
from engine_requests import request_of, transcript_of
from moonshine_voice import get_assets_path
from service_process import Server
from upstream_engine_samples import PATIENT_LIMITS

from sidecar.audio.audio_decoder import open_audio, probe_audio
from sidecar.audio.audio_info import AudioInfo
from sidecar.engines import ENGINES, create_engine, engine_spec, missing_packages
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
    TranscriptionEngine,
    UpstreamOptions,
)
from sidecar.plugins import transformers_asr, upstream
from sidecar.plugins.upstream.engine import UpstreamEngine
from sidecar.transcripts.transcript import Finished, Progress, SegmentReady, TranscriptionEvent

CLIP = Path(get_assets_path()) / "endgame_nagg_nell.wav"
DAY_S = 86_400.0
TRAINED = ("vibevoice", "vibevoice-streaming", "whisper")
"""Those whose weights are trained here."""
ONLY_LIVE = ("voxtral",)
RUNNABLE = [
    spec.name
    for spec in (*ENGINES, upstream.SPEC)
    if not missing_packages(spec) and spec.name not in (*TRAINED, *ONLY_LIVE)
]
pytestmark = pytest.mark.slow_except("moonshine", "scripted", "upstream")
MINIATURES = ["whisper int8", "vibevoice-streaming fp32", "transformers fp32", "transformers bf16"]
MINIATURES += [f"vibevoice {precision}" for precision in ("fp32", "bf16", "int8", "int4")]


@pytest.fixture(scope="module", params=[*RUNNABLE, *MINIATURES])
def loading(request: pytest.FixtureRequest) -> tuple[str, LoadOptions]:
    """An engine's name, and how it is loaded."""
    name, _, precision = request.param.partition(" ")
    if name == "upstream":
        server: Server = request.getfixturevalue("server")
        return name, LoadOptions(upstream=UpstreamOptions((f"http://127.0.0.1:{server.port}",)))
    if not precision:
        return name, LoadOptions()
    folders = {
        "whisper": tiny_whisper.model,
        "vibevoice": partial(tiny_vibevoice.checkpoint, "tiny"),
        "vibevoice-streaming": tiny_streaming.checkpoint,
        "transformers": partial(tiny_transformers.model, "parakeet_ctc"),
    }
    return name, LoadOptions(Precision(precision), str(folders[name]()))


@pytest.fixture(scope="module")
def engine_name(loading: tuple[str, LoadOptions]) -> str:
    return loading[0]


@pytest.fixture(scope="module")
def engine(loading: tuple[str, LoadOptions]) -> TranscriptionEngine:
    name, options = loading
    # a busy machine is not taken for gone
    added = {one.spec.name: one.spec for one in transformers_asr.PLUGIN.engines}
    engine: TranscriptionEngine = (
        UpstreamEngine(PATIENT_LIMITS)
        if name == "upstream"
        else create_engine((added.get(name) or engine_spec(name)).factory)
    )
    list(engine.load(options))
    return engine


def run(
    engine: TranscriptionEngine,
    options: TranscribeOptions | None = None,
    stop_after: int = 1 << 30,
) -> list[TranscriptionEvent]:
    """The events of one transcription of the clip; cancelled after ``stop_after`` events."""
    events: list[TranscriptionEvent] = []
    with CLIP.open("rb", buffering=0) as file:
        facts: AudioInfo = probe_audio(file.fileno(), DAY_S)
        rate = engine.sample_rate
        with open_audio(file.fileno(), facts, rate=rate, max_s=DAY_S) as audio:
            request = request_of(audio, options, lambda: len(events) >= stop_after)
            for event in engine.transcribe(request):
                events.append(event)
    return events


@pytest.fixture(scope="module")
def events(engine: TranscriptionEngine, engine_name: str) -> list[TranscriptionEvent]:
    return run(engine)


def test_only_last_event_is_finished(events: list[TranscriptionEvent]) -> None:
    assert isinstance(events[-1], Finished)
    assert not any(isinstance(event, Finished) for event in events[:-1])


def test_segments_are_numbered_in_order_and_the_first_comes_in_the_first_half_of_events(
    events: list[TranscriptionEvent],
) -> None:
    ready = [event.index for event in events if isinstance(event, SegmentReady)]
    assert ready == list(range(len(ready)))
    assert ready
    first = next(i for i, event in enumerate(events) if isinstance(event, SegmentReady))
    assert first < len(events) / 2


def test_progress_is_monotone_and_ends_at_duration(events: list[TranscriptionEvent]) -> None:
    done = [event.audio_s_done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(28.277, abs=1.0)
    assert all(
        event.audio_s_total is None or event.audio_s_done <= event.audio_s_total
        for event in events
        if isinstance(event, Progress)
    )


def test_times_of_segments_are_monotone_and_within_recording(
    events: list[TranscriptionEvent],
) -> None:
    transcript = transcript_of(events)
    assert transcript.duration == pytest.approx(28.277, abs=0.02)
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts)
    for segment in transcript.segments:
        assert 0 <= segment.start <= segment.end <= transcript.duration + 1e-6


def test_speakers_are_numbered_from_0_in_order_of_appearance(
    events: list[TranscriptionEvent],
) -> None:
    seen: list[int | None] = []
    for segment in transcript_of(events).segments:
        if segment.speaker is not None and segment.speaker not in seen:
            seen.append(segment.speaker)
    assert seen == [0, 1]


def test_without_diarization_no_segment_has_a_speaker(
    engine: TranscriptionEngine, engine_name: str
) -> None:
    found = transcript_of(run(engine, TranscribeOptions(diarize=False)))
    assert {segment.speaker for segment in found.segments} == {None}


@pytest.mark.slow_except("scripted", "upstream")
def test_same_recording_twice_gives_same_transcript(
    engine: TranscriptionEngine, engine_name: str, events: list[TranscriptionEvent]
) -> None:
    assert run(engine)[-1] == events[-1]


@pytest.mark.parametrize("stop_after", [0, 1, 5, 10])
def test_cancelled_run_sends_at_most_one_more_event_and_no_result(
    engine: TranscriptionEngine, engine_name: str, stop_after: int
) -> None:
    cut_short = run(engine, stop_after=stop_after)
    assert len(cut_short) <= stop_after + 1
    assert not any(isinstance(event, Finished) for event in cut_short)
