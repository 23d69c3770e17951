"""VibeVoice-ASR-Streaming by every protocol, on a tiny checkpoint in the released layout."""

import asyncio
import io
import os
from collections.abc import Iterator
from typing import Any

import live_wire
import numpy as np
import psutil
import pytest
import soundfile
import tiny_streaming
from service_process import Server, wait_until
from test_realtime_transcription import COMPLETED, SEGMENT, appended
from test_realtime_transcription import connected as realtime
from test_same_words import by_grpc, by_job, by_live, by_ndjson, by_openai, by_yap
from tiny_vibevoice import CONTEXT

from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.audio.signal_conditioning import Resampler
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.interfaces.live_options import LIVE_RATE, QUIET_SPEECH, LiveOptions
from sidecar.interfaces.recognition import SegmentRequest
from sidecar.live.runtime.endpointing import FRAME_SAMPLES

RATE = 24_000
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="kills processes")]
RECORDING = "endgame_nagg_nell"
SAID = ["Nag: what is it, my pet?", "Nel: déjà vu, 嗯. Time to go.", "Can you"]
"""Of the first windows, turn by turn."""
READ = "Ever tried, ever failed. Fail again. Fail better. No matter."
QUIET = {
    "threshold": QUIET_SPEECH.threshold,
    "neg_threshold": QUIET_SPEECH.neg_threshold,
}
ALL_AUDIO = {"turns": "client", "endpointing": {"threshold": 0, "neg_threshold": 0}}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("streaming")
    with Server(
        home,
        engine="vibevoice-streaming",
        model_path=tiny_streaming.checkpoint(),
        precision="fp32",
        preload="true",
        keep_alive=-1,
        grpc_port=0,
        people="1",
        data_dir=home / "kept",
        journal_key="0123456789abcdef" * 4,
    ) as server:
        wait_until(lambda: server.health()["model_loaded"], "the engine is loaded")
        yield server


@pytest.fixture(scope="module")
def content() -> bytes:
    """The recording as a file."""
    return tiny_streaming.clip_16k(RECORDING).read_bytes()


@pytest.fixture(scope="module")
def pcm(content: bytes) -> bytes:
    """Its samples, 16 bit at 16 kHz."""
    return bytes(soundfile.read(io.BytesIO(content), dtype="int16")[0].tobytes())


def test_file_has_the_words_by_transcribe_jobs_and_openai_and_the_speakers_by_transcribe(
    there: Server, content: bytes
) -> None:
    came, whole = by_ndjson(there, content)
    told = (came, whole, by_job(there, content))
    assert {" ".join(text for _, text in one) for one in told} == {" ".join(SAID)}
    deltas, text = by_openai(there, content)
    assert deltas == text
    assert text.split() == " ".join(SAID).split()
    found = there.post(content).json()
    assert {one["speaker"] for one in found["segments"]} == {"Speaker_0", "Speaker_1"}
    assert found["metadata"]["engine"] == "vibevoice-streaming"


async def by_realtime(server: Server, raw: bytes) -> str:
    """What a Realtime session writes of a commit."""
    off = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    async with realtime(server) as client:
        await client.send({"type": "session.update", "session": off})
        await client.send(appended(raw), {"type": "input_audio_buffer.commit"})
        found = await client.until(COMPLETED, 1)
    [text] = [one["transcript"] for one in found if one["type"] == COMPLETED]
    return str(text)


async def test_realtime_commit_of_a_whole_recording_has_the_words_of_the_model(
    there: Server,
) -> None:
    samples = decode_audio_file(tiny_streaming.clip_16k(RECORDING), RATE)
    text = await by_realtime(there, (samples * 32767).astype("<i2").tobytes())
    assert text.split() == " ".join(SAID).split()


def of_the_model(samples: Block) -> list[str]:
    """The words of the model for whole audio, without a service."""
    from sidecar.engines.vibevoice.streaming_live import SharedModel
    from sidecar.engines.vibevoice_streaming import VibeVoiceStreamingEngine

    engine = VibeVoiceStreamingEngine()
    list(engine.load(LoadOptions(Precision.FP32, str(tiny_streaming.checkpoint()), "cpu")))
    assert engine.model is not None
    request = SegmentRequest(samples, LiveOptions())
    found = SharedModel(engine.model).recognize(request, last=True)
    assert found is not None
    return " ".join([*(turn.text for _, turn in found.earlier), found.text]).split()


