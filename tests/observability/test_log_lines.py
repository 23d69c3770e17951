"""Lines of the log: as JSON, and those that clients cause, once in a while and bounded."""

import json
import logging
import logging.handlers
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from s2s_client import Page
from service_process import Server, StartServer, new_file, run_command, wait_until
from systems import IN_WINDOWS
from vibevoice_asr_client import Client, codes
from windows_processes import READ, WRITE, opened_elsewhere

from sidecar.api.http import error_responses
from sidecar.config.settings import Settings
from sidecar.observability.logs import (
    MAX_LOG_FILE_BYTES,
    claim_log_file,
    rotating_file_handler,
)
from sidecar.server.app import create_app
from sidecar.workers.crash_notes import CrashNotes

TOKEN = "a word that nobody guesses"


@contextmanager
def append_only(file: Path) -> Iterator[None]:
    """Let nobody read a file: root by its attributes, since no mode keeps root from it."""
    if os.geteuid() != 0:
        file.chmod(0o200)
        yield
        file.chmod(0o600)
        return
    if subprocess.run(["chattr", "+a", file], capture_output=True, check=False).returncode:
        pytest.skip("this file system, or this container, has no append-only files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-a", file], check=True)


LOG_OF_A_MOMENT = """
import logging, time
from sidecar.observability.logs import JsonFormatter
assert time.localtime(0).tm_hour == 5
record = logging.LogRecord("sidecar", logging.INFO, "", 0, "ready", None, None)
record.created = 1795429894.056
print(JsonFormatter().format(record))
"""
CRASH_NOTE = """
import sys
from pathlib import Path
from sidecar.workers.crash_notes import CrashNotes
print(CrashNotes(Path(sys.argv[1])).write("engine", {}))
"""


