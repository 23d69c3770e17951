"""Words of one recording by every protocol: the same, each once, in order of time."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import live_wire
import numpy as np
import pytest
import sse_reader
import wheel_recordings
from grpc_client import Client, sound
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recordings import SECONDS, Studio, wav
from service_process import PATIENCE_S, Server, StartServer
from test_realtime_transcription import COMPLETED, appended
from test_realtime_transcription import connected as realtime
from test_realtime_transcription import sound as sound_at_24_khz
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from yap_client import Streaming, base64_of

from sidecar.plugins.grpc_stt.stt_pb2 import AudioChunk as GrpcChunk
from sidecar.transcripts import transcript
from sidecar.transcripts.transcript import Finished, Segment, SegmentReady, to_wire

RECORDING = bytes(2 * 16_000 * 10)
WAV = wav(RECORDING)
Line = tuple[int, int, int, str]
"""Start and length in tenths of a second, speaker, text."""

texts = st.lists(st.sampled_from(["Yes.", "no", "Ever", "tried", "ever"]), min_size=1, max_size=4)
lines = st.lists(
    st.tuples(st.integers(0, 80), st.integers(1, 20), st.integers(0, 2), texts.map(" ".join)),
    max_size=6,
    unique_by=lambda line: line[:1],
)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the engine reports for every recording."""
    return tmp_path_factory.mktemp("events") / "events.json"


