"""/v1/jobs: submitted once, followed by anybody who may, fetched in every format, deleted."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from not_tested import missing
from recordings import Studio, long, wav
from service_process import PATIENCE_S, REPOSITORY, Server, check_problem, told_by, wait_until
from sse_reader import Event, events_of, follow, read_until
from two_fronts_and_node import WAYS, started

from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.server.app import create_app
from sidecar.service.facade import Service
from sidecar.transcripts.transcript_formats import FORMATS

SECOND = b"\1\0" * 16_000


def post(server: Server, audio: bytes, key: str | None = None, **fields: str) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key is not None else {}
    files = {"audio": ("a.wav", audio)}
    return server.client.post("/v1/jobs", files=files, data=fields, headers=headers)


def submitted(server: Server, audio: bytes, **fields: str) -> str:
    response = post(server, audio, **fields)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    return str(response.json()["id"])


@pytest.fixture(scope="module", params=WAYS)
def slow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Works off forty seconds of audio in a second."""
    home = tmp_path_factory.mktemp("slow")
    with started(request.param, home, request, scripted_speed=40, batch=1) as running:
        yield running


@pytest.mark.anywhere
def test_submitted_job_streams_its_segments_as_events_and_ends_done(
    server: Server, voice: bytes
) -> None:
    job_id = submitted(server, voice, priority="batch")
    names = [event.name for event in events_of(server, job_id)]
    assert names[0] == "begun"
    assert names[-1] == "done"
    assert names.count("segment") == 3
    state = server.job(job_id)
    assert (state["state"], state["priority"]) == ("done", "batch")
    assert state["ended"] >= state["created"]
    assert "segments" not in state
    assert "result" not in state


@pytest.mark.anywhere
def test_transcript_of_a_job_comes_in_every_format(server: Server, voice: bytes) -> None:
    job_id = submitted(server, voice)
    events_of(server, job_id)
    answer = server.post(voice).json()
    paths = server.client.get("/openapi.json").json()["paths"]
    stated = paths["/v1/jobs/{job_id}/transcript"]["get"]["responses"]["200"]["content"]
    assert stated.keys() == {one.media_type.partition(";")[0] for one in FORMATS.values()}
    for fmt, known in FORMATS.items():
        url = f"/v1/jobs/{job_id}/transcript"
        response = server.client.get(url, params={"format": fmt})
        assert response.status_code == 200
        assert response.headers["content-type"] == known.media_type
        for segment in answer["segments"]:
            assert fmt == "rttm" or segment["text"] in response.text
    assert server.client.get(url).json()["segments"] == answer["segments"]
    check_problem(server.client.get(url, params={"format": "docx"}), 422, "field_invalid")


def test_transcript_of_an_unfinished_or_cancelled_job_returns_409_with_the_reason(
    slow: Server,
) -> None:
    first = submitted(slow, long(2400))
    response = slow.client.get(f"/v1/jobs/{first}/transcript")
    check_problem(response, 409, "job_not_done")
    assert int(response.headers["retry-after"]) > 0
    assert slow.cancel(first)["error"]["code"] == "job_cancelled"
    check_problem(slow.client.get(f"/v1/jobs/{first}/transcript"), 409, "job_cancelled")


def test_submission_with_a_used_idempotency_key_returns_its_job_even_if_the_queue_is_full(
    start_server: Any,
) -> None:
    server = start_server(scripted_speed=1, queue_limit=1)
    running = submitted(server, wav(SECOND * 60))
    server.wait_state(running, "running")
    first = post(server, wav(SECOND * 61), key="one")
    assert first.status_code == 202
    check_problem(post(server, wav(SECOND * 62), key="two"), 503, "queue_full")
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda _: post(server, wav(SECOND * 61), key="one"), range(4)))
    assert {one.json()["id"] for one in again} == {first.json()["id"]}
    assert {one.headers["idempotent-replayed"] for one in again} == {"true"}
    assert "idempotent-replayed" not in first.headers
    assert len(server.jobs()) == 2


@pytest.mark.anywhere
def test_used_idempotency_key_with_another_recording_or_option_is_refused(
    server: Server, voice: bytes
) -> None:
    assert post(server, voice, key="used").status_code == 202
    for other in (
        post(server, wav(SECOND * 60), key="used"),
        post(server, voice, key="used", hotwords="Nagg"),
    ):
        check_problem(other, 422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "a b"])
