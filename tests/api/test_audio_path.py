"""`audio_path`: a caller's words about a file of ours, read as data and nothing else."""

import hashlib
import os
import socket
from pathlib import Path

import pytest
from recordings import SECONDS, Studio
from service_process import Server, StartServer, check_problem, counting_listener

INVALID = (422, "audio_path_invalid")
NOT_A_FILE = (422, "audio_path_not_a_file")
NOT_FOUND = (404, "audio_path_not_found")

NOT_A_PATH: tuple[object, ...] = (
    *("voice.wav", "../voice.wav", "~/voice.wav", "", " ", "/tmp/voice.wav\0.txt"),
    *("http://127.0.0.1/voice.wav", "https://127.0.0.1/voice.wav", "file:///etc/hostname"),
    *("concat:/etc/hostname|/etc/passwd", "subfile,,start,0,end,9,,:/etc/hostname", "pipe:0"),
    *("data:audio/wav;base64,UklGRg==", "\\\\server\\share\\voice.wav", "-i"),
    *(["C:\\voice.wav"] if os.name == "posix" else []),
    *("/" + "a" * 5000, 7, True, None, ["/etc/hostname"], {"path": "/etc/hostname"}),
)

NO_FILE: dict[str, tuple[str, tuple[int, str]]] = {
    "missing": ("/no/such/folder/voice.wav", NOT_FOUND),
    "below-a-file": ("/etc/hostname/voice.wav", NOT_FOUND),
    "root": ("/", NOT_A_FILE),
    "directory": ("/etc", NOT_A_FILE),
    "dev-zero": ("/dev/zero", NOT_A_FILE),
    "dev-null": ("/dev/null", NOT_A_FILE),
    "dev-random": ("/dev/urandom", NOT_A_FILE),
    "dev-fd": ("/dev/fd", NOT_A_FILE),
    "environment": ("/proc/self/environ", NOT_A_FILE),
    "proc-version": ("/proc/version", NOT_A_FILE),
    "kernel-messages": ("/proc/kmsg", NOT_A_FILE),
    "sys": ("/sys/kernel/uevent_seqnum", NOT_A_FILE),
}


@pytest.mark.parametrize("path", NOT_A_PATH, ids=lambda path: repr(path)[:50])
def test_audio_path_that_is_no_absolute_local_path_is_refused_as_invalid(
    path: object, server: Server
) -> None:
    check_problem(server.post_path(path), *INVALID)


@pytest.mark.posix("files of POSIX")
@pytest.mark.parametrize("name", NO_FILE)
def test_path_of_no_regular_file_is_refused_as_missing_or_not_a_file_without_naming_it(
    name: str, server: Server
) -> None:
    path, (status, code) = NO_FILE[name]
    if code == "audio_path_not_a_file" and not os.path.exists(path):
        pytest.skip(f"this machine has no {path}")
    response = server.post_path(path)
    check_problem(response, status, code)
    assert path not in response.text or path == "/"


def test_url_as_audio_path_is_refused_and_not_fetched(server: Server) -> None:
    with counting_listener() as (port, visits):
        check_problem(server.post_path(f"http://127.0.0.1:{port}/voice.wav"), *INVALID)
    assert visits == []