def printed_in(zone: str, code: str, *words: object) -> str:
    """What a process of this time zone prints. Windows knows names of three letters."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = run_command(command, env={**os.environ, "TZ": zone}, encoding="utf-8", check=True)
    return str(done.stdout).strip()


def test_log_time_is_utc_in_every_time_zone() -> None:
    line = json.loads(printed_in("IST-5:30", LOG_OF_A_MOMENT))
    assert line["time"] == "2026-11-23T10:31:34.056Z"


def test_crash_notes_sort_by_age_though_the_time_zone_of_the_machine_changes(
    tmp_path: Path,
) -> None:
    """As on a journey, and on the night on which the clocks are put back."""
    written = [Path(printed_in(zone, CRASH_NOTE, tmp_path)) for zone in ("AAA-12", "BBB12")]
    assert CrashNotes(tmp_path).notes() == written
    assert [json.loads(note.read_text("utf-8"))["time"][-1] for note in written] == ["Z", "Z"]


def the_line(server: Server, part: str) -> str:
    """The only line of its log that has ``part``, once it is written."""
    (found,) = wait_until(lambda: lines(server, part), part)
    return str(found)


def lines(server: Server, part: str) -> list[str]:
    """The lines of its log that have ``part``."""
    return [line for line in server.log().splitlines() if part in line]


def test_refused_origins_are_logged_once_as_a_short_ascii_warning(
    start_server: StartServer,
) -> None:
    server = start_server()
    for tail in (".org/" + "\u2028" * 100, "again"):
        page = {"Origin": f"http://elsewhere.example{tail}".encode()}
        assert server.client.get("/health", headers=page).status_code == 403
    server.client.get("/health")
    line = the_line(server, "allowed_origins")
    assert "'http://elsewhere.example.org/" in line
    assert line.isascii()
    assert len(line) < 1000
    assert " - WARNING - " in line


def test_refused_live_sessions_are_one_log_line_that_names_the_setting(
    start_server: StartServer,
) -> None:
    server = start_server(live_sessions=1)
    with Client(f"http://127.0.0.1:{server.port}") as client, client.live():
        for _ in range(3):
            with pytest.raises(codes.LiveFull) as full, client.live():
                pass
            assert "live_sessions" in full.value.hint
    line = the_line(server, "live_full")
    assert "live_sessions" in line


async def test_log_names_the_llm_and_the_error_of_a_failed_turn_without_its_text(
    start_server: StartServer,
) -> None:
    server = start_server(llm="http://127.0.0.1:9", llm_model="little", voice_engine="scripted")
    line = the_line(server, "LLM: ")
    assert "little at http://127.0.0.1:9" in line
    async with Page(server) as page:
        for text in ("How are you?", "Are you there?"):
            await page.send(type="text", text=text)
            await page.until("error")
            await page.send(type="reset")  # nobody has to hear the whole apology
            await page.until("status", state="ready")
    line = the_line(server, "a turn of a conversation")
    assert " - WARNING - " in line
    assert "llm_unreachable" in line
    assert not lines(server, "HTTP Request")
    assert "How are you" not in server.log()


def test_logged_address_has_no_text_of_the_client() -> None:
    for host in ("::1%x answered token_invalid to 198.51.100.7", "::1"):
        assert error_responses.address_in_log(host) == "::1"
    assert error_responses.address_in_log("somebody") == "an unknown address"


async def test_address_is_parsed_and_logged_with_the_route_only_for_requests_refused_with_401(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind `uvicorn --root-path /speech`."""
    parsed: list[str] = []
    monkeypatch.setattr(error_responses, "address_in_log", lambda host: parsed.append(host) or host)
    app = create_app(Settings(engine="scripted", token=TOKEN))
    caplog.set_level(logging.INFO)
    way = httpx.ASGITransport(app, root_path="/speech", client=("127.0.0.1", 40_000))
    async with httpx.AsyncClient(transport=way, base_url="http://localhost") as client:
        assert (await client.get("/speech/v1/jobs/of-somebody")).status_code == 401
        assert parsed == ["127.0.0.1"]
        await client.get("/speech/nowhere", headers={"Authorization": "Bearer " + TOKEN})
        assert parsed == ["127.0.0.1"]
        for path in ("/v1/jobs", "/v1/models", "/v1/transcribe", "/admin/load_model"):
            guess = {"Authorization": "Bearer a guess"}
            assert (await client.post("/speech" + path, headers=guess)).status_code == 401
            assert f" to 127.0.0.1, POST {path}, request " in caplog.text
    assert " to 127.0.0.1, GET /v1/jobs/{job_id}, request " in caplog.text


@pytest.mark.posix("permissions of POSIX")
def test_append_only_file_works_as_log_file(tmp_path: Path) -> None:
    """Such as one that `chattr +a` protects, or that may only be written."""
    file = new_file(tmp_path / "asr.log", "before\n")
    with append_only(file):
        handler = rotating_file_handler(file)
        handler.emit(logging.makeLogRecord({"msg": "a line"}))
        handler.close()
    assert file.read_text("utf-8") == "before\na line\n"