def test_idempotency_key_that_is_empty_or_has_a_space_is_refused(server: Server, key: str) -> None:
    check_problem(post(server, wav(SECOND), key=key), 422, "field_invalid")


@pytest.mark.anywhere
def test_simultaneous_submissions_with_one_idempotency_key_make_one_job(
    server: Server, voice: bytes
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(server, voice, key="at once"[3:]), range(8)))
    assert {one.status_code for one in answers} == {202}
    assert len({one.json()["id"] for one in answers}) == 1
    assert sum("idempotent-replayed" not in one.headers for one in answers) == 1


@pytest.mark.anywhere
def test_idempotency_key_of_a_refused_recording_can_be_used_for_a_valid_one(
    server: Server, voice: bytes
) -> None:
    check_problem(post(server, b"no sound", key="again"), 415, "audio_format_unsupported")
    assert post(server, voice, key="again").status_code == 202


@pytest.mark.anywhere
def test_audio_path_sent_twice_with_one_idempotency_key_makes_one_job_that_ends_done(
    server: Server, voice: bytes, tmp_path: Path
) -> None:
    (tmp_path / "voice.wav").write_bytes(voice)
    named = {"audio_path": str(tmp_path / "voice.wav")}
    headers = {"Idempotency-Key": "named"}
    answers = [server.client.post("/v1/jobs", json=named, headers=headers) for _ in range(2)]
    assert len({one.json()["id"] for one in answers}) == 1
    ended = events_of(server, answers[0].json()["id"])[-1]
    assert ended.name == "done", ended.data


def test_job_list_is_paged_and_filtered_by_state_and_has_queue_positions(slow: Server) -> None:
    for old in slow.jobs():
        slow.client.delete(f"/v1/jobs/{old['id']}")
    ids = [submitted(slow, long(2400)) for _ in range(5)]
    slow.wait_state(ids[0], "running")
    seen, after = [], None
    while True:
        query = {"limit": "2", **({"after": after} if after else {})}
        page = slow.client.get("/v1/jobs", params=query).json()
        seen += [one["id"] for one in page["jobs"]]
        if (after := page["next"]) is None:
            break
    assert seen == ids
    queued = slow.client.get("/v1/jobs", params={"state": "queued"}).json()["jobs"]
    assert [one["id"] for one in queued] == ids[1:]
    assert [one["position"] for one in queued] == [0, 1, 2, 3]
    assert [slow.job(one)["position"] for one in ids[:2]] == [None, 0]
    waits = [one["estimated_wait_seconds"] for one in queued]
    assert waits == sorted(waits)
    assert waits[0] > 0, "something runs"
    for wrong in ({"state": "lost"}, {"limit": "0"}, {"limit": "many"}, {"after": "nobody"}):
        check_problem(slow.client.get("/v1/jobs", params=wrong), 422, "field_invalid")
    for job_id in ids:
        assert slow.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert slow.client.get("/v1/jobs").json() == {"jobs": [], "next": None}


def test_unknown_query_parameter_is_refused_with_a_suggestion_and_deletes_nothing(
    slow: Server, voice: bytes
) -> None:
    job_id = slow.submit(voice)
    several = "&".join(f"{name}=1" for name in ("keep", "kep", *"zyxwvu"))
    response = slow.client.delete(f"/v1/jobs/{job_id}?{several}")
    check_problem(response, 422, "field_invalid")
    assert response.json()["detail"] == "There is no parameter 'kep'. Did you mean 'keep'?"
    for path, meant in (
        ("?stat=queued", " Did you mean 'state'?"),
        ("?limt=1", " Did you mean 'limit'?"),
        (f"/{job_id}?wait=1", ""),
        (f"/{job_id}/events?last=1", ""),
        (f"/{job_id}/transcript?formt=srt", " Did you mean 'format'?"),
        (f"/{job_id}/transcript/history?limits=1", " Did you mean 'limit'?"),
        (f"/{job_id}/audio?begin=1", ""),
        ("/../people?nam=Nell", ""),
        ("/../page/about?lang=de", ""),
        ("/../talk?voice=a", ""),
    ):
        response = slow.client.get(f"/v1/jobs{path}")
        check_problem(response, 422, "field_invalid")
        assert response.json()["detail"].endswith(f"'.{meant}"), path
    assert slow.client.get("/v1/jobs?api_key=unused").status_code == 200
    assert slow.cancel(job_id)["id"] == job_id


