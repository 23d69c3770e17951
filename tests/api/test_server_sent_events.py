"""Server-sent events, and readers that are slow, gone, or not there at all."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from asgi_server import served
from service_process import PATIENCE_S, StartServer, until
from sse_reader import parse

from bench.queue_clients import FORM, Connection, Recording
from sidecar.api.http import responses
from sidecar.api.http.uvicorn_protocols import http_protocol
from sidecar.api.job_routes import JobEventFrames
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import ClientFileRef
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import (
    CancelledChange,
    CountsAs,
    JobChange,
    JobRecord,
    ReportedChange,
    RequeuedChange,
    StartedChange,
)
from sidecar.transcripts.transcript import Progress, ResumePoint, Segment, SegmentReady

BUFFER = 4
FACTS = AudioInfo("wav", "sndfile", 3.0)
NAMED = ClientFileRef("/recordings/voice.wav", 42, 1)


class Reader:
    """An ASGI server's end: takes frames while it ``reads``, and may go."""

    def __init__(self) -> None:
        self.offered = asyncio.Event()
        """The head of the answer waits to be taken."""
        self.reads = asyncio.Event()
        self.gone = asyncio.Event()
        self.body = b""

    async def send(self, message: Any) -> None:
        self.offered.set()
        await self.reads.wait()
        self.body += message.get("body", b"")

    async def receive(self) -> dict[str, str]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


def test_frame_is_one_line_of_json_after_its_id_and_name() -> None:
    assert responses.sse_frame({"text": "a\nb\u2028"}, "data", 7) == (
        b'id: 7\nevent: data\ndata: {"text":"a\\nb\\u2028"}\n\n'
    )
    assert responses.sse_frame({}) == b"data: {}\n\n"


def submitted() -> JobRecord:
    return JobRecord.submitted(0.0, NAMED, FACTS, TranscribeOptions())


async def test_slow_reader_is_cut_off_and_resumes_without_a_gap() -> None:
    store, job, reader = JobEventLog(), submitted(), Reader()
    store.buffer = BUFFER
    store.add(job)
    subscription = store.subscribe(job.id)
    answer = responses.EventStreamResponse(
        JobEventFrames(lambda *_: None).following(job.id, subscription), subscription.close
    )
    answering = asyncio.ensure_future(answer({}, reader.receive, reader.send))
    await asyncio.sleep(0)
    store.append(job.id, StartedChange())
    for index in range(3 * BUFFER):
        segment = Segment(index, index + 1.0, "word")
        store.append(job.id, ReportedChange(SegmentReady(index, segment)))
        await asyncio.sleep(0)  # the engine goes on
    assert not store.has_followers(job.id)
    reader.reads.set()
    await answering
    told = list(parse(reader.body))
    assert told[-1].name == "behind"
    after = told[-1].data["resume_after"]
    store.append(job.id, CancelledChange())
    rest = [event.seq for event in store.events(job.id, after)]
    assert [event.id for event in told[:-1]] + rest == list(range(1, 3 * BUFFER + 3))


async def endless(ended: list[bool]) -> AsyncGenerator[bytes, None]:
    try:
        while True:
            yield responses.SSE_KEEP_ALIVE
            await asyncio.sleep(0)
    finally:
        ended.append(True)


@pytest.mark.parametrize("reads", [True, False])
async def test_disconnect_ends_the_stream_also_before_its_first_frame(reads: bool) -> None:
    closed: list[bool] = []
    ended: list[bool] = []
    reader = Reader()
    if reads:
        reader.reads.set()
    answer = responses.EventStreamResponse(endless(ended), lambda: closed.append(True))
    answering = asyncio.ensure_future(answer({}, reader.receive, reader.send))
    await (until(lambda: reader.body) if reads else reader.offered.wait())
    reader.gone.set()
    await answering
    assert closed == [True]
    assert ended == ([True] if reads else [])


async def test_head_request_of_an_endless_stream_ends_without_a_body() -> None:
    closed: list[bool] = []
    reader = Reader()
    reader.reads.set()
    answer = responses.EventStreamResponse(endless([]), lambda: closed.append(True))
    answering = asyncio.ensure_future(answer({"head": True}, reader.receive, reader.send))
    for _ in range(20):
        await asyncio.sleep(0)
    assert answering.done()
    assert (closed, reader.body) == ([True], b"")


async def test_subscription_gives_an_empty_batch_at_a_pause_and_loses_no_event() -> None:
    store, job, found = JobEventLog(), submitted(), []
    store.add(job)
    async for events in store.subscribe(job.id).batches(0.01):
        found.append([event.seq for event in events])
        if not events:
            store.append(job.id, StartedChange())
            store.append(job.id, StartedChange() if len(found) < 3 else CancelledChange())
    assert found == [[], [1, 2], [], [3, 4]]


async def progress_reports(
    after: int, before: Sequence[JobChange], later: Sequence[JobChange]
) -> list[tuple[float, float]]:
    """Of each progress of a job that is followed from behind event ``after``: how far it is, and
    from where it went on. ``before``: what was when somebody began to follow it."""
    told: list[tuple[float, float]] = []

    def remaining(progress: Progress, elapsed_s: float, resumed_s: float) -> float:
        told.append((progress.audio_s_done, resumed_s))
        return 1.0

    store, job, frames = JobEventLog(), submitted(), JobEventFrames(remaining_s=remaining)
    store.add(job)
    for change in before:
        store.append(job.id, change)
    seen = store.get(job.id) if after else None
    stream = frames.following(job.id, store.subscribe(job.id, after), seen)
    for change in (*later, CancelledChange()):
        store.append(job.id, change)
    async for _ in stream:
        pass
    return told