async def test_audio_of_24_khz_has_the_words_of_its_own_samples_by_live_wire_realtime_and_grpc(
    there: Server,
) -> None:
    """A tone of 10 kHz, which 16 kHz cannot hold, changes what the model writes."""
    speech = decode_audio_file(tiny_streaming.clip_16k(RECORDING), RATE)
    tone = 0.2 * np.sin(2 * np.pi * 10_000 * np.arange(len(speech)) / RATE)
    shorts = ((speech + tone) * 32767).clip(-32768, 32767).astype("<i2")
    samples, raw = shorts / np.float32(32768), shorts.tobytes()
    words = of_the_model(samples)
    reduced = Resampler(RATE, LIVE_RATE).take(samples, last=True)
    assert of_the_model(Resampler(LIVE_RATE, RATE).take(reduced, last=True)) != words
    live = await finals(there, raw, rate=RATE, **ALL_AUDIO)
    assert " ".join(one["segment"]["text"] for one in live).split() == words
    assert (await by_realtime(there, raw)).split() == words
    grpc = await asyncio.to_thread(by_grpc, there, raw, RATE, vad_threshold_override=0.0)
    assert grpc.split() == words


async def test_diarizing_realtime_session_tells_the_speakers_of_two_recordings_apart(
    there: Server,
) -> None:
    segments = await diarized(there, first="A")
    assert [one["text"] for one in segments] == [READ, *SAID]