def test_delete_ends_a_job_and_deletes_its_transcript(slow: Server, voice: bytes) -> None:
    done, running = submitted(slow, voice), submitted(slow, long(2400))
    slow.wait_state(done, "done")
    with follow(slow, running) as events:
        read_until(events, "segment")
        for job_id in (done, running):
            assert slow.client.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert [event.name for event in events][-1] == "cancelled"
    for job_id in (done, running):
        for path in ("", "/events", "/transcript"):
            check_problem(slow.client.get(f"/v1/jobs/{job_id}{path}"), 404, "job_not_found")
        check_problem(slow.client.delete(f"/v1/jobs/{job_id}"), 404, "job_not_found")


def test_reading_a_job_renews_its_retention_but_listing_or_renew_false_does_not(
    slow: Server, voice: bytes
) -> None:
    first, second = submitted(slow, voice), submitted(slow, voice)
    for job_id in (first, second):
        events_of(slow, job_id)

    def left_s() -> dict[str, float | None]:
        return {one["id"]: one["expires_in"] for one in slow.client.get("/v1/jobs").json()["jobs"]}

    def gap_s() -> float:
        """How much longer the one that is read stays than the other: no time changes that, and
        two of these differ by at most 0.2 by rounding."""
        left = left_s()
        return float(left[first] or 0.0) - float(left[second] or 0.0)

    if left_s()[first] is None:  # services that share jobs keep them until they are deleted
        assert left_s()[second] is None
        return
    assert 0 < (left_s()[second] or 0.0) <= 600
    for path in ("", "/transcript", "/peaks", "/events"):
        before_s, gap_before_s = left_s()[first] or 0.0, gap_s()
        wait_until(lambda at=before_s: (left_s()[first] or 0.0) < at - 0.6, "lists renew nothing")
        assert slow.client.get(f"/v1/jobs/{first}{path}").is_success
        assert gap_s() > gap_before_s + 0.25, path
    before_s, gap_before_s = left_s()[first] or 0.0, gap_s()
    wait_until(lambda: (left_s()[first] or 0.0) < before_s - 0.6, "time goes by")
    copied = slow.client.get(f"/v1/jobs/{first}/transcript", params={"renew": "false"})
    assert copied.json()["segments"]
    assert gap_s() < gap_before_s + 0.25, "a copy is nobody who reads"
    unclear = slow.client.get(f"/v1/jobs/{first}/transcript", params={"renew": "perhaps"})
    check_problem(unclear, 422, "field_invalid")


def test_ended_job_says_how_much_space_is_left_before_it_goes_unless_it_is_edited(
    slow: Server, voice: bytes
) -> None:
    job_id = submitted(slow, voice)
    assert slow.job(job_id)["space_left"] is None
    events_of(slow, job_id)
    assert 0.9 < slow.job(job_id)["space_left"] < 1
    named = {"operations": [{"op": "text", "segment": 0, "text": "Mended by hand."}]}
    assert slow.client.patch(f"/v1/jobs/{job_id}/transcript", json=named).is_success
    assert slow.job(job_id)["space_left"] is None


def test_running_job_has_an_estimated_remaining_time(slow: Server) -> None:
    job_id = submitted(slow, long(2400))
    with follow(slow, job_id) as events:
        while not (told := read_until(events, "progress").data)["fraction"]:
            pass
        assert told["estimated_remaining_seconds"] > 0
        assert slow.job(job_id)["estimated_remaining_seconds"] > 0
        assert slow.job(job_id)["expires_in"] is None
    slow.client.delete(f"/v1/jobs/{job_id}")


