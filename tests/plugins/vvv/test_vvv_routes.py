"""The queue server's wire: the golden stream, and the names and words of its client."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from module_services import open_service as open_service
from recordings import wav
from service_process import REPOSITORY, Server, new_file, wait_until, web
from two_fronts_and_node import WAYS, Fronts, started
from vibevoice_asr_client import vvv_cli
from vibevoice_asr_client.vvv import VibevoiceClient

from sidecar.api.http.responses import SSE_KEEP_ALIVE
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import ClientFileRef
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import JobRecord
from sidecar.plugins.vvv.routes import VvvFragments, segment_text
from sidecar.server.app import create_app
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Segment, Transcript

SECOND = b"\1\0" * 16_000
ENDLESS = wav(b"\x80\x81" * 1000 * 1800, rate=2000, bits=8)
"""Half an hour: heard for as long as a test looks."""
TOKEN = "a token of sixteen bytes or more"
GOLDEN = REPOSITORY / "tests/golden"
ERRORS = json.loads((GOLDEN / "queue_errors.json").read_text("utf-8"))
BOUNDARY = "b" * 32


@pytest.fixture(scope="module", params=WAYS)
def queue(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service with a token, of which two recordings make a full house, at ten times real time."""
    home = tmp_path_factory.mktemp("queue")
    settings = {"scripted_speed": 10, "queue_limit": 2, "max_upload_mb": 4, "batch": 1}
    with started(request.param, home, request, token=TOKEN, **settings) as running:
        running.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield running


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three seconds."""
    return new_file(tmp_path / "clip.wav", wav(SECOND * 3))


@pytest.fixture
def busy(queue: Server) -> Iterator[str]:
    """The engine has its hands full: the job's id."""
    files = {"audio": ENDLESS}
    job_id = str(queue.client.post("/v1/jobs", files=files).raise_for_status().json()["id"])
    queue.wait_state(job_id, "running")
    yield job_id
    queue.client.delete(f"/v1/jobs/{job_id}")


def cli(server: Server, *words: str) -> int:
    return vvv_cli.run(["--server", f"http://127.0.0.1:{server.port}", "--token", TOKEN, *words])


def status(server: Server) -> dict[str, Any]:
    client = VibevoiceClient(f"http://127.0.0.1:{server.port}", TOKEN)
    return asyncio.run(client.queue_status())


