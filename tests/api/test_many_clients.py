"""Many clients, one engine: nobody is lost, mixed up or kept waiting by somebody who left."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from recordings import Studio, wav
from service_process import PATIENCE_S, Server, check_problem, read_answer, wait_until
from two_fronts_and_node import ONE_SERVICE, TWO_FRONTS, WAYS, started

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with POSIX signals")

ENDED = ("done", "failed", "cancelled")
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


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Works off ten seconds of audio in a second."""
    with Server(tmp_path_factory.mktemp("slow"), scripted_speed=10) as running:
        running.post(tone(0, 1.0))
        yield running


@pytest.fixture(scope="module")
def slow_fronts(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """As many seconds, by two fronts and a node."""
    home = tmp_path_factory.mktemp("fronts")
    with started(TWO_FRONTS, home, request, scripted_speed=10) as running:
        running.post(tone(0, 1.0))
        yield running


@pytest.fixture
def idle_slow_server(slow_server: Server) -> Iterator[Server]:
    """The slow server, with nothing to do before and after."""
    wait_until(lambda: not busy(slow_server), PATIENCE_S, "nothing is heard")
    yield slow_server
    end_all(slow_server)


@pytest.fixture(params=WAYS)
def idle(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The slow server, or the fronts."""
    name = "slow_server" if request.param == ONE_SERVICE else "slow_fronts"
    running: Server = request.getfixturevalue(name)
    wait_until(lambda: not busy(running), PATIENCE_S, "nothing is heard")
    yield running
    end_all(running)


def end_all(server: Server) -> None:
    for job in server.jobs():
        server.cancel(job["id"])


def busy(server: Server) -> bool:
    return bool(server.health()["engine_state"] == "busy")


def running_job(server: Server, audio: bytes) -> str:
    """A job that is being worked on, half a second of audio in."""
    job_id = server.submit(audio)
    server.wait_state(job_id, "running")
    wait_until(lambda: server.job(job_id)["progress"]["audio_seconds_done"], PATIENCE_S, "progress")
    return job_id


def kill_worker(server: Server) -> int:
    pid = int(server.health()["worker_pid"])
    os.kill(pid, signal.SIGKILL)
    return pid


def zombies(server: Server) -> list[int]:
    found = []
    for child in server.process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def test_thirty_two_clients_at_once_each_get_their_own_transcript(server: Server) -> None:
    recordings = [tone(number) for number in range(32)]
    alone = [server.post(audio).json()["segments"] for audio in recordings]
    assert len({str(segments) for segments in alone}) == len(alone)
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(server.post, recordings))
    for number, response in enumerate(together):
        assert response.status_code == 200, response.text[:500]
        assert response.json()["segments"] == alone[number]


@pytest.mark.slow
def test_beyond_its_limit_the_queue_says_when_to_come_back(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(queue_limit=2, scripted_speed=10)
    expected = server.post(tone(0)).json()["segments"]
    ahead = running_job(server, endless(1))
    with ThreadPoolExecutor(12) as pool:
        sent = [pool.submit(server.post, tone(0)) for _ in range(12)]
        wait_until(lambda: sum(one.done() for one in sent) == 10, PATIENCE_S, "two have a place")
        server.cancel(ahead)
    answers = [one.result() for one in sent]
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert (len(served), len(refused)) == (2, 10)
    for answer in refused:
        check_problem(answer, 503, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
    for answer in served:
        assert answer.json()["segments"] == expected
    assert server.post(tone(0)).status_code == 200
    assert not server.leftovers()


def test_a_full_queue_says_so_before_the_upload_is_read(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(queue_limit=1, scripted_speed=2)
    running_job(server, endless(0))
    server.submit(tone(1))
    with server.raw() as sock:
        sock.sendall(
            b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
            b"Content-Type: multipart/form-data; boundary=frontier\r\n\r\n"
        )
        status, headers, _ = read_answer(sock)
    assert status == 503
    assert "retry-after" in headers
    assert headers["connection"] == "close"


def test_a_job_goes_from_queued_to_done_and_can_be_watched(idle: Server) -> None:
    server = idle
    ahead = running_job(server, endless(0))
    first, second = server.submit(tone(1)), server.submit(tone(2, 1.0))
    assert server.job(ahead)["position"] is None
    assert [server.job(one)["position"] for one in (first, second)] == [0, 1]
    assert server.job(second)["state"] == "queued"
    seen: list[float] = []

    def further() -> bool:
        seen.append(server.job(ahead)["progress"]["fraction"] or 0.0)
        return len(set(seen)) > 2

    wait_until(further, PATIENCE_S, "it is heard, second by second")
    assert seen == sorted(seen)
    assert all(0 < fraction < 1 for fraction in seen)
    server.cancel(ahead)
    done = server.wait_state(second, "done")
    assert server.job(first)["state"] == "done"
    assert done["attempts"] == 1
    assert [job["id"] for job in server.jobs()][-2:] == [first, second]


def test_the_answer_to_an_asynchronous_request_names_the_job(idle: Server) -> None:
    response = idle.client.post(
        "/transcribe", files={"audio": tone(3)}, headers={"Prefer": "respond-async, wait=1"}
    )
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    job = idle.client.get(response.headers["location"])
    assert job.json()["id"] == response.json()["id"]


def test_a_deleted_job_ends_and_the_next_one_starts(idle: Server) -> None:
    server = idle
    first = running_job(server, endless(1))
    queued, last = server.submit(tone(2, 60.0)), server.submit(tone(3, 1.0))
    assert server.cancel(queued)["state"] == "cancelled"
    assert server.job(first)["state"] == "running"
    assert server.cancel(first)["state"] == "cancelled"
    assert server.wait_state(last, "done")["attempts"] == 1
    for job_id in (first, queued):
        job = server.job(job_id)
        assert job["state"] == "cancelled"
        assert job["error"]["code"] == "job_cancelled"
    again = server.cancel(last)
    assert again["state"] == "done", "what has ended stays as it is"


def test_what_a_client_waits_for_is_for_nobody_else(idle: Server) -> None:
    """Not while it is worked on, and not after it was sent."""
    server = idle

    def listed() -> set[str]:
        return {job["id"] for job in server.jobs()}

    before = listed()  # of which some may have been there for long enough meanwhile
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, tone(4, 20.0))
        wait_until(lambda: busy(server), PATIENCE_S, "the job runs")
        assert listed() <= before
    job_id = answer.result().json()["metadata"]["job_id"]
    assert listed() <= before
    check_problem(server.client.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    check_problem(server.client.delete(f"/v1/jobs/{job_id}"), 404, "job_not_found")


@pytest.mark.parametrize("state", ["running", "queued"])
def test_the_job_of_a_client_that_hangs_up_is_cancelled(state: str, idle: Server) -> None:
    server = idle
    ahead = running_job(server, endless(5)) if state == "queued" else None
    request = server.client.build_request("POST", "/transcribe", files={"audio": endless(6)})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with server.raw() as impatient:
        impatient.sendall(f"POST /transcribe HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        if ahead:
            wait_until(lambda: server.health()["jobs_waiting"] == 1, PATIENCE_S, "it waits")
        else:
            wait_until(lambda: busy(server), PATIENCE_S, "it runs")
    if ahead:
        wait_until(lambda: server.health()["jobs_waiting"] == 0, PATIENCE_S, "no more")
        assert server.job(ahead)["state"] == "running"
        server.cancel(ahead)
    following = server.submit(tone(7, 1.0))
    assert server.wait_state(following, "done")["attempts"] == 1


def test_health_answers_every_poll_while_a_job_runs(idle_slow_server: Server) -> None:
    server = idle_slow_server
    job_id = running_job(server, endless(8))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: server.client.get("/health"), range(200)))
    assert [answer.status_code for answer in answers] == [200] * 200
    assert {answer.json()["engine_state"] for answer in answers} == {"busy"}
    assert server.job(job_id)["state"] == "running"


def test_a_bad_file_gets_its_answer_while_another_job_runs(idle_slow_server: Server) -> None:
    server = idle_slow_server
    job_id = running_job(server, endless(9))
    check_problem(server.post(b"no audio"), 415, "audio_format_unsupported")
    check_problem(server.post(wav(b"")), 422, "audio_undecodable")
    assert server.job(job_id)["state"] == "running"


def test_a_job_whose_engine_is_killed_is_tried_once_more(idle_slow_server: Server) -> None:
    server = idle_slow_server
    expected = [server.post(tone(number)).json()["segments"] for number in range(3)]
    first = running_job(server, tone(0, 20.0))
    os.kill(int(server.health()["worker_pid"]), signal.SIGSTOP)
    others = [server.submit(tone(number)) for number in range(3)]
    killed = kill_worker(server)
    job = server.wait_state(first, *ENDED)
    assert job["state"] == "done", job
    assert job["attempts"] == 2
    assert server.transcript(first)["metadata"]["duration"] == pytest.approx(20.0)
    for number, job_id in enumerate(others):
        job = server.wait_state(job_id, *ENDED)
        assert (job["state"], job["attempts"]) == ("done", 1)
        assert server.transcript(job_id)["segments"] == expected[number]
    assert server.health()["worker_pid"] != killed
    wait_until(lambda: not zombies(server), PATIENCE_S, "the dead are buried")


def test_a_job_whose_engine_is_killed_twice_fails_alone(idle_slow_server: Server) -> None:
    server = idle_slow_server
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, endless(0))
        wait_until(lambda: busy(server), PATIENCE_S, "the job runs")
        killed = kill_worker(server)
        following = server.submit(tone(1))
        wait_until(
            lambda: busy(server) and server.health()["worker_pid"] not in (None, killed),
            PATIENCE_S,
            "the second attempt",
        )
        kill_worker(server)
        response = answer.result(PATIENCE_S)
    check_problem(response, 503, "engine_crashed")
    assert int(response.headers["retry-after"]) >= 1
    assert server.wait_state(following, *ENDED)["state"] == "done"
    wait_until(lambda: not zombies(server), PATIENCE_S, "the dead are buried")


@pytest.mark.slow
def test_an_engine_that_is_killed_while_idle_is_back_every_time(server: Server) -> None:
    audio = tone(11)
    expected = server.post(audio).json()["segments"]
    pids = set()
    for _ in range(5):
        pids.add(kill_worker(server))
        response = server.post(audio)
        assert response.status_code == 200, response.text[:500]
        assert response.json()["segments"] == expected
    assert len(pids) == 5
    wait_until(lambda: not zombies(server), PATIENCE_S, "the dead are buried")


@pytest.mark.slow
def test_the_process_that_looks_at_files_may_be_killed_too(server: Server, studio: Studio) -> None:
    """Every child at once, three times: intake and engine both come back, and nobody has to ask
    for the dead to be buried."""
    voice = studio.bytes("flac")  # plain wav needs no look
    for _ in range(3):
        response = server.post(voice)
        assert response.status_code == 200, response.text[:500]
        children = server.process.children(recursive=True)
        assert len(children) >= 2
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        wait_until(lambda: not zombies(server), PATIENCE_S, "the dead are buried")
    assert server.post(voice).status_code == 200