@pytest.mark.posix("pipes of POSIX")
def test_pipe_and_socket_are_refused_without_being_opened(server: Server, tmp_path: Path) -> None:
    """Nobody writes to them: whoever opened one would wait, and say that the disk hangs."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("fifo", "socket"):
            check_problem(server.post_path(str(tmp_path / name)), *NOT_A_FILE)


@pytest.mark.posix("symbolic links")
def test_symbolic_link_as_audio_path_is_accepted_or_refused_by_its_target(
    server: Server, voice: bytes, tmp_path: Path
) -> None:
    (tmp_path / "real.wav").write_bytes(voice)
    (tmp_path / "good").symlink_to("real.wav")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "kernel").symlink_to("/proc/version")
    assert server.post_path(str(tmp_path / "good")).status_code == 200
    check_problem(server.post_path(str(tmp_path / "dangling")), *NOT_FOUND)
    check_problem(server.post_path(str(tmp_path / "loop")), *INVALID)
    check_problem(server.post_path(str(tmp_path / "device")), *NOT_A_FILE)
    check_problem(server.post_path(str(tmp_path / "kernel")), *NOT_A_FILE)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_as_audio_path_returns_403(
    server: Server, voice: bytes, tmp_path: Path
) -> None:
    (tmp_path / "secret.wav").write_bytes(voice)
    (tmp_path / "secret.wav").chmod(0)
    check_problem(server.post_path(str(tmp_path / "secret.wav")), 403, "audio_path_forbidden")


@pytest.mark.parametrize(
    "name",
    [
        "plain.wav",
        "with some spaces.wav",
        "Größe ☃ 音声.wav",
        "quote'.wav",
        "-i $(touch pwned) `id` ;.wav",
        "%n%s%d.wav",
        *(["new\nline.wav", 'quote".wav', "concat:a|b.m4a"] if os.name == "posix" else []),
        "no suffix",
    ],
)
def test_file_of_any_name_is_transcribed_and_left_unchanged(
    name: str, server: Server, studio: Studio, tmp_path: Path
) -> None:
    recording = tmp_path / name
    kind = "m4a" if name.endswith(("m4a", "suffix")) else "wav-s16"  # ffmpeg's way too
    recording.write_bytes(studio.bytes(kind))
    os.utime(recording, ns=(1_000_000_000, 2_000_000_100))
    digest = hashlib.sha256(recording.read_bytes()).hexdigest()
    response = server.post_path(str(recording))
    assert response.status_code == 200, response.text[:500]
    assert response.json()["metadata"]["duration"] == pytest.approx(SECONDS, abs=0.15)
    assert recording.stat().st_mtime_ns == 2_000_000_100
    assert hashlib.sha256(recording.read_bytes()).hexdigest() == digest
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_empty_and_text_file_as_audio_path_are_refused_without_their_content(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("root:x:0:0:root:/root:/bin/bash\n", "utf-8")
    check_problem(server.post_path(str(tmp_path / "empty.wav")), 400, "audio_empty")
    response = server.post_path(str(tmp_path / "text.wav"))
    check_problem(response, 415, "audio_format_unsupported")
    assert "root:" not in response.text


def test_path_outside_the_allowed_roots_gets_the_same_403_whether_it_exists_or_not(
    start_server: StartServer, tmp_path: Path, voice: bytes
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "voice.wav").write_bytes(voice)
    fine, foreign = ["voice.wav", "../inside/voice.wav"], []
    if os.name == "posix":  # Windows has links for administrators, and no such devices
        (inside / "link.wav").symlink_to(outside / "voice.wav")
        (inside / "fine.wav").symlink_to(inside / "voice.wav")
        fine += ["fine.wav"]
        foreign += [inside / "link.wav", "/etc/hostname", "/dev/zero", "/no/such/file"]
    (tmp_path / "inside-too").mkdir()
    (tmp_path / "inside-too" / "voice.wav").write_bytes(voice)
    server = start_server(audio_roots=f"{inside}, {tmp_path / 'missing'}")
    for name in fine:
        assert server.post_path(str(inside / name)).status_code == 200, name
    bodies = set()
    for path in (
        outside / "voice.wav",
        outside / "missing.wav",
        inside / "../outside/voice.wav",
        tmp_path / "inside-too" / "voice.wav",
        *foreign,
    ):
        response = server.post_path(str(path))
        check_problem(response, 403, "audio_path_forbidden")
        bodies.add((response.json()["detail"], response.json()["hint"]))
    assert len(bodies) == 1, "one answer, whatever is there"
