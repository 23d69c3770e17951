"""What the wire says of jobs: little of many, much of one, and nobody waits for either."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.api import transcribe_routes
from sidecar.audio.audio_decoder import AudioInfo
from sidecar.audio.audio_source import open_recording_file, recording_ref
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.server.app import create_app, create_service
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Finished, Segment, Transcript, Word

HOUR_S = 3600.0
RESULTS = 20


def hour_of_speech() -> Transcript:
    """Nine thousand words in 700 segments, as an hour of talk has."""
    segments = []
    for at in range(700):
        start = at * 5.1
        words = tuple(Word(start + n * 0.3, start + n * 0.3 + 0.2, f"word{n}") for n in range(13))
        text = " ".join(word.text for word in words)
        segments.append(Segment(start, start + 5.0, text, speaker=at % 3, words=words))
    return Transcript(tuple(segments), "en", HOUR_S, "scripted", "fp32", diarized=True)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service that remembers the results of twenty hours."""
    return create_service(Settings(engine="scripted", job_retention_mb=512))


@pytest.fixture
async def jobs(service: Service, tmp_path: Path) -> list[Job]:
    recording = tmp_path / "hour.wav"
    recording.write_bytes(b"")
    transcript, done = hour_of_speech(), []
    for _ in range(RESULTS):
        facts = AudioInfo("wav", "sndfile", HOUR_S)
        source = open_recording_file(str(recording))
        job = Job(
            source, JobRecord.submitted(0.0, recording_ref(source), facts, TranscribeOptions())
        )
        job.enter(service._backend.log)
        job.begin()
        job.apply_report(Finished(transcript))
        done.append(job)
    return done


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(service.settings, service)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which transcripts were written out."""
    threads: list[int] = []
    original = transcribe_routes.transcript_body

    def transcript_body(transcript: Transcript) -> dict[str, Any]:
        threads.append(threading.get_ident())
        return original(transcript)

    monkeypatch.setattr(transcribe_routes, "transcript_body", transcript_body)
    return threads


async def test_the_list_of_twenty_hours_has_no_words_and_writes_none_out(
    client: httpx.AsyncClient, jobs: list[Job], rendered: list[int]
) -> None:
    response = await client.get("/jobs")
    listed = response.json()["jobs"]
    assert [one["id"] for one in listed] == [job.id for job in jobs]
    assert {one["duration"] for one in listed} == {HOUR_S}
    assert len(response.content) < RESULTS * 500
    assert "word" not in response.text
    assert rendered == []


async def test_when_a_job_was_sent_is_told_by_the_clock_that_the_service_was_given(
    tmp_path: Path, voice: bytes
) -> None:
    settings = Settings(engine="scripted")
    service = Service(settings, choose_engine(settings), now=lambda: 1_700_000_000.0)
    app = create_app(settings, service)
    await service.open()
    try:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            sent = await client.post(
                "/transcribe", files={"audio": voice}, headers={"Prefer": "respond-async"}
            )
    finally:
        await service.close()
    assert sent.json()["created"] == "2023-11-14T22:13:20Z"


async def test_an_hour_s_result_is_written_out_once_and_beside_the_loop(
    client: httpx.AsyncClient, service: Service, jobs: list[Job], rendered: list[int]
) -> None:
    answers = [await client.get(f"/jobs/{jobs[0].id}") for _ in range(3)]
    assert len({answer.content for answer in answers}) == 1
    result = answers[0].json()["result"]
    assert len(result["segments"]) == 700
    assert len(rendered) == 1
    assert threading.get_ident() not in rendered
    assert [service._backend.results.fetched(job.id) for job in jobs[:2]] == [True, False]


@pytest.mark.slow
async def test_who_asks_for_all_twenty_at_once_keeps_health_waiting_for_none_of_them(
    client: httpx.AsyncClient, jobs: list[Job], rendered: list[int]
) -> None:
    asked = [asyncio.ensure_future(client.get(f"/jobs/{job.id}")) for job in jobs]
    await asyncio.sleep(0)
    healthy = 0
    while not all(one.done() for one in asked):
        assert (await client.get("/health")).status_code == 200
        healthy += 1
        await asyncio.sleep(0)  # nothing of all this has to wait for anything
    assert healthy >= RESULTS / 2, "between any two of them, and more often"
    assert len(rendered) == RESULTS
    assert threading.get_ident() not in rendered