@pytest.mark.parametrize("after", [0, 5])
async def test_remaining_time_of_a_resumed_job_counts_from_its_resume_point(after: int) -> None:
    before = (
        StartedChange(),
        ReportedChange(Progress(70.0, 100.0), 9.0),
        ReportedChange(ResumePoint(60.0, "test"), 9.0),
        RequeuedChange(CountsAs.DEATH),
        StartedChange(),
    )
    later = (
        ReportedChange(Progress(80.0, 100.0), 2.0),
        StartedChange(anew=True),
        ReportedChange(Progress(20.0, 100.0), 2.0),
    )
    told = await progress_reports(after, before, later)
    assert told == [(70.0, 0.0)] * (not after) + [(80.0, 60.0), (20.0, 0.0)]


@pytest.mark.parametrize("after", [0, 2, 3, 5, 6])
async def test_remaining_time_after_a_reconnect_ignores_resume_points_of_the_same_attempt(
    after: int,
) -> None:
    before = (
        StartedChange(),
        ReportedChange(ResumePoint(1800.0, "test"), 100.0),
        RequeuedChange(CountsAs.DEATH),
        StartedChange(),
        ReportedChange(ResumePoint(3000.0, "test"), 100.0),
        ReportedChange(Progress(3100.0, 3600.0), 110.0),
    )
    later = (
        ReportedChange(Progress(3200.0, 3600.0), 120.0),
        RequeuedChange(CountsAs.DEATH),
        StartedChange(),
        ReportedChange(Progress(3300.0, 3600.0), 5.0),
    )
    told = await progress_reports(after, before, later)
    assert told[-2:] == [(3200.0, 1800.0), (3300.0, 3000.0)]
    assert told[:-2] == [(3100.0, 1800.0)] * (after < 6)


async def test_event_is_serialized_once_for_all_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    store, job, frames, written = JobEventLog(), submitted(), JobEventFrames(lambda *_: None), []
    store.add(job)
    monkeypatch.setattr(responses, "to_json", lambda data: written.append(data) or b"{}")
    followers = [frames.following(job.id, store.subscribe(job.id)) for _ in range(20)]
    store.append(job.id, StartedChange())
    store.append(job.id, CancelledChange())
    bodies = {b"".join([piece async for piece in each]) for each in followers}
    assert len(bodies) == 1
    assert len(written) == 2, "not once for each"


async def test_connection_that_reads_nothing_of_its_stream_is_closed() -> None:
    """With a real server and a real socket; the reader that reads has all."""
    ended: list[bool] = []
    over, given_up = asyncio.Event(), asyncio.Event()

    def closed() -> None:
        ended.append(True)
        over.set()
        if len(ended) == 2:
            given_up.set()

    async def much() -> AsyncGenerator[bytes, None]:
        for _ in range(800):
            yield b":" + b"x" * (16 << 10) + b"\n\n"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await responses.EventStreamResponse(much(), closed)(scope, receive, send)

    def limit(end: socket.socket, buffer: int) -> None:
        """It grows to megabytes otherwise."""
        end.setsockopt(socket.SOL_SOCKET, buffer, 64 << 10)

    with socket.socket() as idle:
        async with served(app, http=http_protocol(15, PATIENCE_S)) as listener:
            limit(listener, socket.SO_SNDBUF)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            whole = bytearray()
            while piece := await reader.read(1 << 20):
                whole += piece
                await asyncio.sleep(0)
            assert whole.endswith(b"0\r\n\r\n")
            await over.wait()  # the end is sent a few turns before
            assert len(ended) == 1
            writer.close()
        async with served(app, http=http_protocol(15, 0.5)) as listener:
            limit(listener, socket.SO_SNDBUF)
            limit(idle, socket.SO_RCVBUF)
            idle.connect(listener.getsockname())
            idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await given_up.wait()
            got = 0
            with suppress(ConnectionResetError):
                while piece := idle.recv(1 << 20):
                    got += len(piece)
            assert got < len(whole) / 2


@pytest.mark.slow
async def test_hundreds_of_followers_get_every_event_and_vanished_ones_leave_no_descriptor(
    start_server: StartServer,
) -> None:
    server, count, together = start_server(scripted_speed=1), 400, asyncio.Barrier(401)

    async def follower(path: str, vanishes: bool) -> list[Any]:
        heard: list[Any] = []
        async with Connection(server.port) as one:
            await one.ask("GET", path)
            await together.wait()
            async for event in one.events():
                if event.name == "segment":
                    heard.append(event.data["index"])
                elif event.name == "cancelled":
                    heard.append(event.name)
                if vanishes and len(heard) == 3:
                    break
        return heard

    async with Connection(server.port) as client:
        job = await client.json("POST", "/v1/jobs", Recording(1, 300).form(), FORM)
        path = f"/v1/jobs/{job['id']}"
        while (await client.json("GET", path))["state"] != "running":
            pass  # its engine's process has descriptors, too
        opened, held = server.process.num_fds(), server.process.memory_info().rss
        tasks = [asyncio.create_task(follower(f"{path}/events", n % 2 > 0)) for n in range(count)]
        await together.wait()
        assert server.process.memory_info().rss - held < 100_000 * count
        assert all(heard == [0, 1, 2] for heard in await asyncio.gather(*tasks[1::2]))
        await client.ask("DELETE", path)
        for heard in await asyncio.gather(*tasks[::2]):
            assert heard == [*range(len(heard) - 1), "cancelled"]
    await until(lambda: server.process.num_fds() < opened)
