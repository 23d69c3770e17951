"""Clients of OpenAI's API that come again: to a full queue, and for jobs that they left behind."""

import asyncio
import select
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import Request
from instrumented_slot import OverheardSlot, queue_on
from job_event_histories import submitted
from late_answers import FirstAnswersTooLate, hang_up_at_work
from module_services import service_of_module
from recordings import long, wav
from service_process import PATIENCE_S, Server, StartServer, new_file, settle, wait_until
from virtual_time import virtual_time

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.auth.identity import AuthMethod, Identity, OwnerLimits
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_record import IdempotencyKey, JobState
from sidecar.jobs.job_runner import Job
from sidecar.jobs.reservations import Reservation
from sidecar.plugins import load_settings
from sidecar.plugins.openai import retries
from sidecar.server.app import create_service
from sidecar.service.facade import Service

ADA, BOB = (Identity(name, AuthMethod.JWT) for name in ("ada", "bob"))
SECOND = b"\1\0" * 16_000
RETRY = {"x-stainless-retry-count": "1"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """One that takes jobs in and does not work on them: it is not opened."""
    service = create_service(
        load_settings(
            engine="scripted",
            live_engine="scripted",
            data_dir=tmp_path,
            spool_dir=tmp_path,
            queue_limit=2,
        )
    )
    yield service
    await service.close()


@pytest.fixture
def turns(service: Service) -> retries.OpenAIQueueTurns:
    """Those who come again wait as long as a test does."""
    return retries.OpenAIQueueTurns(
        service.submissions,
        service.queue,
        held_s=2 * PATIENCE_S,
        held_poll_s=0.001,
    )


def retry() -> Request:
    """A request that was sent once before."""
    headers = [(name.encode(), value.encode()) for name, value in RETRY.items()]
    return Request({"type": "http", "headers": headers})


async def all_places(service: Service) -> list[Reservation]:
    """Take all places that the queue has; they are free again once nobody holds them."""
    found: list[Reservation] = []
    while not service.submissions.full:
        found.append(await service.submissions.reserve_position(Identity("eve", AuthMethod.JWT)))
    return found


async def refused(service: Service, caller: Identity) -> int:
    """Seconds after which a caller is told to come again."""
    with pytest.raises(errors.QueueFull) as caught:
        await service.submissions.reserve_position(caller)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


@virtual_time  # none passes, or the first would be back
async def test_many_refusals_of_one_client_hardly_raise_the_retry_after_of_another(
    service: Service,
) -> None:
    _places = await all_places(service)
    first = await refused(service, ADA)
    own = [await refused(service, ADA) for _ in range(40)]
    assert own == sorted(own)
    assert own[-1] >= own[5] + 4 > first, "its own come one after the other"
    assert await refused(service, BOB) <= own[5]


async def test_many_retries_of_one_owner_leave_places_to_other_owners(
    service: Service, turns: retries.OpenAIQueueTurns
) -> None:
    places = await all_places(service)
    served: list[str] = []

    async def ask(caller: Identity) -> None:
        async with AsyncExitStack() as held:
            place = await turns.reserve(retry(), caller, None)
            assert place is not None
            served.append(caller.subject)
            held.enter_context(place)
            await settle()

    asking = [asyncio.create_task(ask(ADA)) for _ in range(50)]
    await settle()
    told = [one.exception() for one in asking if one.done()]
    assert len(told) == 46, "four of an owner wait; more are refused at once"
    assert {type(one) for one in told} == {errors.QueueFull}
    bob = asyncio.create_task(ask(BOB))
    await settle()
    places.pop().close()
    await bob
    assert served.index("bob") <= 2, "behind the one whose turn it was, and one of its line"
    await asyncio.wait([*asking])
    assert len(served) == 5


async def test_retry_with_a_known_idempotency_key_needs_no_place_in_a_full_queue(
    service: Service, turns: retries.OpenAIQueueTurns
) -> None:
    submissions, key = service.submissions, IdempotencyKey("talk-1", "digest")
    with await submissions.reserve_unless_known(ADA, key.name) as place:
        await submissions.submit_once(ADA, recording(), TranscribeOptions(), place, key)
    _places = await all_places(service)
    assert await turns.reserve(retry(), ADA, key.name) is None


async def test_retry_for_the_only_job_that_its_owner_may_have_needs_no_place(
    service: Service, turns: retries.OpenAIQueueTurns
) -> None:
    """The job that timed out is the one that counts."""
    eve = Identity("eve", AuthMethod.JWT, limits=OwnerLimits(jobs=1))
    job = await service.submissions.submit(eve, recording(), TranscribeOptions(), kept=False)
    with pytest.raises(errors.JobsLimited):
        await turns.reserve(retry(), eve, None)
    service.queue.leave(job, "digest")
    assert await turns.reserve(retry(), eve, None) is None
    with pytest.raises(errors.JobsLimited):
        await turns.reserve(retry(), eve, "another")
    assert await service.queue.take(eve.owner, "digest", recording()) is job


async def test_retry_that_waits_for_a_place_in_the_queue_is_refused_at_shutdown(
    service: Service, turns: retries.OpenAIQueueTurns
) -> None:
    _places = await all_places(service)
    asking = [asyncio.create_task(turns.reserve(retry(), who, None)) for who in (ADA, BOB)]
    await settle()
    assert not any(one.done() for one in asking)
    await service.drain(0)
    for one in asking:
        with pytest.raises(errors.ShuttingDown):
            await one


def recording() -> AudioSource:
    """A client's upload."""
    spool = UploadSpool(None)
    spool.add(wav(SECOND))
    return spool.finish()


@pytest.fixture
def cancelled() -> list[Job]:
    """Jobs that the queue cancelled."""
    return []


@pytest.fixture
async def queue(cancelled: list[Job], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JobQueue]:
    async with queue_on(OverheardSlot()) as queue:
        monkeypatch.setattr(queue, "cancel", cancelled.append)
        yield queue


@pytest.fixture
def left_job() -> Job:
    """A job of ada that runs."""
    return Job(recording(), replace(submitted(owner="ada"), state=JobState.RUNNING))


@virtual_time
async def test_timed_out_job_goes_to_no_other_owner_or_recording_and_is_cancelled_after_30_s(
    queue: JobQueue, left_job: Job, cancelled: list[Job]
) -> None:
    queue.leave(left_job, "digest")
    assert await queue.take("bob", "digest", recording()) is None
    assert await queue.take("ada", "another", recording()) is None
    assert await queue.has_left("ada")
    assert not await queue.has_left("bob")
    await asyncio.sleep(29)
    assert cancelled == []
    await asyncio.sleep(2)
    assert cancelled == [left_job]
    assert await queue.take("ada", "digest", recording()) is None
    assert not await queue.has_left("ada")


@virtual_time
async def test_timed_out_job_is_taken_once_and_has_30_s_again_if_that_client_times_out_too(
    queue: JobQueue, left_job: Job, cancelled: list[Job]
) -> None:
    queue.leave(left_job, "digest")
    await asyncio.sleep(20)
    again = recording()
    assert await queue.take("ada", "digest", again) is left_job
    with pytest.raises(ValueError, match="closed"):
        _ = again.fd
    assert await queue.take("ada", "digest", recording()) is None
    queue.leave(left_job, "digest")
    await asyncio.sleep(29)
    assert cancelled == []
    await asyncio.sleep(2)
    assert cancelled == [left_job]


async def test_job_cancelled_after_its_client_timed_out_is_not_the_answer_to_its_retry(
    queue: JobQueue,
) -> None:
    job = Job(recording(), replace(submitted(owner="ada"), state=JobState.CANCELLED))
    queue.leave(job, "digest")
    assert await queue.take("ada", "digest", recording()) is None


URL = "/v1/audio/transcriptions"


def jobs_submitted(server: Server) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    name = "vibevoice_jobs_submitted_total"
    return float(next(line for line in lines if line.startswith(name)).split()[-1])


def time_out(server: Server, audio: bytes) -> None:
    """Send a recording, and hang up when its job runs, after the time that the client has said."""
    headers = {"x-stainless-timeout": "0.001", "x-stainless-retry-count": "0"}
    files = {"file": ("a.wav", audio)}
    request = server.client.build_request("POST", URL, files=files, headers=headers)
    hang_up_at_work(server, request, lambda: busy_at(server))


def busy_at(server: Server) -> bool:
    """Whether a job runs."""
    return bool(server.health()["engine_state"] == "busy")


PATIENT = {"openai_retry_grace": PATIENCE_S}
"""Limits by which a job waits for its client however busy the machine is."""


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """Jobs do not end as long as it is there."""
    return new_file(tmp_path / "hold", b"")


def retaken(server: Server, count: int = 1) -> None:
    """Wait until so many requests have the jobs of earlier ones."""
    wait_until(lambda: server.log().count("answer to a retry") == count, "they have them again")


def words_of(client: openai.OpenAI) -> int:
    """The number of words that a client gets for its recording."""
    clip = ("a.wav", wav(SECOND * 12))
    return len(client.audio.transcriptions.create(model="whisper-1", file=clip).text.split())


def impatient(server: Server, network: FirstAnswersTooLate, **more: Any) -> openai.OpenAI:
    """OpenAI's client, whose first requests time out."""
    http_client = httpx.Client(transport=network)
    return sdk(server, timeout=0.001, http_client=http_client, **more)


def words_after_retaking(
    thread: ThreadPoolExecutor, client: openai.OpenAI, server: Server, hold: Path
) -> int:
    """The words that a client gets once its request has taken over the job that it left."""
    answering = thread.submit(words_of, client)
    try:
        retaken(server)
    finally:
        hold.unlink()
    return answering.result()


def test_retry_of_the_sdk_carries_no_idempotency_key_and_gets_the_result_of_its_timed_out_job(
    start_server: StartServer, hold: Path
) -> None:
    limits = {"openai_held": 0, **PATIENT}
    server = start_server(scripted_hold=hold, batch=1, limits=limits)
    network = FirstAnswersTooLate(server, lambda: busy_at(server))
    with impatient(server, network) as client, ThreadPoolExecutor(1) as thread:
        assert words_after_retaking(thread, client, server, hold) == 12
    assert [one["x-stainless-retry-count"] for one in network.sent] == ["0", "1"]
    assert not any("idempotency-key" in one for one in network.sent)
    assert jobs_submitted(server) == 1


def test_two_equal_requests_of_the_sdk_that_time_out_are_two_jobs_and_each_gets_a_result(
    start_server: StartServer, hold: Path
) -> None:
    server = start_server(scripted_hold=hold, batch=1, limits=PATIENT)
    network = FirstAnswersTooLate(server, lambda: jobs_submitted(server) == 2, late=2)
    with impatient(server, network) as client, ThreadPoolExecutor(2) as threads:
        answering = [threads.submit(words_of, client) for _ in range(2)]
        try:
            retaken(server, 2)
        finally:
            hold.unlink()
        assert [one.result() for one in answering] == [12, 12]
    assert jobs_submitted(server) == 2


def test_retry_by_litellm_which_says_that_it_is_none_gets_the_result_of_its_timed_out_job(
    start_server: StartServer, hold: Path
) -> None:
    """As its router and its proxy do it (1.83 and 1.110): each try is a first one of OpenAI's
    package."""
    server = start_server(scripted_hold=hold, batch=1, limits=PATIENT)
    network = FirstAnswersTooLate(server, lambda: busy_at(server))
    with impatient(server, network, max_retries=0) as client, ThreadPoolExecutor(1) as thread:
        with pytest.raises(openai.APITimeoutError):
            words_of(client)
        assert words_after_retaking(thread, client, server, hold) == 12
    assert [one["x-stainless-retry-count"] for one in network.sent] == ["0", "0"]
    assert jobs_submitted(server) == 1


@pytest.mark.parametrize("count", ["1", "0"], ids=["OpenAI", "LiteLLM"])
def test_retry_to_a_full_queue_gets_the_result_of_the_timed_out_job(
    start_server: StartServer, hold: Path, count: str
) -> None:
    limits = {"openai_held": 0, **PATIENT}
    server = start_server(scripted_hold=hold, batch=1, queue_limit=1, limits=limits)
    clip = wav(SECOND * 12)
    time_out(server, clip)
    other = server.submit(wav(SECOND))
    with ThreadPoolExecutor(1) as client:
        file, headers = {"file": ("a.wav", clip)}, {"x-stainless-retry-count": count}
        answering = client.submit(server.client.post, URL, files=file, headers=headers)
        try:
            retaken(server)
        finally:
            hold.unlink()
        answer = answering.result()
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["text"].split()) == 12
    assert jobs_submitted(server) == 2, "the job of before, and the other client's"
    server.wait_state(other, "done")


