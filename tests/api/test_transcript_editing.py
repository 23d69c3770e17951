"""`PATCH /v1/jobs/{id}/transcript` against a real service: edited, undone, kept, nobody else's."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from not_tested import missing
from service_process import REPOSITORY, Server, check_problem, told_by
from sse_reader import events_of
from vibevoice_asr_client import Client
from vibevoice_asr_client.codes import TranscriptChanged

from sidecar.transcripts.transcript_formats import FORMATS


@pytest.fixture
def job_id(server: Server, voice: bytes) -> Iterator[str]:
    """A job that is done: three segments."""
    answer = server.client.post("/v1/jobs", files={"audio": ("a.wav", voice)})
    made = str(answer.raise_for_status().json()["id"])
    server.wait_state(made, "done")
    yield made
    server.client.delete(f"/v1/jobs/{made}")


def edit(
    server: Server, job_id: str, *operations: dict[str, Any], **headers: str
) -> httpx.Response:
    path, body = f"/v1/jobs/{job_id}/transcript", {"operations": [*operations]}
    return server.client.patch(path, json=body, headers=headers)


def rename(speaker: str, name: str | None) -> dict[str, Any]:
    return {"op": "rename", "speaker": speaker, "name": name}


def shown(server: Server, job_id: str, fmt: str = "json") -> httpx.Response:
    return server.client.get(f"/v1/jobs/{job_id}/transcript", params={"format": fmt})


@pytest.mark.anywhere
def test_every_format_history_and_event_stream_show_edits_and_their_undo(
    server: Server, job_id: str
) -> None:
    formats = tuple(FORMATS)
    before = {fmt: shown(server, job_id, fmt).text for fmt in formats}
    was = json.loads(before["json"])["segments"]
    answer = edit(
        server,
        job_id,
        {"op": "split", "segments": [2], "name": "Nell"},
        rename("Speaker_0", "Old Nagg"),
        {"op": "text", "segment": 1, "text": "In other words."},
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["revision"], body["undo"], body["redo"]) == (1, 1, 0)
    assert answer.headers["etag"] == '"1"'
    new = max(int(one["speaker"].removeprefix("Speaker_")) for one in was) + 1
    assert {"speaker": f"Speaker_{new}", "name": "Nell"} in body["speakers"]
    after = {fmt: shown(server, job_id, fmt).text for fmt in formats}
    for fmt in formats:
        assert after[fmt] != before[fmt], fmt
    segments = json.loads(after["json"])["segments"]
    assert {one["index"]: one["segment"] for one in body["segments"]} == {
        at: one for at, one in enumerate(segments) if one != was[at]
    }
    assert segments[1]["text"] == "In other words."
    assert (segments[2]["speaker"], segments[2]["name"]) == (f"Speaker_{new}", "Nell")
    for fmt in ("text", "srt", "vtt", "tsv"):
        assert "Nell" in after[fmt]
        assert "In other words." in after[fmt]
    assert f"Speaker_{new}" in after["rttm"]
    assert server.job(job_id)["revision"] == 1

    assert edit(server, job_id, {"op": "undo"}).json()["redo"] == 1
    assert {fmt: shown(server, job_id, fmt).text for fmt in formats} == before
    assert edit(server, job_id, {"op": "redo"}).json()["revision"] == 3
    assert {fmt: shown(server, job_id, fmt).text for fmt in formats} == after

    history = server.client.get(f"/v1/jobs/{job_id}/transcript/history").json()
    assert (history["revision"], history["first"]) == (3, 0)
    (entry,) = history["entries"]
    assert [one["op"] for one in entry["operations"]] == ["split", "rename", "text"]
    assert entry["undone"] is False
    events = [event.name for event in events_of(server, job_id)]
    assert events[-4:] == ["done", "edited", "edited", "edited"], "and then the stream ends"


@pytest.mark.anywhere
def test_edit_of_a_revision_that_is_not_in_its_if_match_header_returns_412(
    server: Server, job_id: str
) -> None:
    tag = shown(server, job_id).headers["etag"]
    assert tag == '"0"'
    assert edit(server, job_id, rename("Speaker_0", "Nagg"), **{"If-Match": tag}).is_success
    late = edit(server, job_id, rename("Speaker_0", "Nell"), **{"If-Match": tag})
    check_problem(late, 412, "transcript_changed")
    for fine in ('"0", W/"1"', '"another",, "1" ,', "*"):
        assert edit(server, job_id, rename("Speaker_0", "Nagg"), **{"If-Match": fine}).is_success
    assert shown(server, job_id).headers["etag"] == '"1"', "what changes nothing is no revision"


@pytest.mark.anywhere
def test_deletion_of_a_revision_that_is_not_in_its_if_match_header_returns_412_and_keeps_the_job(
    server: Server, job_id: str
) -> None:
    path, seen = f"/v1/jobs/{job_id}", {"If-Match": shown(server, job_id).headers["etag"]}
    edit(server, job_id, rename("Speaker_0", "Nagg")).raise_for_status()  # by another person
    check_problem(server.client.delete(path, headers=seen), 412, "transcript_changed")
    assert shown(server, job_id).json()["segments"][0]["name"] == "Nagg"
    check_problem(server.client.delete(path, headers={"If-Match": "1"}), 422, "field_invalid")
    now = {"If-Match": shown(server, job_id).headers["etag"]}
    assert server.client.delete(path, headers=now).status_code == 204
    assert server.client.get(path).status_code == 404


@pytest.mark.anywhere
def test_transcript_whose_etag_is_in_if_none_match_returns_304_without_a_body(
    server: Server, job_id: str
) -> None:
    edit(server, job_id, rename("Speaker_0", "Nagg")).raise_for_status()
    path = f"/v1/jobs/{job_id}/transcript"
    for known in ('"1"', "*"):
        same = server.client.get(path, headers={"If-None-Match": known})
        assert (same.status_code, same.content) == (304, b""), known
    assert server.client.get(path, headers={"If-None-Match": '"0"'}).status_code == 200


@pytest.mark.anywhere
def test_malformed_etag_in_if_match_or_if_none_match_is_refused(
    server: Server, job_id: str
) -> None:
    path = f"/v1/jobs/{job_id}/transcript"
    for header, method in (("If-Match", "PATCH"), ("If-None-Match", "GET")):
        body = {"operations": [{"op": "undo"}]} if method == "PATCH" else None
        for no_tag in ("1", '"1" "2"', '"1", 2', ",,", '"' + "1" * 41 + '"'):
            wrong = server.client.request(method, path, json=body, headers={header: no_tag})
            check_problem(wrong, 422, "field_invalid")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 400, "json_invalid"),
        (b"{}", 422, "field_missing"),
        (b'{"operations": []}', 422, "field_invalid"),
        (b'{"operations": [{"op": "undo"}], "force": true}', 422, "field_invalid"),
        (b'{"operations": [{"op": "undo"}]}', 422, "edit_impossible"),
        (b'{"operations": [{"op": "redo"}]}', 422, "edit_impossible"),
        (b'{"operations": [{"op": "text", "segment": 99, "text": "x"}]}', 422, "edit_impossible"),
        (b'{"operations": [{"op": "move", "segments": [0]}]}', 422, "field_missing"),
        (b'{"operations": "' + b"x" * (64 << 10) + b'"}', 413, "json_too_large"),
    ],
)
@pytest.mark.anywhere
def test_invalid_edit_is_refused_with_the_reason_and_changes_nothing(
    server: Server, job_id: str, body: bytes, status: int, code: str
) -> None:
    path, kind = f"/v1/jobs/{job_id}/transcript", {"Content-Type": "application/json"}
    check_problem(server.client.patch(path, content=body, headers=kind), status, code)
    half = [rename("Speaker_0", "Nagg"), {"op": "text", "segment": 99, "text": "x"}]
    check_problem(edit(server, job_id, *half), 422, "edit_impossible")
    assert shown(server, job_id).headers["etag"] == '"0"'
    assert "name" not in shown(server, job_id).json()["segments"][0]


def test_split_by_voice_without_stored_voices_is_refused(server: Server, job_id: str) -> None:
    asked = {"op": "split_speaker", "speaker": "Speaker_0"}
    check_problem(edit(server, job_id, asked), 409, "voices_not_kept")
    check_problem(edit(server, job_id, {**asked, "speaker": "Speaker_9"}), 422, "edit_impossible")
    for wrong in ({"into": 1}, {"into": True}, {"into": 11}, {"segments": [0]}):
        check_problem(edit(server, job_id, {**asked, **wrong}), 422, "field_invalid")
    assert server.client.get(f"/v1/jobs/{job_id}").json()["revision"] == 0


def test_edit_without_json_or_of_an_unknown_job_and_invalid_history_are_refused(
    server: Server, job_id: str
) -> None:
    path = f"/v1/jobs/{job_id}/transcript"
    check_problem(
        server.client.patch(path, data={"operations": "undo"}), 415, "content_type_unsupported"
    )
    check_problem(edit(server, "nobody-s", {"op": "undo"}), 404, "job_not_found")
    check_problem(server.client.get("/v1/jobs/nobody-s/transcript/history"), 404, "job_not_found")
    limit = server.client.get(f"{path}/history", params={"limit": 1001})
    check_problem(limit, 422, "field_invalid")


@pytest.mark.anywhere
def test_python_client_edits_a_transcript_and_raises_at_a_conflict(
    server: Server, job_id: str
) -> None:
    with closing(Client(str(server.client.base_url))) as client:
        first = client.edit(job_id, [rename("Speaker_0", "Nell")], revision=0)
        assert first["revision"] == 1
        with pytest.raises(TranscriptChanged):
            client.edit(job_id, [{"op": "undo"}], revision=0)
        assert client.history(job_id)["entries"][0]["operations"] == [rename("Speaker_0", "Nell")]
        assert "Nell" in client.transcript(job_id, "srt")


@pytest.mark.posix("programs for Linux")
@pytest.mark.skipif(shutil.which("curl") is None, reason=missing("curl", "curl"))
@pytest.mark.anywhere
def test_curl_commands_in_the_editing_docs_succeed_and_name_a_speaker(
    server: Server, job_id: str
) -> None:
    page = (REPOSITORY / "docs/editing.md").read_text("utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    here = block.replace("http://127.0.0.1:8765", str(server.client.base_url).rstrip("/"))
    script = "set -e\n" + here.replace("curl ", "curl -sS --fail-with-body ")
    done = told_by(["sh", "-c", script], env={"PATH": "/usr/bin:/bin", "ID": job_id})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nell: " in done.stdout
    assert shown(server, job_id).headers["etag"] == '"4"'
