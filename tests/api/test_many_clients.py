"""Many clients, one engine: nobody is lost, mixed up or kept waiting by somebody who left."""

import asyncio
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import httpx
import pytest
from live_wire import wire
from recordings import wav
from service_process import PATIENCE_S, Server, StartServer, check_problem, wait_until
from two_fronts_and_node import WAYS, started

CONNECTIONS = 200
ENDLESS_S = 3000
"""Of a recording that the slow server would hear for as long as any test waits."""


def tone(number: int, seconds: float = 2.0) -> bytes:
    """A recording like no other: square waves with a height of their own."""
    wave = [100 * (number + 1) * (1 if index // 40 % 2 else -1) for index in range(1600)]
    return wav(struct.pack("<1600h", *wave) * int(10 * seconds))


def endless(number: int) -> bytes:
    """As `tone`, at 2 kHz."""
    wave = [100 * (number + 1) * (1 if index // 5 % 2 else -1) for index in range(2000)]
    return wav(struct.pack("<2000h", *wave) * ENDLESS_S, rate=2000)


@pytest.fixture(scope="module", params=WAYS)
def slow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Works off ten seconds of audio in a second."""
    home = tmp_path_factory.mktemp("slow")
    with started(request.param, home, request, scripted_speed=10) as running:
        running.post(tone(0, 1.0))
        yield running


@pytest.fixture
def idle(slow: Server) -> Iterator[Server]:
    """The slow service, with nothing to do before and after."""
    wait_until(lambda: not busy(slow), "nothing is heard")
    yield slow
    for job in slow.jobs():
        slow.cancel(job["id"])


def busy(server: Server) -> bool:
    return bool(server.health()["engine_state"] == "busy")


def running_job(server: Server, audio: bytes) -> str:
    """A job that is being worked on, half a second of audio in."""
    job_id = server.submit(audio)
    server.wait_state(job_id, "running")
    wait_until(lambda: server.job(job_id)["progress"]["audio_seconds_done"], "progress")
    return job_id


def test_each_of_32_concurrent_clients_gets_its_own_transcript(server: Server) -> None:
    recordings = [tone(number) for number in range(32)]
    alone = [server.post(audio).json()["segments"] for audio in recordings]
    assert len({str(segments) for segments in alone}) == len(alone)
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(server.post, recordings))
    for number, response in enumerate(together):
        assert response.status_code == 200, response.text[:500]
        assert response.json()["segments"] == alone[number]


async def test_200_connections_of_live_audio_and_200_uploads_at_once_are_all_answered(
    start_server: StartServer, voice: bytes
) -> None:
    server = start_server(queue_limit=CONNECTIONS, live_idle=PATIENCE_S)
    server.post(voice)  # before all of the service is imported only 100 wait
    files, later = {"audio": voice}, {"Prefer": "respond-async"}
    async with AsyncExitStack() as stack:
        connected = [stack.enter_async_context(wire(server)) for _ in range(CONNECTIONS)]
        sockets = await asyncio.gather(*connected)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, limits=httpx.Limits())
        )
        sent = [client.post("/transcribe", files=files, headers=later) for _ in sockets]
        answers = asyncio.gather(*sent)
        for pong in [await socket.ping() for socket in sockets]:
            await asyncio.wait_for(pong, PATIENCE_S)
        assert {answer.status_code for answer in await answers} == {202}
    assert "Traceback" not in server.log()


def test_synchronous_transcription_is_no_job_to_list_read_or_delete(
    idle: Server,
) -> None:
    """Not while it is worked on, and not after it was sent."""

    def listed() -> set[str]:
        return {job["id"] for job in idle.jobs()}

    before = listed()  # of which some may have been there for long enough meanwhile
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(idle.post, tone(4, 20.0))
        while not answer.done():
            assert listed() <= before
    job_id = answer.result().json()["metadata"]["job_id"]
    assert listed() <= before
    check_problem(idle.client.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    check_problem(idle.client.delete(f"/v1/jobs/{job_id}"), 404, "job_not_found")


@pytest.mark.parametrize("state", ["running", "queued"])
def test_running_or_queued_job_of_a_disconnected_client_is_cancelled(
    state: str, idle: Server
) -> None:
    ahead = running_job(idle, endless(5)) if state == "queued" else None
    request = idle.client.build_request("POST", "/transcribe", files={"audio": endless(6)})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with idle.raw() as impatient:
        impatient.sendall(f"POST /transcribe HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        if ahead:
            wait_until(lambda: idle.health()["jobs_waiting"] == 1, "it waits")
        else:
            wait_until(lambda: busy(idle), "it runs")
    if ahead:
        wait_until(lambda: idle.health()["jobs_waiting"] == 0, "no more")
        assert idle.job(ahead)["state"] == "running"
        idle.cancel(ahead)
    following = idle.submit(tone(7, 1.0))
    assert idle.wait_state(following, "done")["attempts"] == 1