def test_event_stream_resumes_without_gap_or_repeat(slow: Server) -> None:
    job_id = submitted(slow, wav(SECOND * 40))
    seen: list[Event] = []
    lost = 0
    while not seen or seen[-1].name != "done":
        with follow(slow, job_id, seen[-1].id if seen else None) as events:
            for event in events:
                seen.append(event)
                if event.name == "segment" and event.data["index"] % 7 == 6:
                    lost += 1
                    break
    assert lost >= 4
    numbers = [event.id for event in seen]
    assert numbers == sorted(set(numbers))
    assert [each.data["index"] for each in seen if each.name == "segment"] == list(range(40))
    assert slow.job(job_id)["state"] == "done", "hanging up cancels nothing"


def test_event_stream_after_the_last_event_returns_204_and_an_invalid_last_event_id_422(
    slow: Server, voice: bytes
) -> None:
    job_id = submitted(slow, voice)
    numbers = [event.id for event in events_of(slow, job_id)]
    last = {"Last-Event-ID": str(numbers[-1])}
    assert slow.client.get(f"/v1/jobs/{job_id}/events", headers=last).status_code == 204
    for wrong in (str(numbers[-1] + 1), "-1", "abc", "1" * 30):
        headers = {"Last-Event-ID": wrong}
        response = slow.client.get(f"/v1/jobs/{job_id}/events", headers=headers)
        check_problem(response, 422, "field_invalid")


@pytest.mark.slow
def test_sigterm_ends_event_streams_of_running_and_waiting_jobs_with_shutting_down(
    start_server: Any,
) -> None:
    server = start_server(scripted_speed=10)
    running, waiting = (submitted(server, long(2400)) for _ in range(2))
    with follow(server, running) as one, follow(server, waiting) as other:
        read_until(one, "segment")
        server.process.terminate()
        for events in (one, other):
            last = list(events)[-1]
            assert last.name == "failed"
            assert last.data["error"]["code"] == "shutting_down"
    assert server.process.wait(PATIENCE_S) == 0
    assert "Traceback" not in server.log()


def test_disconnect_before_the_answer_cancels_no_job(slow: Server) -> None:
    before = {one["id"] for one in slow.jobs()}
    request = slow.client.build_request("POST", "/v1/jobs", files={"audio": wav(SECOND * 5)})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with slow.raw() as sock:
        sock.sendall(f"POST /v1/jobs HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        wait_until(lambda: {one["id"] for one in slow.jobs()} - before, "it is there")
    (new,) = {one["id"] for one in slow.jobs()} - before
    slow.wait_state(new, "done")


@pytest.mark.posix("programs for Linux")
@pytest.mark.skipif(shutil.which("curl") is None, reason=missing("curl", "curl"))
@pytest.mark.anywhere
def test_curl_commands_in_the_job_docs_submit_follow_read_and_delete_a_job(
    server: Server, studio: Studio, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs/queue.md").read_text("utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [line for line in block.splitlines() if line.startswith("curl")]
    (tmp_path / "meeting.opus").write_bytes(studio.bytes("ogg-opus"))
    environment = {"PATH": os.environ["PATH"], "KEY": "of-the-page"}
    said = []
    for command in commands:
        here = command.replace("http://127.0.0.1:8765", str(server.client.base_url).rstrip("/"))
        done = told_by(
            ["sh", "-c", here.replace("curl ", "curl -sS --fail-with-body ", 1)],
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 0 or "17" in here, (here, done.stdout, done.stderr)
        said.append(done.stdout)
        environment.setdefault("ID", json.loads(said[0])["id"])
    assert "event: done" in said[1]
    assert "field_invalid" in said[2], "so short a job has no 17 events"
    assert said[3].startswith("1\n00:00:00,000 --> ")
    assert json.loads(said[4])["peaks"]
    assert json.loads(said[5])["state"] == "done"
    assert set(json.loads(said[6])) == {"jobs", "next"}
    assert json.loads(said[7])["id"] == environment["ID"]
    check_problem(server.client.get(f"/v1/jobs/{environment['ID']}"), 404, "job_not_found")


async def test_creation_time_of_a_job_is_read_from_the_clock_of_the_service(voice: bytes) -> None:
    settings = Settings(engine="scripted")
    service = Service(settings, choose_engine(settings), now=lambda: 1_700_000_000.0)
    await service.open()
    try:
        transport = httpx.ASGITransport(app=create_app(settings, service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            sent = await client.post("/v1/jobs", files={"audio": voice})
    finally:
        await service.close()
    assert sent.json()["created"] == "2023-11-14T22:13:20Z"
