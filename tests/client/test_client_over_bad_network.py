"""The client and a real service, with a network between them that cuts what it carries."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
from http_file_server import FileHost
from network_faults import network
from service_process import PATIENCE_S, Server, until
from vibevoice_asr_client import (
    FORMATS,
    NEVER,
    AsyncClient,
    Client,
    NotFound,
    Progress,
    Retry,
    ServiceUnreachable,
    codes,
    transport,
)

SOON = Retry(first_s=0.01, longest_s=0.05)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def ids(server: Server) -> set[str]:
    """Whose jobs are there; those of other tests go when their time is over."""
    return {job["id"] for job in server.jobs()}


@pytest.mark.anywhere
async def test_both_clients_return_the_same_transcript_with_progress_and_leave_no_job(
    client, server, studio
) -> None:
    before = ids(server)
    told: list[Progress] = []
    found = client.transcribe(studio.voice, on_progress=told.append, language="de")
    assert found.segments
    assert found.segments[0].speaker == "Speaker_0"
    assert (found.engine, found.language) == ("scripted", "de")
    size = studio.voice.stat().st_size
    assert Progress("uploading", size, size) in told
    assert {progress.stage for progress in told} <= {"uploading", "queued", "running"}
    assert told[-1].stage == "running"
    async with AsyncClient(client.url) as other:
        assert await other.transcribe(studio.voice, language="de") == found
    assert ids(server) <= before


@pytest.mark.anywhere
def test_lost_answer_makes_no_second_job(client, server, studio) -> None:
    before = ids(server)
    with network(server.port, 0, 0) as between, Client(between.url, retry=SOON) as far:
        job = far.submit(studio.voice)
        assert between.connections == 3
        assert far.wait(job.id).state == "done"
    assert ids(server) - before == {job.id}
    assert client.submit(studio.voice).id != job.id, "each submission has a key of its own"


@pytest.mark.anywhere
def test_idempotency_key_returns_the_earlier_job_until_its_deletion_and_refuses_other_audio(
    client, studio
) -> None:
    job = client.submit(studio.voice, key="talk-1")
    assert client.submit(studio.voice, key="talk-1").id == job.id
    with pytest.raises(codes.IdempotencyKeyReused):
        client.submit(b"another recording", key="talk-1")
    client.cancel(job.id)
    assert client.submit(studio.voice, key="talk-1").id != job.id, "what is forgotten is free"


@pytest.mark.anywhere
async def test_events_over_cut_connections_are_complete(client, server, studio) -> None:
    job = client.wait(client.submit(studio.voice).id)
    whole = list(client.events(job.id))
    numbers = [event.id for event in whole]
    assert numbers == sorted({number for number in numbers if number is not None})
    assert [event.ends for event in whole] == [False] * (len(whole) - 1) + [True]
    size = sum(len(json.dumps(dict(event.data))) for event in whole)
    with network(server.port, 400, size // 2 + 300) as between:
        with Client(between.url, retry=SOON) as far:
            assert list(far.events(job.id)) == whole
        assert between.connections == 3
        resumed = [line for line in between.sent.lower().split(b"\r\n") if b"last-event-id" in line]
        assert resumed
    with network(server.port, 500) as between:
        async with AsyncClient(between.url, retry=SOON) as far_away:
            assert [event async for event in far_away.events(job.id)] == whole
    last = whole[-1].id
    assert list(client.events(job.id, after=last)) == []
    assert list(client.events(job.id, after=whole[-2].id)) == whole[-1:]


def test_service_errors_are_exceptions_by_code(client, tmp_path, studio) -> None:
    with pytest.raises(codes.AudioEmpty) as empty:
        client.submit(b"")
    assert (empty.value.status, bool(empty.value.hint)) == (400, True)
    with pytest.raises(codes.AudioFormatUnsupported):
        client.transcribe(b"this is no recording" * 100)
    with pytest.raises(NotFound):
        client.job("../health")
    with pytest.raises(codes.JobNotFound):
        list(client.events("0" * 32))
    with pytest.raises(codes.FieldInvalid):
        client.submit(studio.voice, num_speakers=21)
    with pytest.raises(FileNotFoundError):
        client.submit(tmp_path / "gone.wav")
    for url in ("http://127.0.0.1:1", "ftp://a", "http://[::"):
        with pytest.raises(ServiceUnreachable), Client(url, retry=NEVER) as nowhere:
            nowhere.health()


@pytest.mark.anywhere
def test_client_gets_every_format_all_pages_of_jobs_estimate_and_health(client, studio) -> None:
    jobs = [client.wait(client.submit(studio.voice, priority="batch").id) for _ in range(3)]
    for fmt in FORMATS:
        assert client.transcript(jobs[0].id, fmt).strip(), fmt
    found, page = [], client.jobs(state="done", limit=2)
    while page.next is not None:
        found += page.jobs
        page = client.jobs(state="done", limit=2, after=page.next)
    ids = [job.id for job in (*found, *page.jobs)]
    assert set(ids) >= {job.id for job in jobs}
    assert len(ids) == len(set(ids))
    assert client.estimate(studio.voice)["fits"] is True
    assert client.health()["engine"] == "scripted"


@dataclass
class Hanging(FileHost):
    """A service that takes a recording in and answers nothing from then on."""

    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.command)
        self.read_body(request)
        if request.command != "POST":
            self.go_on.wait(PATIENCE_S)
        self.reply(request, 202, b'{"id": "j", "state": "queued"}', {"Connection": "close"})


@pytest.mark.parametrize("silence_s", [0.2, 600.0])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_interrupted_client_of_a_hanging_service_cancels_once_with_a_bounded_wait(
    kind: type, silence_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncClient, "wait", interrupted)
    limits = limits_of_answers(monkeypatch)
    how = {"retry": Retry(attempts=3, first_s=0.01), "silence_s": silence_s}
    with Hanging() as service:
        with pytest.raises(KeyboardInterrupt):
            await transcribed(kind(service.url, **how))
        await until(lambda: len(service.asked) > 1)  # its thread may be behind
    assert service.asked == ["POST", "DELETE"]
    assert limits == [silence_s, min(silence_s, transport.FAREWELL_S)]


def limits_of_answers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The read timeout of each request, as they are sent. On a machine that is busy as well all is
    sent, and the POST is answered: only the answer of the DELETE comes too late, and is not waited
    for that long."""
    limits: list[float] = []

    def relax(request: httpx.Request) -> None:
        read_s = request.extensions["timeout"]["read"]
        limits.append(read_s)
        request.extensions["timeout"] = {"read": 0.2} if request.method == "DELETE" else {}

    plain, async_ = httpx.HTTPTransport, httpx.AsyncHTTPTransport
    handle, handle_async = plain.handle_request, async_.handle_async_request
    monkeypatch.setattr(plain, "handle_request", lambda *on: (relax(on[1]), handle(*on))[1])
    monkeypatch.setattr(
        async_, "handle_async_request", lambda *on: (relax(on[1]), handle_async(*on))[1]
    )
    return limits


def interrupted(*_: object) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


async def transcribed(client: Client | AsyncClient) -> None:
    if isinstance(client, Client):
        client.transcribe(b"a recording")
    else:
        await client.transcribe(b"a recording")
