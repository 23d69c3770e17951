"""`audio_path` on Windows: each spelling of a file is transcribed, all else has a clear code."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from service_process import Server, StartServer, check_problem, new_file, wait_until
from systems import IN_WINDOWS
from windows_processes import READ, opened_elsewhere

pytestmark = pytest.mark.skipif(not IN_WINDOWS, reason="paths of Windows")

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "with slashes": lambda path: path.replace("\\", "/"),
    "in small letters": str.lower,
    "in its long form": lambda path: f"\\\\?\\{path}",
    "with a trailing dot": lambda path: f"{path}.",
    "with a trailing space": lambda path: f"{path} ",
    "by way of its parent": lambda path: (
        f"{Path(path).parent}\\..\\{Path(path).parent.name}\\voice.wav"
    ),
}
NAMES = "Grüße an Müller.wav", "🎤 Aufnahme.wav", "100 % & ^(sure) ‮vaw.exe", "-i.wav", "日本語.wav"
INVALID, NOT_A_FILE, NOT_FOUND = (
    (422, "audio_path_invalid"),
    (422, "audio_path_not_a_file"),
    (404, "audio_path_not_found"),
)
NO_FILE: dict[str, tuple[str, tuple[int, str]]] = {
    "of the current folder of a drive": ("{drive}voice.wav", INVALID),
    "of the current drive": ("{rooted}", INVALID),
    "of another machine": ("\\\\server\\share\\voice.wav", INVALID),
    "of this machine's share": ("\\\\localhost\\c$\\voice.wav", INVALID),
    "of another machine in long form": ("\\\\?\\UNC\\server\\share\\voice.wav", INVALID),
    "of a raw device": ("\\\\.\\PhysicalDrive0", INVALID),
    "of a pipe": ("\\\\.\\pipe\\voice", INVALID),
    "console": ("{folder}\\CON", NOT_A_FILE),
    "console in small letters": ("{folder}\\con.wav", NOT_A_FILE),
    "nothing": ("{folder}\\NUL", NOT_A_FILE),
    "nothing with an ending": ("{folder}\\NUL.wav", NOT_A_FILE),
    "serial port": ("{folder}\\COM1", NOT_A_FILE),
    "printer": ("{folder}\\LPT1", NOT_A_FILE),
    "folder": ("{folder}", NOT_A_FILE),
    "folder with an end": ("{folder}\\", NOT_A_FILE),
    "drive": ("{drive}\\", NOT_A_FILE),
    "drive that is not there": ("Q:\\voice.wav", NOT_FOUND),
    "below a file": ("{folder}\\voice.wav\\voice.wav", NOT_FOUND),
    "missing": ("{folder}\\missing.wav", NOT_FOUND),
    "wildcard": ("{folder}\\v*.wav", INVALID),
    "question": ("{folder}\\voice?.wav", INVALID),
    "angle brackets": ("{folder}\\<voice>.wav", INVALID),
}


@pytest.fixture
def recording(tmp_path: Path, voice: bytes) -> Path:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_file_is_transcribed_in_any_spelling_of_its_path(
    spelling: str, server: Server, recording: Path
) -> None:
    response = server.post_path(SPELLINGS[spelling](str(recording)))
    assert response.status_code == 200, response.text[:500]
    assert response.json()["segments"]


@pytest.mark.parametrize("name", NAMES)
def test_file_of_any_name_that_windows_takes_is_transcribed(
    name: str, server: Server, recording: Path
) -> None:
    named = recording.rename(recording.with_name(name))
    response = server.post_path(str(named))
    assert response.status_code == 200, response.text[:500]


@pytest.mark.parametrize("prefix", ["", "\\\\?\\"], ids=["usual", "long form"])
def test_path_of_300_characters_is_transcribed(
    prefix: str, server: Server, recording: Path
) -> None:
    folder = recording.parent
    while len(str(folder)) < 290:
        folder /= "folder-of-a-name-as-long-as-that"
        os.mkdir(f"\\\\?\\{folder}")
    os.rename(recording, f"\\\\?\\{folder / recording.name}")
    response = server.post_path(f"{prefix}{folder / recording.name}")
    assert response.status_code == 200, response.text[:500]


@pytest.mark.parametrize("name", NO_FILE)
def test_path_of_no_file_is_refused_with_the_code_of_its_kind(
    name: str, server: Server, recording: Path
) -> None:
    pattern, refusal = NO_FILE[name]
    drive, rooted = os.path.splitdrive(str(recording))
    path = pattern.format(folder=recording.parent, drive=drive, rooted=rooted)
    check_problem(server.post_path(path), *refusal)


def test_file_that_a_host_deletes_while_it_is_transcribed_is_gone_after_that(
    start_server: StartServer, recording: Path, tmp_path: Path
) -> None:
    hold = new_file(tmp_path / "hold", b"")
    server = start_server(scripted_hold=hold)
    sent = {"json": {"audio_path": str(recording)}, "headers": {"Prefer": "respond-async"}}
    job_id = server.client.post("/transcribe", **sent).json()["id"]
    server.wait_state(job_id, "running")
    recording.unlink()
    hold.unlink()
    server.wait_state(job_id, "done")
    wait_until(lambda: not recording.exists(), "nobody has the file open")


def test_file_that_another_program_still_writes_is_transcribed_once_it_lets_others_read(
    server: Server, recording: Path
) -> None:
    with opened_elsewhere(recording, 0):
        refused = server.post_path(str(recording))
        check_problem(refused, 403, "audio_path_forbidden")
        assert "Another program" in refused.json()["detail"]
    with opened_elsewhere(recording, READ):
        assert server.post_path(str(recording)).json()["segments"]