@pytest.fixture(scope="module")
def there(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("words")
    with Server(home, scripted_events=events, wyoming_port=0, grpc_port=0) as running:
        yield running


def segment_of(line: Line) -> Segment:
    start, length, speaker, text = line
    return Segment(start / 10, (start + length) / 10, text, speaker)


def reported(ready: list[Segment], whole: list[Segment]) -> list[dict[str, Any]]:
    """The events of a transcription."""
    found = transcript.Transcript(tuple(whole), "en", 10.0, "scripted", "fp32", diarized=True)
    told = (SegmentReady(at, segment) for at, segment in enumerate(ready))
    return [to_wire(event) for event in (*told, Finished(found))]


def by_ndjson(
    server: Server, content: bytes = WAV
) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Segments as they came, and those of the whole transcript; the end says which it revises."""
    answer = server.client.post(
        "/transcribe",
        files={"audio": ("a.wav", content)},
        headers={"Accept": "application/x-ndjson"},
    )
    *told, last = [json.loads(line) for line in answer.text.splitlines() if line]
    segments = [one["segment"] for one in told], last["result"]["segments"]
    assert [one["index"] for one in told] == [*range(len(told))]
    revised = [at for at, one in enumerate(segments[0]) if one not in segments[1]]
    assert last["revised"] == revised
    came, whole = ([(one["start_time"], one["text"]) for one in some] for some in segments)
    return came, whole


def by_vvv(server: Server, content: bytes = WAV) -> list[tuple[float, str]]:
    files = {"audio": ("a.wav", content)}
    answer = server.client.post("/v1/transcribe", files=files)
    events = [*sse_reader.parse(answer)]
    told = [event.data["text"] for event in events if event.name == "message"]
    found = json.loads("".join(told))
    if "revised" in events[-1].data:
        whole = json.loads(events[-1].data["revised"])
        words = [
            Counter(" ".join(one["Content"] for one in some).split()) for some in (whole, found)
        ]
        assert words[0] == words[1]
        assert whole != found
    return [(one["Start"], one["Content"]) for one in found]


def by_openai(server: Server, content: bytes = WAV, **fields: str) -> tuple[str, str]:
    """The text of the stream's deltas, and the whole."""
    answer = server.client.post(
        "/v1/audio/transcriptions",
        files={"file": ("a.wav", content)},
        data={"model": "whisper-1", "stream": "true", **fields},
    )
    frames = answer.text.replace("data: [DONE]", "").encode()
    told = [event.data for event in sse_reader.parse(frames)]
    deltas = "".join(one["delta"] for one in told if one["type"] == "transcript.text.delta")
    return deltas, told[-1]["text"]


async def by_wyoming(server: Server) -> tuple[str, str]:
    """The text of the chunks, and the whole."""
    port = int(server.health()["wyoming_port"])
    form = {"rate": 16_000, "width": 2, "channels": 1}
    chunks, whole = "", ""
    async with AsyncTcpClient("127.0.0.1", port, read_timeout=PATIENCE_S) as client:
        for sent in (
            Transcribe(),
            AudioStart(**form),
            *(AudioChunk(audio=part, **form) for part in (RECORDING[:ODD], RECORDING[ODD:])),
            AudioStop(),
        ):
            await client.write_event(sent.event())
        while (event := await client.read_event()) is not None:
            if TranscriptChunk.is_type(event.type):
                chunks += TranscriptChunk.from_event(event).text
            if Transcript.is_type(event.type):
                return chunks, Transcript.from_event(event).text
    return chunks, whole


def by_job(server: Server, content: bytes = WAV) -> list[tuple[float, str]]:
    job_id = server.submit(content)
    server.wait_state(job_id, "done")
    return [(one["start_time"], one["text"]) for one in server.transcript(job_id)["segments"]]


A, B, C = (0, 60, 0, "Ever tried"), (20, 10, 1, "no"), (70, 10, 0, "Ever tried")


@settings(max_examples=12)
@example(said=[A, B, C], late={1}, relabelled=set())
@example(said=[A, B, C], late={0}, relabelled={1})
@example(said=[(0, 60, 0, "no no"), (20, 10, 1, "no")], late={1}, relabelled=set())
@given(
    said=lines,
    late=st.sets(st.integers(0, 5), max_size=3),
    relabelled=st.sets(st.integers(0, 5), max_size=3),
)
def test_recording_has_the_same_words_by_every_file_protocol(
    there: Server, events: Path, said: list[Line], late: set[int], relabelled: set[int]
) -> None:
    """Speech that is only known at the end, such as a second speaker's, comes at the end; speakers
    that are revised repeat nothing."""
    whole = [segment_of(line) for line in sorted(said)]
    ready = [
        segment_of((*line[:2], line[2] + (at in relabelled), line[3]))
        for at, line in enumerate(sorted(said))
        if at not in late
    ]
    events.write_text(json.dumps(reported(ready, whole)), "utf-8")
    expected = [(segment.start, segment.text) for segment in whole]
    words = Counter(" ".join(segment.text for segment in whole).split())

    came, result = by_ndjson(there)
    assert result == expected
    assert sorted(came) == expected
    assert by_job(there) == expected
    assert sorted(by_vvv(there)) == expected
    for deltas, text in (by_openai(there), asyncio.run(by_wyoming(there))):
        assert Counter(text.split()) == words
        assert Counter(deltas.split()) == words
        if len(ready) == len(whole):
            assert deltas == text


def test_film_has_the_same_words_at_the_same_times_by_every_file_protocol(
    server: Server, studio: Studio
) -> None:
    """Two tracks, of which the first begins 3 s late and has a hole of 5 s."""
    film = studio.make(
        "late-with-hole.mkv",
        *("-itsoffset", 3, "-i", studio.voice, "-f", "lavfi", "-i", "color=s=64x48:r=25:d=20"),
        *("-map", "1:v", "-map", "0:a", "-map", "0:a", "-c:v", "mpeg4", "-c:a", "libopus"),
        *("-af", "asetpts=PTS+gte(T\\,4.5)*5/TB"),
    ).read_bytes()
    came, whole = by_ndjson(server, film)
    assert whole
    assert whole == came == by_job(server, film) == by_vvv(server, film)
    deltas, text = by_openai(server, film)
    assert deltas == text
    assert text.split() == " ".join(said for _, said in whole).split()
    about = server.post(film).json()["metadata"]
    assert about["duration"] == pytest.approx(SECONDS + 8, abs=0.2)
    assert [one["code"] for one in about["warnings"]] == ["audio_tracks"]


@pytest.mark.slow
def test_overlapping_speech_has_the_same_words_in_order_by_every_file_protocol(
    start_server: StartServer,
) -> None:
    """Two people, and another talk of theirs at the same time, by the embedded engine: it learns of
    some speakers late."""
    talk = wheel_recordings.clip("endgame_nagg_nell")
    late = np.concatenate([np.zeros(4 * wheel_recordings.RATE), 0.7 * talk])[: len(talk)]
    sound = np.concatenate([talk + late, talk]).clip(-1, 1)
    content = wav((sound * 32767).astype("<i2").tobytes())
    there = start_server(engine="moonshine")
    came, whole = by_ndjson(there, content)
    words = " ".join(said for _, said in whole).split()
    assert len(words) > 50
    for told in (came, by_job(there, content), by_vvv(there, content)):
        assert " ".join(said for _, said in told).split() == words
    for text in by_openai(there, content, diarize="true"):
        assert text.split() == words


def test_transcript_of_more_than_64_kib_reaches_wyomings_client(
    there: Server, events: Path
) -> None:
    """Its package reads a line of at most that: longer data is behind the line."""
    whole = [Segment(0.0, 10.0, "когда " * 20_000, 0)]
    events.write_text(json.dumps(reported([], whole)), "utf-8")
    _, text = asyncio.run(by_wyoming(there))
    assert len(text.split()) == 20_000


def levels(text: str) -> list[int]:
    """The loudness in tenths of each utterance: of at least two of the scripted engine's words in a
    row. Those at the ends of an utterance are partly silence."""
    runs = groupby(round(int(word[1:]) / 100) for word in text.split())
    return [level for level, words in runs if len([*words]) > 1]


ODD = 4801
"""Bytes of a message that ends within a sample."""


async def by_realtime(server: Server, said: list[int]) -> str:
    sound = b"".join(sound_at_24_khz(level / 10, 1.0) for one in said for level in (one, 0))
    async with realtime(server) as client:
        await client.send(*(appended(sound[at : at + ODD]) for at in range(0, len(sound), ODD)))
        found = await client.until(COMPLETED, len(said))
    return " ".join(one["transcript"] for one in found if one["type"] == COMPLETED)


async def by_yap(server: Server, pcm: bytes) -> str:
    async with Streaming(server) as client:
        await client.ready()
        await client.begin()
        for at in range(0, len(pcm), ODD):
            sound = base64_of(pcm[at : at + ODD])
            await client.send("input_audio_buffer.append", payload={"audio": sound})
        await client.end()
        return await client.transcript()


async def by_live(server: Server, pcm: bytes) -> str:
    told = await live_wire.heard(server, pcm)
    return " ".join(one["segment"]["text"] for one in told if one["type"] == "final")


def by_grpc(server: Server, pcm: bytes, rate: int = 0, **options: Any) -> str:
    with Client(int(server.health()["grpc_port"])) as client:
        client.create("same", **options)
        parts = (pcm[at : at + ODD] for at in range(0, len(pcm), ODD))
        chunks = [GrpcChunk(pcm16=part, sample_rate=rate, session_id="same") for part in parts]
        told = client.stream([*chunks, GrpcChunk(is_final=True, session_id="same")], "same")
        return " ".join(one.text for one in told.finals)


@settings(max_examples=2)
@given(st.lists(st.integers(1, 4), min_size=1, unique=True))
def test_speech_has_the_same_words_by_every_live_protocol(there: Server, said: list[int]) -> None:
    """However messages cut it: within samples, too."""
    pcm = sound(*((level / 10 * 1.57, 1.0) for one in said for level in (one, 0)))
    assert levels(asyncio.run(by_live(there, pcm))) == said
    assert levels(by_grpc(there, pcm)) == said
    assert levels(asyncio.run(by_yap(there, pcm))) == said
    assert levels(asyncio.run(by_realtime(there, said))) == said