def test_other_recording_than_the_timed_out_one_is_refused_by_a_full_queue(
    start_server: StartServer,
) -> None:
    server = start_server(scripted_speed=1, batch=1, queue_limit=1, limits=PATIENT)
    time_out(server, long(3600))
    server.submit(wav(SECOND))
    other = server.client.post(URL, files={"file": ("a.wav", wav(SECOND))}, headers=RETRY)
    assert other.status_code == 429, other.text
    assert other.json()["error"]["code"] == "queue_full"


CLIENTS, QUEUE = 32, 6


def sdk(server: Server, **settings: Any) -> openai.OpenAI:
    """OpenAI's client with its defaults: it sends twice more what fails."""
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", **settings)


busy = service_of_module(scripted_speed=8, queue_limit=QUEUE, batch=1)
"""A service at eight times real time, in whose queue few find a place."""


def filled(server: Server, audio: bytes) -> list[str]:
    """Jobs that fill the queue behind one that runs."""
    first = server.submit(audio)
    server.wait_state(first, "running", "done")
    return [first, *(server.submit(audio) for _ in range(QUEUE))]


@pytest.mark.slow
def test_five_times_the_queue_of_clients_all_succeed_by_following_retry_after(busy: Server) -> None:
    """Five times what the queue takes, at once: half a second of work each. With five seconds for
    everybody, those who came too often were lost."""
    clip = ("clip.wav", wav(SECOND * 4))

    def ask(_: int) -> str:
        return sdk(busy).audio.transcriptions.create(file=clip, model="whisper-1").text

    with ThreadPoolExecutor(CLIENTS) as threads:
        said = list(threads.map(ask, range(CLIENTS)))
    assert all(len(text.split()) == 4 for text in said)


