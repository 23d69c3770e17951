"""The desktop host's own dialogue, on the embedded engine and real recordings."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from module_services import service_of_module
from moonshine_voice import get_assets_path
from recordings import silence, wav
from service_process import (
    Server,
    StartServer,
    check_problem,
    new_file,
    wait_for_ends,
    wait_until,
)

from sidecar import errors
from sidecar.api import transcribe_routes

ENDGAME = Path(get_assets_path()) / "endgame_nagg_nell.wav"
BECKETT = Path(get_assets_path()) / "beckett.wav"


embedded = service_of_module(engine="auto")


def check_host_can_parse(body: dict[str, Any]) -> None:
    """Every named field is there, not null, and of the type that the host's parser demands."""
    assert isinstance(body["status"], str)
    for segment in body["segments"]:
        assert segment["speaker"].removeprefix("Speaker_").isdecimal()
        assert isinstance(segment["start_time"], float)
        assert isinstance(segment["end_time"], float)
        assert segment["text"]
    about = body["metadata"]
    for name in ("duration", "processing_time"):
        assert isinstance(about[name], float)
    for name in ("language", "model_precision"):
        assert isinstance(about[name], str)
    assert type(about["num_speakers"]) is int


@pytest.fixture(scope="module")
def conversation(embedded: Server) -> dict[str, Any]:
    """What the host's default request gets: a local path, fp16, auto."""
    response = embedded.post_path(str(ENDGAME), precision="fp16", language="auto")
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_default_request_of_the_host_returns_speakers_times_and_text(
    conversation: dict[str, Any],
) -> None:
    check_host_can_parse(conversation)
    assert conversation["metadata"]["num_speakers"] == 2
    assert conversation["metadata"]["engine"] == "moonshine"
    said = [(segment["speaker"], segment["text"]) for segment in conversation["segments"]]
    assert said[0] == ("Speaker_0", "Do you hear me?")
    assert said[1] == ("Speaker_1", "Yes.")


def test_precision_that_the_engine_lacks_is_substituted_with_a_warning(
    conversation: dict[str, Any],
) -> None:
    assert conversation["metadata"]["model_precision"] == "int8"
    (warning,) = conversation["metadata"]["warnings"]
    assert warning["code"] == "precision_substituted"
    assert "fp16" in warning["message"]
    assert "int8" in warning["message"]


def test_transcript_without_diarization_has_one_nominal_speaker(embedded: Server) -> None:
    body = embedded.post(BECKETT.read_bytes(), diarize="false").json()
    check_host_can_parse(body)
    assert {segment["speaker"] for segment in body["segments"]} == {"Speaker_0"}
    assert body["metadata"]["diarized"] is False
    assert "ever tried" in " ".join(s["text"] for s in body["segments"]).lower()


def test_silence_succeeds_without_segments(embedded: Server) -> None:
    body = embedded.post(wav(bytes(160_000))).json()
    assert body["status"] == "success"
    assert body["segments"] == []
    assert body["metadata"]["no_speech"] is True
    assert body["metadata"]["num_speakers"] == 0


def test_language_that_the_engine_lacks_is_refused_with_those_it_knows(embedded: Server) -> None:
    for language in ("auto", "en", "en-GB"):
        assert embedded.post(wav(bytes(32_000)), language=language).status_code == 200
    problem = embedded.post(wav(bytes(32_000)), language="de")
    check_problem(problem, 422, "language_unsupported")
    assert "It knows: en" in problem.json()["hint"]


def test_reload_at_a_precision_that_the_engine_lacks_is_refused_and_changes_nothing(
    embedded: Server,
) -> None:
    before = embedded.health()["worker_pid"]
    problem = embedded.client.post("/reload-model", json={"precision": "fp16"})
    check_problem(problem, 422, "precision_unavailable")
    assert "int8" in problem.json()["hint"]
    unknown = embedded.client.post("/reload-model", json={"precision": "fp13"})
    check_problem(unknown, 422, "precision_unknown")
    assert embedded.health()["worker_pid"] == before


def test_reload_replaces_the_worker_process_of_the_engine(embedded: Server) -> None:
    before = embedded.health()["worker_pid"]
    answer = embedded.client.post("/reload-model", json={"precision": "int8"})
    assert answer.status_code == 200
    assert answer.json() == {"status": "success", "message": "Model reloaded with precision: int8"}
    health = embedded.health()
    assert health["model_loaded"] is True
    assert health["worker_pid"] != before


def test_reload_while_a_job_runs_and_others_wait_loses_none_and_ends_the_worker(
    start_server: StartServer, tmp_path: Path
) -> None:
    hold = new_file(tmp_path / "hold", b"")
    server = start_server(scripted_hold=hold)
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(server.post, silence(2 + number)) for number in range(4)]
        wait_until(lambda: server.health()["jobs_waiting"] == 3, "one runs and the others wait")
        pid = wait_until(lambda: server.health()["worker_pid"], "its engine is loaded")
        worker = psutil.Process(pid)
        body = {"precision": "int8"}
        reload = pool.submit(server.client.post, "/reload-model", json=body)
        sent += [pool.submit(server.post, silence(9)) for _ in range(2)]
        hold.unlink()
        assert reload.result().status_code == 200, reload.result().text
        answers = [one.result() for one in sent]
    assert [one.status_code for one in answers] == [200] * 6
    assert [len(one.json()["segments"]) for one in answers] == [2, 3, 4, 5, 9, 9]
    assert answers[-1].json()["metadata"]["model_precision"] == "int8"
    wait_for_ends([worker])


def test_ndjson_answer_has_each_segment_and_last_the_transcript_or_an_error(
    server: Server, voice: bytes
) -> None:
    whole = server.post(voice).json()
    headers = {"Accept": "application/json;q=0.5, Application/X-NDJSON"}
    answer = server.client.post("/transcribe", files={"audio": voice}, headers=headers)
    assert answer.headers["content-type"] == "application/x-ndjson"
    *said, last = [json.loads(line) for line in answer.text.splitlines() if line]
    assert [one["segment"] for one in said] == whole["segments"] != []
    assert last["result"]["segments"] == whole["segments"]
    assert last["result"]["metadata"].keys() == whole["metadata"].keys()
    empty = server.client.post("/transcribe", files={"audio": b""}, headers=headers)
    check_problem(empty, 400, "audio_empty")
    failed = json.loads(transcribe_routes.error_line(errors.EngineCrashed()))["failed"]
    assert (failed["status"], failed["code"], failed["retry_after"]) == (503, "engine_crashed", "1")
