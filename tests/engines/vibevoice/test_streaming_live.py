"""Live sessions of VibeVoice-ASR-Streaming in this process, on the tiny checkpoint with a cache
that is full after some windows."""

import gc
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import tiny_streaming
from live_client import LiveClient
from service_process import PATIENCE_S, wait_until
from tiny_vibevoice import CONTEXT

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE as RATE
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.diarization.speaker_identification import SpeakerVector, embedding_of
from sidecar.diarization.speaker_models import SpeakerEncoder, load_models
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.interfaces.live_events import Final, SpeakersRevised
from sidecar.interfaces.live_options import (
    LIVE_RATE,
    EndpointingOptions,
    LiveOptions,
    LiveOrder,
    SampleEncoding,
    TurnControl,
)
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.live_scheduler import LiveRecognizers
from sidecar.live.runtime.recognition_plan import RecognitionUrgency
from sidecar.transcripts.transcript import Segment, SpeakerCandidate
from sidecar.workers.worker_live_session import SampleInput

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from sidecar.engines import vibevoice_streaming  # noqa: E402
from sidecar.engines.vibevoice.streaming_live import SharedModel  # noqa: E402

CACHE_TOKENS = 445
FRAME = FRAME_SAMPLES * RATE // LIVE_RATE
READING, PLAY = "beckett", "endgame_nagg_nell"
READ = "Ever tried, ever failed. Fail again. Fail better. No matter."
PLAYED = ["Nag: what is it, my pet?", "Nel: déjà vu, 嗯. Time to go.", "Can you"]
WHOLE = LiveOptions(
    turns=TurnControl.CLIENT,
    endpointing=EndpointingOptions(threshold=0, neg_threshold=0),
    patience_s=PATIENCE_S,
)

SPEECH = LiveOptions(patience_s=PATIENCE_S)


@pytest.fixture(scope="module")
def engine() -> Iterator[vibevoice_streaming.VibeVoiceStreamingEngine]:
    found = vibevoice_streaming.VibeVoiceStreamingEngine(session_tokens=CACHE_TOKENS)
    folder = str(tiny_streaming.checkpoint())
    list(found.load(LoadOptions(Precision.FP32, folder, "cpu", live=True)))
    yield found
    found.scheduler.close()


@cache
def sound(name: str) -> Block:
    """A recording in whole frames, shape (samples,) at 24 kHz."""
    samples = decode_audio_file(tiny_streaming.clip_16k(name), RATE)
    return np.pad(samples, (0, -len(samples) % FRAME))


def windows(name: str, count: int) -> Block:
    """The first ones of a recording: equal results need no more of it than fills the cache."""
    return sound(name)[: round(count * tiny_streaming.CHUNK_S * RATE)]


def hear(client: LiveClient, *utterances: Block) -> None:
    """Say these, and commit each."""
    for samples in utterances:
        for _ in client.say(samples, RATE):
            pass
        client.session.push(LiveOrder.COMMIT)


def tensor_bytes() -> int:
    """Bytes of all tensors of this process."""
    gc.collect()
    return sum(one.nbytes for one in gc.get_objects() if type(one) is torch.Tensor)