def test_each_refused_client_gets_a_later_retry_after_of_at_most_a_minute(busy: Server) -> None:
    ids = filled(busy, long(160))
    try:
        answers = [busy.client.post(URL, content=b"x") for _ in range(30)]
    finally:
        for one in ids:
            busy.cancel(one)
    assert {answer.status_code for answer in answers} == {429}
    told = [int(answer.headers["retry-after"]) for answer in answers]
    assert told == sorted(told)
    assert told[0] < told[-1] == 60


@contextmanager
def retried(server: Server) -> Iterator[HTTPConnection]:
    """A retry that has come to a full queue, and is not answered yet unless it is refused: one that
    is no retry, and came later, is refused."""
    sent = server.client.build_request(
        "POST", URL, files={"file": ("clip.wav", wav(SECOND))}, headers=RETRY
    )
    with closing(HTTPConnection("127.0.0.1", server.port, PATIENCE_S)) as client:
        client.request("POST", URL, sent.read(), dict(sent.headers))
        for _ in range(3):
            assert server.client.post(URL, content=b"x").status_code == 429
        yield client


def test_retry_to_a_full_queue_waits_for_a_place_and_is_not_refused(
    start_server: StartServer, tmp_path: Path
) -> None:
    """And is not refused once more, if there is one before long."""
    hold = new_file(tmp_path / "hold", b"")
    server = start_server(scripted_hold=hold, queue_limit=QUEUE, batch=1)
    ids = filled(server, wav(SECOND * 8))
    with retried(server) as client:
        hold.unlink()
        answer = client.getresponse()
        assert answer.status == 200, answer.read()
    for one in ids:
        server.wait_state(one, "done")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of it behind unread bytes")