@pytest.mark.posix("permissions of POSIX")
def test_log_rotated_logs_and_crash_notes_have_mode_0600(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        handler = rotating_file_handler(tmp_path / "log/vibevoice-asr-0.log")
        assert isinstance(handler, logging.handlers.RotatingFileHandler)
        handler.emit(logging.makeLogRecord({"msg": "a line"}))
        handler.doRollover()
        handler.close()
        assert CrashNotes(tmp_path).write("engine", {"exit_code": 1}) is not None
    finally:
        os.umask(before)
    found = {path.parent.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*/*")}
    assert len(list(tmp_path.glob("log/*"))) == 2
    assert found == {"log": 0o600, "crash": 0o600}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.glob("*/*"))


def line(number: int) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": f"line {number} " + "-" * 100})


def test_log_file_that_cannot_be_renamed_keeps_all_lines_and_older_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "asr.log"
    handler = rotating_file_handler(file)
    (tmp_path / "asr.log.1").write_text("older", "utf-8")

    def denied(*_: object) -> None:  # as on Windows, while another process has the file open
        raise PermissionError(13, "used by another process")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", denied)
        many = 2 * MAX_LOG_FILE_BYTES // 100
        for number in range(many):
            handler.emit(line(number))
    handler.close()
    assert file.read_text("utf-8").count("line ") == many
    assert {path.name for path in tmp_path.iterdir()} == {"asr.log", "asr.log.1"}
    assert (tmp_path / "asr.log.1").read_text("utf-8") == "older"


@pytest.mark.skipif(not IN_WINDOWS, reason="elsewhere an open file can be renamed")
def test_log_file_that_another_program_has_open_is_rotated_once_that_closes_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "asr.log"
    handler = rotating_file_handler(file)
    assert isinstance(handler, logging.handlers.RotatingFileHandler)
    handler.emit(line(0))
    with opened_elsewhere(file, READ | WRITE):
        handler.doRollover()
        handler.emit(line(1))
        assert [one.name for one in tmp_path.iterdir()] == ["asr.log"]
    handler.doRollover()
    handler.emit(line(2))
    handler.close()
    said = {one.name: re.findall(r"line \d", one.read_text("utf-8")) for one in tmp_path.iterdir()}
    assert said == {"asr.log": ["line 2"], "asr.log.1": ["line 0", "line 1"]}


@pytest.mark.parametrize("busy", ["asr.log", "asr.log.1", "asr.log.2", "asr.log.3"])
def test_rotation_while_one_of_the_files_is_open_elsewhere_loses_no_line_and_goes_on_later(
    tmp_path: Path, busy: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = rotating_file_handler(tmp_path / "asr.log")
    assert isinstance(handler, logging.handlers.RotatingFileHandler)
    for number in range(3):
        handler.emit(line(number))
        handler.doRollover()
    replace = os.replace

    def denied(old: str, new: str) -> None:
        if busy in (Path(old).name, Path(new).name):
            raise PermissionError(13, "used by another process")
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", denied)
        patch.setattr(os, "rename", denied)
        for number in (3, 4):
            handler.emit(line(number))
            handler.doRollover()
    handler.doRollover()
    handler.close()
    found = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    kept = [text[:6] for name in sorted(found) for text in found[name].splitlines()]
    assert kept == ["line 3", "line 4", "line 2", "line 1"]
    assert set(found) == {"asr.log", "asr.log.1", "asr.log.2", "asr.log.3"}
    assert capfd.readouterr().err == ""


def test_crash_notes_of_the_same_step_of_the_clock_are_all_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Windows has steps of 15 ms, in which more than one worker may end."""
    monkeypatch.setattr("time.monotonic_ns", lambda: 15_625_000)
    monkeypatch.setattr("sidecar.clock.wall_time", lambda: 15.625)
    notes = CrashNotes(tmp_path)
    assert None not in {notes.write("engine", {"exit_code": code}) for code in range(3)}
    assert len(notes.notes()) == 3


def test_log_files_rotate_and_the_oldest_is_deleted(tmp_path: Path) -> None:
    handler = rotating_file_handler(tmp_path / "asr.log")
    assert isinstance(handler, logging.handlers.RotatingFileHandler)
    for number in range(6):
        handler.emit(line(number))
        handler.doRollover()
    handler.close()
    said = {path.name: path.read_text("utf-8")[:6] for path in tmp_path.iterdir()}
    assert said == {
        "asr.log": "", "asr.log.1": "line 5", "asr.log.2": "line 4", "asr.log.3": "line 3",
    }  # fmt: skip


def test_each_process_has_a_log_file_of_its_own_and_takes_that_of_one_that_has_ended(
    tmp_path: Path,
) -> None:
    file = tmp_path / "log/vibevoice-asr-0.log"
    first, keeper = claim_log_file(file)
    assert keeper is not None
    second, other = claim_log_file(file)
    assert other is not None
    assert (first, second) == (file, tmp_path / "log/vibevoice-asr-0-2.log")
    keeper.close()
    assert claim_log_file(file)[0] == file, "the process has ended"
    other.close()