@pytest.mark.parametrize(
    ("rounds", "renewals"), [(1, 6), pytest.param(21, 85, marks=pytest.mark.slow)]
)
def test_session_whose_cache_is_renewed_as_often_as_in_a_day_keeps_words_speakers_and_memory(
    engine: Any, rounds: int, renewals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of the release is full every seventeen minutes of speech: 85 times a day."""
    renewed, transcribe = [], engine.model.transcribe

    def counted(*arguments: Any) -> Any:
        chunks = transcribe(*arguments)
        renewed.extend(one for one in chunks if one.renewed)
        return chunks

    monkeypatch.setattr(engine.model, "transcribe", counted)
    client = LiveClient(engine, WHOLE)
    hear(client, sound(READING), sound(PLAY))
    client.until_finals(4)
    begun = tensor_bytes()
    for _ in range(rounds):
        hear(client, sound(READING), sound(PLAY))
    client.until_finals(4 * (rounds + 1))
    assert len(renewed) >= renewals
    assert tensor_bytes() <= begun + 100_000
    segments = client.end().transcript.segments
    assert [one.text for one in segments] == [READ, *PLAYED] * (rounds + 1)
    assert [one.speaker for one in segments] == [0, 1, 2, 3] * (rounds + 1)


def test_dropped_session_leaves_no_reference_in_the_model(engine: Any) -> None:
    model = engine.model
    with torch.inference_mode():
        session = model.open()
        model.transcribe([session], [np.zeros(model.format.window_samples, np.float32)])
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


def test_enrolled_speaker_is_named_and_a_short_answer_relabelled_once_its_speaker_says_more(
    engine: Any,
) -> None:
    """A short answer is the first speaker's until more of its own voice has come."""
    reading = decode_audio_file(tiny_streaming.clip_16k(READING), LIVE_RATE)
    vector = SpeakerEncoder(load_models()).vector(reading[: 6 * LIVE_RATE])
    known = SpeakerCandidate("b", "Reader", (embedding_of(SpeakerVector(vector, 6.0)),))
    client = LiveClient(engine, WHOLE.with_speakers_of(LiveOptions(known_voices=(known,))))
    hear(client, sound(READING), sound(PLAY)[: 40 * FRAME])
    wait_until(lambda: label_of(client, 1) == 0, "it is the first speaker's")
    hear(client, sound(PLAY)[: 100 * FRAME])
    wait_until(lambda: label_of(client, 1) == 1, "it is the second speaker's")
    transcript = client.end().transcript
    assert [one.speaker for one in transcript.segments][:3] == [0, 1, 1]
    assert [transcript.name_of(speaker) for speaker in (0, 1)] == ["Reader", None]


@pytest.mark.parametrize(
    ("options", "speakers"), [(WHOLE, 2), (SPEECH, 1)], ids=["all_audio", "speech"]
)
def test_results_of_a_session_do_not_depend_on_block_size_or_pace_of_its_audio(
    engine: Any, options: LiveOptions, speakers: int
) -> None:
    """At once, in short pieces, or each one only when all before it was heard. Windows of speech
    alone are none that the checkpoint was trained on: what it says there differs by processor."""
    said = np.concatenate([windows(PLAY, 4), windows(READING, 2)])
    found = []
    for size, heard_first in ((len(said), False), (2 * RATE + 1, True), (700, False)):
        client = LiveClient(engine, options)
        for at in range(0, len(said), size):
            client.session.push(said[at : at + size])
            if heard_first:
                wait_until(partial(has_heard_all, client), "it is heard")
        segments = client.end().transcript.segments
        finals = [one.segment for one in client.finals]
        assert [replace(one, speaker=None) for one in finals] == [
            replace(one, speaker=None) for one in segments
        ]
        found.append([replace(one, confidence=None) for one in segments])
    assert len({one.speaker for one in found[0]}) >= speakers
    assert all(one == found[0] for one in found)


def test_sessions_at_the_same_time_have_the_results_that_each_has_alone(engine: Any) -> None:
    talks = [(READING, PLAY), (PLAY, READING), (PLAY,)]

    def results(*several: Sequence[str]) -> list[list[Segment]]:
        clients = [LiveClient(engine, WHOLE) for _ in several]
        for client, talk in zip(clients, several, strict=True):
            for name in talk:
                client.session.push(windows(name, 2))
                client.session.push(LiveOrder.COMMIT)
        found = [client.end().transcript.segments for client in clients]
        return [[replace(one, confidence=None) for one in segments] for segments in found]

    assert results(*talks) == [results(talk)[0] for talk in talks]


def has_heard_all(client: LiveClient) -> bool:
    return client.session.backlog_s < FRAME_SAMPLES / LIVE_RATE


def label_of(client: LiveClient, piece: int) -> int | None:
    """The speaker of a segment by the events so far."""
    label = None
    for event in client.of(Final, SpeakersRevised):
        if isinstance(event, SpeakersRevised):
            label = event.speakers.get(piece, label)
        elif isinstance(event, Final) and event.segment_number == piece:
            label = event.segment.speaker
    return label


def recognized(model: SharedModel, request: SegmentRequest) -> RecognitionHypothesis | None:
    """The final of a segment, in one piece."""
    ears = LiveRecognizers(partial(model.recognize, last=True))
    return ears.words(request, RecognitionUrgency.FINAL)


def texts(found: RecognitionHypothesis | None) -> list[str]:
    assert found is not None
    return [*(turn.text for _, turn in found.earlier), found.text]


@pytest.mark.parametrize(
    ("faults", "said"),
    [((4,), PLAYED), ((4, 5), [PLAYED[0], "Nel: déjà vu,"])],
    ids=["once", "again"],
)
def test_final_whose_window_fails_is_tried_once_more_and_then_keeps_the_words_of_windows_before(
    engine: Any, faults: Sequence[int], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, transcribe = 0, engine.model.transcribe

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in faults:
            raise errors.GpuOutOfMemory
        return transcribe(*arguments)

    monkeypatch.setattr(engine.model, "transcribe", failing)
    found = recognized(SharedModel(engine.model), SegmentRequest(sound(PLAY), LiveOptions()))
    assert texts(found) == said
    assert found is not None
    assert found.unheard is (len(faults) > 1)


def test_prompt_of_a_live_session_changes_the_words_of_the_model(engine: Any) -> None:
    options = LiveOptions(prompt=CONTEXT)
    found = recognized(SharedModel(engine.model), SegmentRequest(sound(PLAY), options))
    assert texts(found) == [*map(tiny_streaming.named, PLAYED)] != PLAYED


@pytest.mark.parametrize("block", [700, 2_400, 100_000])
def test_samples_of_24_khz_reach_the_model_as_they_were_sent(
    engine: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is in them lies above what 16 kHz can hold."""
    came: list[Block] = []
    transcribe = engine.model.transcribe

    def watched(sessions: Any, windows: Sequence[Block]) -> Any:
        came.extend(windows)
        return transcribe(sessions, windows)

    monkeypatch.setattr(engine.model, "transcribe", watched)
    loud = sound(READING) + np.random.default_rng(1).normal(0, 0.05, len(sound(READING)))
    shorts = (loud[: 4 * RATE] * 32767).clip(-32768, 32767).astype("<i2")
    client, intake = LiveClient(engine, WHOLE), SampleInput(engine.sample_rate)
    for at in range(0, len(shorts), block):
        raw = shorts[at : at + block].tobytes()
        client.session.push(intake.take(raw, SampleEncoding.PCM16, RATE))
    client.session.push(intake.rest())
    client.end()
    sent, form = shorts / np.float32(32768), engine.model.format
    assert len(came) == 2
    for number, window in enumerate(came):
        first = number * form.chunk_samples
        assert np.array_equal(window, sent[first : first + form.window_samples][: len(window)])
    assert form.chunk_samples + len(came[-1]) == len(sent)