def test_client_that_hangs_up_while_it_waits_for_a_place_lets_another_wait(
    start_server: StartServer,
) -> None:
    """Four wait, whose recordings are not read; once they have gone, another may wait."""
    held = {"openai_held": 3600}
    server = start_server(scripted_speed=1, queue_limit=QUEUE, batch=1, limits=held)
    filled(server, long(600))
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        "x-stainless-retry-count: 1\r\nContent-Length: 100000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )

    def waits() -> bool:
        with retried(server) as client:
            answered, _, _ = select.select([client.sock], [], [], 0)
            if answered:
                assert client.getresponse().status == 429
            return not answered

    def one_more() -> None:
        client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        client.sendall(head.encode())
        # More than the server reads ahead, and less than its socket holds: behind a full one
        # the end of the connection does not arrive.
        client.sendall(bytes(100_000))

    with ExitStack() as clients:
        for _ in range(4):
            one_more()
        # If it came before the last of them, that one was refused.
        wait_until(lambda: not waits() or one_more(), "as many wait as may")
    wait_until(waits, "there is room for one that waits")


def test_job_whose_client_timed_out_and_does_not_return_is_cancelled_without_a_result(
    start_server: StartServer,
) -> None:
    server = start_server(scripted_speed=10, batch=1, limits={"openai_retry_grace": 0.1})
    time_out(server, long(3600))
    assert server.post(wav(SECOND[:3200])).status_code == 200, "its turn has come"
    assert 'jobs_ended_total{outcome="cancelled"} 1' in server.client.get("/metrics").text
    assert server.jobs() == []