async def diarized(server: Server, first: str) -> list[dict[str, Any]]:
    """The segments of a Realtime session that hears the reading and the play, once each has a
    speaker, which may follow, and the first one alone has this."""
    off = {
        "type": "transcription",
        "audio": {
            "input": {
                "turn_detection": None,
                "transcription": {"model": "gpt-4o-transcribe-diarize"},
            }
        },
    }
    async with realtime(server) as client:
        await client.send({"type": "session.update", "session": off})
        for name in ("beckett", RECORDING):
            samples = decode_audio_file(tiny_streaming.clip_16k(name), 24_000)
            samples = samples[: len(samples) // (3 * FRAME_SAMPLES) * 3 * FRAME_SAMPLES // 2 * 2]
            raw = (samples * 32767).astype("<i2").tobytes()
            await client.send(appended(raw), {"type": "input_audio_buffer.commit"})
        found = await client.until(COMPLETED, 2)
        while True:
            segments = {one["id"]: one for one in found if one["type"] == SEGMENT}
            story = sorted(segments.values(), key=lambda one: one["start"])
            theirs = [one["speaker"] for one in story]
            if len(story) == 4 and theirs[0] == first and first not in theirs[1:]:
                return story
            found += await client.until(SEGMENT)


async def test_live_session_without_vad_has_the_words_and_speakers_of_the_model(
    there: Server, pcm: bytes
) -> None:
    async with live_wire.wire(there) as socket:
        await live_wire.say(socket, "begin", **ALL_AUDIO)
        first, *others = live_wire.pieces(reading(), 10 * LIVE_RATE)  # 5 s
        await socket.send(first)
        partial = await live_wire.next_of(socket, "partial")
        for piece in (*others, None, *live_wire.pieces(pcm), None):
            await (socket.send(piece) if piece else live_wire.say(socket, "commit"))
        await live_wire.say(socket, "finish")
        found, _ = await live_wire.rest(socket)
    texts = [one["segment"]["text"] for one in found if one["type"] == "final"]
    assert texts == [READ, *SAID]
    segments = found[-1]["transcript"]["segments"]
    assert [one["text"] for one in segments] == texts
    assert [one["speaker"] for one in segments] == [f"Speaker_{number}" for number in range(4)]
    assert partial["text"] == "Ever tried,"


async def test_prompt_of_a_client_reaches_the_model_by_file_and_live(
    there: Server, content: bytes, pcm: bytes
) -> None:
    named = [*map(tiny_streaming.named, SAID)]
    whole = there.post(content, prompt=CONTEXT).json()["segments"]
    # Voices part them, and the words of the tiny model are not where the voices change.
    assert " ".join(one["text"] for one in whole) == " ".join(named) != " ".join(SAID)
    live = await finals(there, pcm, prompt=CONTEXT, **ALL_AUDIO)
    assert [one["segment"]["text"] for one in live] == named


def reading() -> bytes:
    """The other recording, 16 bit at 16 kHz, to the end of a frame."""
    samples = soundfile.read(tiny_streaming.clip_16k("beckett"), dtype="int16")[0]
    return bytes(samples.tobytes() + bytes(-2 * len(samples) % (2 * FRAME_SAMPLES)))


async def test_enrolled_speaker_is_named_by_the_live_wire_and_by_realtime(
    there: Server, pcm: bytes
) -> None:
    clip = {"audio": ("reading.wav", tiny_streaming.clip_16k("beckett").read_bytes())}
    person = there.client.post("/v1/people", data={"name": "Reader"}, files=clip)
    assert person.status_code == 201, person.text
    try:
        async with live_wire.wire(there) as socket:
            await live_wire.say(socket, "begin", **ALL_AUDIO)
            for piece in (*live_wire.pieces(reading()), None):
                await (socket.send(piece) if piece else live_wire.say(socket, "commit"))
            first = await live_wire.next_of(socket, "final")
            if "name" not in first["segment"]:  # it did not wait for its embedding
                revised = await live_wire.next_of(socket, "speakers_revised")
                assert revised["names"] == {"Speaker_0": "Reader"}
            for piece in (*live_wire.pieces(pcm), None):
                await (socket.send(piece) if piece else live_wire.say(socket, "commit"))
            await live_wire.say(socket, "finish")
            found, _ = await live_wire.rest(socket)
        segments = found[-1]["transcript"]["segments"]
        assert [one.get("name") for one in segments] == ["Reader", None, None, None]
        assert [one["text"] for one in segments] == [READ, *SAID]
        await diarized(there, first="Reader")
    finally:
        there.client.delete(f"/v1/people/{person.json()['id']}")


def test_live_session_has_the_same_words_by_grpc_and_yap_as_by_the_live_wire(
    there: Server, pcm: bytes
) -> None:
    assert by_grpc(there, pcm, vad_threshold_override=0.0) == " ".join(SAID)
    words = asyncio.run(by_live(there, pcm))
    assert words
    assert by_grpc(there, pcm) == words, "cut by VAD: not those of whole windows"
    usual = {"turns": "client", "endpointing": QUIET}
    quiet = [one["segment"]["text"] for one in asyncio.run(finals(there, pcm, **usual))]
    assert asyncio.run(by_yap(there, pcm)) == " ".join(quiet)


def live_worker(server: Server) -> psutil.Process:
    """The process of the engine that hears live audio."""
    engines = server.client.get("/metrics.json").json()["vibevoice"]["engines"]
    [found] = [one for one in engines if one["role"] == "live"]
    return psutil.Process(found["pid"])


async def test_live_session_keeps_words_and_speakers_if_its_worker_is_killed_within_a_turn(
    there: Server, pcm: bytes
) -> None:
    async with live_wire.wire(there) as socket:
        await live_wire.say(socket, "begin", **ALL_AUDIO)
        first, *others = live_wire.pieces(pcm, 8 * LIVE_RATE)  # 4 s: one window of the play
        for piece in (*live_wire.pieces(reading()), None, first):
            await (socket.send(piece) if piece else live_wire.say(socket, "commit"))
        told = [await live_wire.next_of(socket, "final")]
        while (await live_wire.next_of(socket, "partial"))["text"] != "Nag: what is it,":
            pass
        live_worker(there).kill()
        for piece in (*others, None):
            await (socket.send(piece) if piece else live_wire.say(socket, "commit"))
        await live_wire.say(socket, "finish")
        found, _ = await live_wire.rest(socket)
    told += [one for one in found if one["type"] == "final"]
    assert [one["segment"]["text"] for one in told] == [READ, *SAID]
    codes = [one["code"] for one in found if one["type"] == "notice"]
    assert codes.count("engine_restarted") == 1
    segments = found[-1]["transcript"]["segments"]
    assert [one["text"] for one in segments] == [READ, *SAID]
    assert [one["speaker"] for one in segments] == [f"Speaker_{number}" for number in range(4)]


async def finals(server: Server, pcm: bytes, **options: Any) -> list[dict[str, Any]]:
    """What is final in a session that hears this."""
    told = await live_wire.heard(server, pcm, **options)
    return [one for one in told if one["type"] == "final"]