def test_client_command_prints_segments_and_the_position_in_the_queue(
    queue: Server, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.json"
    assert (
        cli(queue, "transcribe", str(clip), "--hotwords", "Nagg,Nell", "--output", str(output)) == 0
    )
    said = capsys.readouterr()
    assert re.fullmatch(r"\[Queue\] Position: 1, ETA: \d+s\n", said.err)
    assert output.read_text("utf-8") == said.out.removesuffix("\n")
    segments = json.loads(said.out)
    assert [set(one) for one in segments] == [{"Start", "End", "Speaker", "Content"}] * 3
    assert [one["Start"] for one in segments] == [0, 1, 2]


def test_stream_of_v1_transcribe_equals_the_golden_one_byte_by_byte(
    queue: Server, clip: Path
) -> None:
    """But for the job's id, the waits, and the words, which are the audio's fingerprints."""
    response = queue.client.post(
        "/v1/transcribe",
        files={"audio": ("clip.wav", clip.read_bytes(), "application/octet-stream")},
    )
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    whole = response.text.replace(SSE_KEEP_ALIVE.decode(), "")
    text, number = re.subn(r'"job_id":"[0-9a-f]{32}"', '"job_id":"JOB"', whole)
    assert number == 2
    text = re.sub(r'(_seconds":)\d+\.\d+', r"\1WAIT", text)
    words = iter("ABC")
    text = re.sub(r'(Content\\":\\")[0-9a-f]{8}', lambda match: match[1] + next(words), text)
    assert text == (GOLDEN / "queue_stream.txt").read_text("utf-8")


def test_text_is_streamed_while_it_is_decoded(queue: Server) -> None:
    files = {"audio": ("a.wav", ENDLESS)}
    with queue.client.stream("POST", "/v1/transcribe", files=files) as response:
        texts = (line for line in response.iter_lines() if line.startswith('data: {"text"'))
        for _ in range(3):
            next(texts)
        (info,) = status(queue)["your_jobs"][-1:]
        assert info["status"] == "streaming"
        for _ in range(7):
            next(texts)


def test_queue_status_lists_running_and_waiting_jobs_and_a_disconnected_clients_as_failed(
    queue: Server, busy: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = queue.client.build_request(
        "POST", "/v1/transcribe", files={"audio": ("a.wav", clip.read_bytes())}
    )
    response = queue.client.send(waiting, stream=True)
    lines = response.iter_lines()
    assert next(lines) == "event: queue"
    place = json.loads(next(lines).removeprefix("data: "))
    assert place["position"] == 1
    assert isinstance(place["estimated_wait_seconds"], float)
    assert place["estimated_wait_seconds"] > 0, "something runs"
    wait_until(lambda: status(queue)["total_queued"] == 1, "a front counts them now and then")
    listed = {one["job_id"]: one for one in status(queue)["your_jobs"]}
    assert listed[place["job_id"]]["status"] == "queued"
    assert listed[place["job_id"]]["position"] == 1
    assert listed[busy]["status"] in ("processing", "streaming")
    assert listed[busy]["position"] is listed[busy]["estimated_wait_seconds"] is None
    assert cli(queue, "status") == 0
    assert f"{place['job_id'][:8]}... status=queued position=1 eta=" in capsys.readouterr().out
    response.close()  # which cancels it
    if isinstance(queue, Fronts):  # the status of a job that has ended has the front that had it
        wait_until(lambda: status(queue)["total_queued"] == 0, "it is cancelled")
        return

    def cancelled() -> bool:
        (one,) = (each for each in status(queue)["your_jobs"] if each["job_id"] == place["job_id"])
        return bool(one["status"] == "failed")

    wait_until(cancelled, "it is cancelled")
    assert status(queue)["total_queued"] == 0
    assert queue.client.get(f"/v1/jobs/{place['job_id']}").status_code == 404, "nothing is kept"


def test_disconnect_during_a_stream_frees_the_engine_for_the_next_request(
    queue: Server, clip: Path
) -> None:
    files = {"audio": ("a.wav", ENDLESS)}
    with queue.client.stream("POST", "/v1/transcribe", files=files) as response:
        next(line for line in response.iter_lines() if "text" in line)
    answer = queue.client.post("/v1/transcribe", files={"audio": ("a.wav", clip.read_bytes())})
    assert "event: done" in answer.text
    wait_until(lambda: queue.health()["jobs_waiting"] == 0, "a front counts them now and then")


def test_vvv_client_prints_the_error_of_a_failed_job_and_exits_with_1(
    start_server: Any, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server(scripted_fails="fp32", token=TOKEN)
    assert cli(server, "transcribe", str(clip)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"^\[Error\] .+\.$", said.err, re.MULTILINE)


def form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    """A multipart body of parts with just these headers."""
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return {
        "content": body + f"--{BOUNDARY}--\r\n".encode(),
        "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    }


AUDIO = 'name="audio"; filename="a.wav"'
BAD: dict[str, dict[str, Any]] = {
    "zero bytes": form((AUDIO, b"")),
    "no filename": form(('name="audio"', wav(SECOND))),
    "unknown extension": form(('name="audio"; filename="a.txt"', wav(SECOND))),
    "no audio part": form(('name="sound"; filename="a.wav"', wav(SECOND))),
    "no form": {"json": {"audio_path": "/etc/passwd"}},
    "no audio": form((AUDIO, b"words, not sound " * 99)),
    "too large": form((AUDIO, wav(SECOND * 180))),
}


def check_golden(response: httpx.Response, case: str) -> None:
    body = response.json()
    plain = "application/json" if isinstance(body["detail"], list) else "application/problem+json"
    assert response.headers["content-type"] == plain
    if isinstance(body["detail"], str) and ERRORS[case]["detail"].endswith("…"):
        body["detail"] = body["detail"].partition(": ")[0] + ": …"
    assert {"status": response.status_code, "detail": body["detail"]} == ERRORS[case]
    assert body["code"]
    assert body["hint"]


@pytest.mark.parametrize("case", BAD)
def test_invalid_request_returns_the_golden_error(case: str, queue: Server) -> None:
    check_golden(queue.client.post("/v1/transcribe", **BAD[case]), case)


def test_full_queue_and_wrong_token_return_the_golden_errors(queue: Server, busy: str) -> None:
    files = {"audio": wav(SECOND * 60)}
    others = [queue.client.post("/v1/jobs", files=files).json()["id"] for _ in range(2)]
    check_golden(queue.client.post("/v1/transcribe", **form((AUDIO, wav(SECOND)))), "queue full")
    for job_id in others:
        queue.client.delete(f"/v1/jobs/{job_id}")
    for case, headers in (("no token", {}), ("wrong token", {"Authorization": "Bearer of news"})):
        for path in ("/v1/transcribe", "/v1/queue/status"):
            method = "POST" if path == "/v1/transcribe" else "GET"
            url = f"http://127.0.0.1:{queue.port}{path}"
            response = web.request(method, url, headers=headers)
            check_golden(response, case)
            assert response.headers["www-authenticate"] == "Bearer"


def test_health_has_the_vllm_field_of_the_queue_server_beside_ours(queue: Server) -> None:
    wait_until(lambda: queue.health()["status"] != "loading", "the engine is loaded")
    health = queue.health()
    assert (health["status"], health["vllm"]) == ("ok", "ok")
    assert isinstance(health["model_loaded"], bool)


@pytest.mark.parametrize("place", ["form", "query", "both"])
async def test_hotwords_in_query_or_form_are_the_engines_prompt_and_the_form_wins(
    place: str, open_service: Callable[..., Awaitable[Service]]
) -> None:
    service = await open_service()
    given = {"params": {"hotwords": "Nagg, Nell"}, "data": {"hotwords": "Nagg, Nell"}}
    if place == "both":
        given["params"]["hotwords"] = "others"
    else:
        del given["data" if place == "query" else "params"]
    prompts = []
    service.backend.listen(lambda job, event: prompts.append(job.options.prompt_with_hotwords))
    transport = httpx.ASGITransport(app=create_app(service.settings, service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        files = {"audio": ("a.wav", wav(SECOND))}
        response = await client.post("/v1/transcribe", files=files, **given)  # type: ignore[arg-type]
    assert "event: done" in response.text
    assert set(prompts) == {"Nagg, Nell"}


def heard(*starts: float, attempts: int = 1, over: bool = False) -> JobRecord:
    """A job in which a second of speech, of one word, was heard at each of these times."""
    segments = tuple(Segment(at, at + 1, f"{10 * at:g}", speaker=0) for at in starts)
    facts = AudioInfo("wav", "sndfile", 9.0)
    record = JobRecord.submitted(0.0, ClientFileRef("/a.wav", 1, 1), facts, TranscribeOptions())
    transcript = Transcript(segments, "en", 9.0, "scripted", "fp32") if over else None
    return dataclasses.replace(record, attempts=attempts, segments=segments, transcript=transcript)


@pytest.mark.parametrize(
    ("records", "expected", "revised"),
    [
        ([heard(0), heard(0, 1), heard(0, 1, 2), heard(0, 1, 2, over=True)], [0, 1, 2], None),
        (
            [heard(0, 1), heard(attempts=2), heard(0, 1, 2, attempts=2), heard(0, 1, 2, over=True)],
            [0, 1, 2],
            None,
        ),
        (
            [heard(0, 1), heard(0.1, 1.2, 2, attempts=2), heard(0.1, 1.2, 2, over=True)],
            [0, 1, 2],
            [0.1, 1.2, 2],
        ),
        ([heard(0, 3), heard(0, 3, 1.5), heard(0, 1.5, 3, over=True)], [0, 3, 1.5], None),
        ([heard(0, 0.2), heard(0, 0.2, over=True)], [0, 0.2], None),
        ([heard(0, 1, over=True)], [0, 1], None),
        ([heard(over=True)], [], None),
    ],
    ids=[
        *("in order", "again", "again, a little elsewhere", "late", "at once"),
        *("over before", "silence"),
    ],
)
def test_joined_fragments_are_one_json_list_without_repetition_and_the_end_has_what_was_revised(
    records: list[JobRecord], expected: list[float], revised: list[float] | None
) -> None:
    fragments = VvvFragments()
    texts = [text for record in records for text in fragments.more(record)]
    assert [one["Start"] for one in json.loads("".join(texts))] == expected
    assert records[-1].transcript is not None
    frame = fragments.done("one", records[-1].transcript).partition(b"data: ")[2]
    whole = json.loads(frame).get("revised")
    assert (whole and [one["Start"] for one in json.loads(whole)]) == revised


def test_fragment_of_non_speech_has_no_speaker_and_its_text_is_escaped() -> None:
    music = Segment(0, 1.234, '[Music] "\\\n\u2028', flags=("non_speech",))
    assert json.loads(segment_text(music)) == {
        "Start": 0,
        "End": 1.23,
        "Content": '[Music] "\\\n\u2028',
    }
