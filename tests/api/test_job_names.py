"""A job is called as its file is: in lists, in exports, and after a restart."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from recordings import wav
from service_process import Server

from sidecar.api.http.upload import MAX_FILE_NAME_CHARACTERS, file_name
from sidecar.transcripts.transcript_formats import FORMATS

VOICE = wav(b"\1\0" * 16_000)
NAME = "Köln – Team 会议.m4a"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (NAME, NAME),
        ("", ""),
        ("C:\\fakepath\\talk.wav", "talk.wav"),
        ("../../etc/talk.wav", "talk.wav"),
        ("a\0b\r\nc\u202e.wav", "abc.wav"),
        ("می\u200cخواهم.wav", "می\u200cخواهم.wav"),
        ("x" * 300 + ".wav", "x" * (MAX_FILE_NAME_CHARACTERS - 4) + ".wav"),
    ],
)
def test_file_name_of_a_client_is_shown_without_folders_and_control_characters(
    sent: str, shown: str
) -> None:
    assert file_name(sent) == shown


def submitted(server: Server, **how: Any) -> str:
    response = server.client.post("/v1/jobs", **how)
    assert response.status_code == 202, response.text
    job_id = str(response.json()["id"])
    server.wait_state(job_id, "done")
    return job_id


def uploaded_as(server: Server, name: str) -> str:
    return submitted(server, files={"audio": (name, VOICE)})


def saved_as(response: httpx.Response) -> str:
    """Return the name that a browser gives the file."""
    assert response.status_code == 200
    _, _, encoded = response.headers["content-disposition"].partition("filename*=UTF-8''")
    return unquote(encoded)


def test_job_has_the_name_of_its_file_in_lists_and_exports_also_after_a_restart(
    tmp_path: Path,
) -> None:
    kept = {"keep_jobs": 1, "data_dir": tmp_path, "journal_key": "0f" * 32, "keep_recordings_mb": 9}
    with Server(tmp_path / "first", **kept) as server:
        job_id = uploaded_as(server, NAME)
    with Server(tmp_path / "second", **kept) as server:
        assert server.job(job_id)["name"] == NAME
        assert [one["name"] for one in server.client.get("/v1/jobs").json()["jobs"]] == [NAME]
        path = f"/v1/jobs/{job_id}"
        srt = server.client.get(f"{path}/transcript", params={"format": "srt"})
        assert saved_as(srt) == "Köln – Team 会议.srt"
        assert saved_as(server.client.get(f"{path}/audio")) == "Köln – Team 会议.wav"
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"Team" not in stored


def test_job_of_a_path_has_its_last_part_and_one_without_a_name_has_none(
    start_server: Any, tmp_path: Path
) -> None:
    server = start_server()
    recording = tmp_path / "By path.wav"
    recording.write_bytes(VOICE)
    job_id = submitted(server, json={"audio_path": str(recording)})
    assert server.job(job_id)["name"] == "By path.wav"
    nameless = submitted(server, files={"audio": (None, VOICE)})
    assert "name" not in server.job(nameless)
    for fmt in FORMATS:
        answer = server.client.get(f"/v1/jobs/{nameless}/transcript", params={"format": fmt})
        assert "filename*" not in answer.headers["content-disposition"]
