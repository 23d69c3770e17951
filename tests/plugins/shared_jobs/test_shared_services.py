"""Services that share a PostgreSQL: fronts that take in, nodes that work, all real processes.

What the wires promise of one service they promise here as well: tests that are marked `anywhere`
say so, of both.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from late_answers import FirstAnswersTooLate
from not_tested import missing_extra
from recordings import long
from service_process import PATIENCE_S, Server, wait_until
from two_fronts_and_node import TWO_FRONTS, Fronts, started

from bench.queue_clients import Recording


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Fronts]:
    settings = {"scripted_speed": 10, "scripted_settles": 2, "shutdown_grace": 5}
    home = tmp_path_factory.mktemp("shared")
    with started(TWO_FRONTS, home, request, **settings) as running:
        assert isinstance(running, Fronts)
        yield running


def spoken(seconds: int, number: int) -> tuple[bytes, list[str]]:
    """A recording like no other, and what the scripted engine makes of it."""
    recording = Recording(number, seconds)
    return recording.wav(), recording.said()


def test_event_stream_of_a_job_resumes_at_another_front_after_the_last_event_id(
    deployed: Fronts,
) -> None:
    here, there = deployed.fronts
    audio, said = spoken(10, 1)
    answer = here.client.post("/v1/jobs", files={"audio": audio})
    assert answer.status_code == 202, answer.text
    path = f"/v1/jobs/{answer.json()['id']}"
    with there.client.stream("GET", f"{path}/events") as events:
        first = next(line for line in events.iter_lines() if line.startswith("id: "))
    seen = {"Last-Event-ID": first.removeprefix("id: ")}
    rest = there.client.get(f"{path}/events", headers=seen).text
    assert f"\n{first}\n" not in f"\n{rest}\n"
    assert rest.count("event: done") == 1
    assert rest.count("event: segment") in (len(said), len(said) - 1)
    for front in deployed.fronts:
        told = front.client.get(f"{path}/transcript").json()
        assert [segment["text"] for segment in told["segments"]] == said
    assert there.client.delete(path).status_code == 204
    wait_until(lambda: here.client.get(path).status_code == 404, "gone everywhere")


def test_synchronous_transcription_is_answered_and_leaves_no_job_and_no_recording(
    deployed: Fronts,
) -> None:
    before = jobs_of(deployed)
    audio, said = spoken(3, 2)
    answer = deployed.fronts[0].post(audio)
    assert [segment["text"] for segment in answer.json()["segments"]] == said
    wait_until(lambda: not list(uploads(deployed)), "its recording is gone")
    assert jobs_of(deployed) == before


def jobs_of(deployed: Fronts) -> list[set[str]]:
    """The ids of all jobs, as each front lists them."""
    return [{job["id"] for job in front.jobs()} for front in deployed.fronts]


def uploads(deployed: Fronts) -> Iterator[Path]:
    return (deployed.home / "shared" / "uploads").glob("vibevoice-*/*")


def test_cancel_at_another_front_stops_the_work_at_the_node(deployed: Fronts) -> None:
    hours = long(round(20 * PATIENCE_S))  # it would be worked on for longer than is waited for
    front, node = deployed.fronts[0], deployed.node
    job_id = front.submit(hours)
    wait_until(lambda: front.job(job_id)["state"] == "running", "it runs")
    deployed.fronts[1].cancel(job_id)
    wait_until(lambda: front.job(job_id)["state"] == "cancelled", "all know")
    short, said = spoken(2, 4)
    assert [segment["text"] for segment in front.post(short).json()["segments"]] == said
    wait_until(lambda: node.health()["engine_state"] == "ready", "nobody works on it")


def test_same_idempotency_key_at_two_fronts_at_once_makes_one_job(deployed: Fronts) -> None:
    audio, _ = spoken(2, 5)

    def send(front: Server, key: str) -> str:
        named = {"Idempotency-Key": key}
        answer = front.client.post("/v1/jobs", files={"audio": audio}, headers=named)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor() as threads:
        for key in map(str, range(5)):
            ids = threads.map(send, deployed.fronts, [key, key])
            assert len({*ids}) == 1


def test_node_answers_health_and_metrics_and_accepts_no_jobs(deployed: Fronts) -> None:
    node = deployed.node.client
    assert node.get("/health").json()["engine"] == "scripted"
    looks = "/healthz/live", "/healthz/ready", "/metrics"
    assert {node.get(path).status_code for path in looks} == {200}
    refused = node.get("/v1/jobs")
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert "send jobs to a front" in refused.json()["hint"]
    assert deployed.node.post(b"").status_code == 404
    assert node.get("/").json()["service"] == "vibevoice-asr"


def test_services_table_has_the_instance_id_of_each_health_response(deployed: Fronts) -> None:
    """docs/scale.md: which row of `vibevoice.services` is which machine."""
    with psycopg.connect(deployed.journal) as connection:
        rows = connection.execute("SELECT id, works FROM vibevoice.services").fetchall()
    found = dict(rows)
    assert found[deployed.node.health()["instance"]] is True
    for front in deployed.fronts:
        assert found[front.health()["instance"]] is False


def test_front_refuses_to_reload_the_model(deployed: Fronts) -> None:
    asked = deployed.fronts[0].client.post("/reload-model", json={"precision": "int8"})
    assert asked.json()["code"] == "engine_unavailable"
    assert deployed.fronts[0].health()["worker_pid"] is None


@pytest.mark.slow
def test_jobs_of_a_node_stopped_without_grace_are_done_by_another_node(deployed: Fronts) -> None:
    audio, said = spoken(60, 7)
    front = deployed.fronts[0]
    leaving = deployed.another_node(shutdown_grace=0)
    jobs = [front.submit(audio) for _ in range(2)]

    def all_run() -> bool:
        progress = [front.job(one)["progress"]["audio_seconds_done"] for one in jobs]
        return min(progress) > 3

    wait_until(all_run, "both work")
    leaving.process.terminate()
    assert leaving.process.wait(PATIENCE_S) == 0
    for job_id in jobs:
        wait_until(lambda one=job_id: front.job(one)["state"] == "done", "done")
        told = front.client.get(f"/v1/jobs/{job_id}/transcript").json()
        assert [segment["text"] for segment in told["segments"]] == said


def test_openai_client_and_v1_transcribe_get_each_recordings_text_through_both_fronts(
    deployed: Fronts,
) -> None:
    openai = pytest.importorskip("openai", reason=missing_extra("openai"))
    url, before = f"http://127.0.0.1:{deployed.port}", len(deployed.proxy.given)
    wanted = {"model": "whisper-1", "response_format": "verbose_json"}

    def queued() -> int:
        status = httpx.get(f"{url}/v1/queue/status", timeout=PATIENCE_S).json()
        return int(status["total_queued"])

    with openai.OpenAI(base_url=f"{url}/v1", api_key="nobody") as client:
        for number in (7, 8):
            audio, said = spoken(3, number)
            answer = client.audio.transcriptions.create(file=("a.wav", audio), **wanted)
            assert [segment.text.strip() for segment in answer.segments] == said
    for number in (9, 10):
        audio, said = spoken(3, number)
        with httpx.stream(
            "POST", f"{url}/v1/transcribe", files={"audio": ("a.wav", audio)}, timeout=PATIENCE_S
        ) as told:
            lines = told.read().decode()
        assert all(line in lines for line in said)
        wait_until(lambda: queued() == 0, "a front counts them now and then")
    assert len({*deployed.proxy.given[before:]}) == 2


def idle(deployed: Fronts) -> bool:
    """Whether the caller has no job and the node nothing to do."""
    status = deployed.client.get("/v1/queue/status").json()
    return not status["your_jobs"] and deployed.node.health()["engine_state"] == "ready"


@pytest.mark.slow
def test_retry_at_another_front_takes_over_the_timed_out_request_and_no_job_or_file_stays(
    deployed: Fronts,
) -> None:
    """Four seconds of work, two of patience: begun anew each time it would never be done."""
    openai = pytest.importorskip("openai", reason=missing_extra("openai"))
    audio, said = spoken(40, 11)
    before = len(deployed.proxy.given)
    with openai.OpenAI(base_url=f"http://127.0.0.1:{deployed.port}/v1", api_key="nobody") as client:
        patient = client.with_options(timeout=2.0, max_retries=20)  # on a slow machine it is long
        raw = patient.audio.transcriptions.with_raw_response.create(
            file=("a.wav", audio), model="whisper-1"
        )
    assert raw.retries_taken >= 1
    assert all(line in raw.text for line in said)
    assert len({*deployed.proxy.given[before:]}) == 2
    wait_until(lambda: idle(deployed), "nobody works on it")
    wait_until(lambda: not [*uploads(deployed)], "nothing of it is kept")


def test_retry_by_the_sdk_at_another_front_gets_the_result_of_its_one_job(
    deployed: Fronts,
) -> None:
    openai = pytest.importorskip("openai", reason=missing_extra("openai"))
    audio, said = spoken(10, 12)
    here, there = deployed.fronts
    works = lambda: deployed.node.health()["engine_state"] == "busy"  # noqa: E731
    network = FirstAnswersTooLate(here, works, then=there)
    settings = {"timeout": 0.001, "http_client": httpx.Client(transport=network)}
    before = [accepted(one) for one in deployed.fronts]
    with openai.OpenAI(base_url=f"{here.url}/v1", api_key="nobody", **settings) as client:
        answer = client.audio.transcriptions.create(file=("a.wav", audio), model="whisper-1")
    assert all(line in answer.text for line in said)
    assert [one["x-stainless-retry-count"] for one in network.sent] == ["0", "1"]
    assert [accepted(one) for one in deployed.fronts] == [before[0] + 1, before[1]]
    wait_until(lambda: idle(deployed), "nobody works on it")
    wait_until(lambda: not [*uploads(deployed)], "nothing of it is kept")


def accepted(front: Server) -> float:
    """The number of jobs that a front has accepted."""
    lines = front.client.get("/metrics").text.splitlines()
    name = "vibevoice_jobs_submitted_total "
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.slow
@pytest.mark.parametrize("retries", [2, 0], ids=["again and again", "never again"])
def test_request_that_timed_out_for_good_leaves_no_job_and_an_idle_node(
    deployed: Fronts, retries: int
) -> None:
    openai = pytest.importorskip("openai", reason=missing_extra("openai"))
    hours = long(round(20 * PATIENCE_S))  # it would be worked on for longer than is waited for
    with (
        openai.OpenAI(base_url=f"http://127.0.0.1:{deployed.port}/v1", api_key="nobody") as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.with_options(timeout=1.5, max_retries=retries).audio.transcriptions.create(
            file=("a.wav", hours), model="whisper-1"
        )
    wait_until(lambda: idle(deployed), "nobody works on it")
