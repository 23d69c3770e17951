"""The original queue's names and words: what they send, and what they make of what comes."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import httpx
import pytest
import vibevoice_asr_client.vvv_cli as vvv_cli
from http_file_server import FileHost
from service_process import PATIENCE_S, new_file, popen, run_command
from systems import NO_LINKS
from vibevoice_asr_client.vvv import EventType, TranscriptionEvent, VibevoiceClient

QUEUED = (
    'event: queue\ndata: {"job_id": "ab12cd34ef", "position": 2, "estimated_wait_seconds": 61.4}'
)
WORDS = ['[{"Start":0,"End":1,', '"Speaker":0,"Content":"Grüße →"}]']
DONE = 'event: done\ndata: {"job_id": "ab12cd34ef"}'
FAILED = 'event: error\ndata: {"error": "The GPU is lost."}'
STATUS = {
    "your_jobs": [
        {"job_id": "ab12cd34ef", "status": "queued", "position": 1, "estimated_wait_seconds": 9.6},
        {"job_id": "cd34ef5678", "status": "streaming", "position": None,
         "estimated_wait_seconds": None},
    ],
    "total_queued": 3,
}  # fmt: skip


def data(text: str) -> str:
    return "data: " + json.dumps({"text": text}, ensure_ascii=False)


FRAMES = (": alive", QUEUED, *map(data, WORDS), "event: news\ndata: {}", DONE)


@dataclass
class Queue(FileHost):
    """A server that says what the original says, word for word, and remembers what it was sent."""

    frames: list[str] = field(default_factory=lambda: [*FRAMES])
    status: int = 200
    missing: int = 0
    """Bytes of an answer that were promised, and do not come."""
    goes_on: Event = field(default_factory=Event)
    """Set unless an answer stops where it is."""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path, headers, self.read_body(request)))
        events = request.path == "/v1/transcribe" and self.status == 200
        said = "".join(f"{frame}\n\n" for frame in self.frames) if events else json.dumps(STATUS)
        kind = "text/event-stream" if events else "text/json"
        body = said.encode()
        self.head(request, self.status, len(body) + self.missing, {"Content-Type": kind})
        request.wfile.write(body)
        self.goes_on.wait(PATIENCE_S)
        request.close_connection = self.missing > 0

    def parts(self) -> dict[str, tuple[str | None, str, bytes]]:
        """The parts of the form that came last: file name, type, content."""
        _, headers, body = self.requests[-1]
        form = message_from_bytes(
            b"Content-Type: " + headers["content-type"].encode() + b"\n\n" + body
        )
        return {
            str(part.get_param("name", header="content-disposition")): (
                part.get_filename(), part.get_content_type(), part.get_payload(decode=True),
            )
            for part in form.get_payload()
        }  # fmt: skip


@pytest.fixture
def queue() -> Iterator[Queue]:
    with Queue() as queue:
        queue.goes_on.set()
        yield queue
        queue.goes_on.set()


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return new_file(tmp_path / "talk.m4a", b"sound")


def vvv(*words: object, **env: str) -> subprocess.CompletedProcess[bytes]:
    """The command, as it is installed."""
    outer = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    command = [sys.executable, "-m", "vibevoice_asr_client.vvv_cli", *map(str, words)]
    run = run_command(command, env=outer | env)
    run.stdout, run.stderr = (
        said.replace(os.linesep.encode(), b"\n") for said in (run.stdout, run.stderr)
    )
    return run


async def test_library_sends_what_the_original_sends_and_yields_its_events(queue, talk) -> None:
    client = VibevoiceClient(queue.url + "/", "secret", verify=True)
    events = [event async for event in client.transcribe(talk, "Nagg,Nell")]
    assert events == [
        TranscriptionEvent(
            EventType.QUEUE, job_id="ab12cd34ef", position=2, estimated_wait_seconds=61.4
        ),
        *(TranscriptionEvent(EventType.DATA, text=text) for text in WORDS),
        TranscriptionEvent(EventType.DONE, job_id="ab12cd34ef"),
    ]
    assert events[0].event_type == "queue"
    assert queue.requests[-1][1]["authorization"] == "Bearer secret"
    assert queue.parts() == {
        "audio": ("talk.m4a", "application/octet-stream", b"sound"),
        "hotwords": (None, "text/plain", b"Nagg,Nell"),
    }
    assert [event async for event in client.transcribe(str(talk))] == events
    assert list(queue.parts()) == ["audio"], "hotwords may be left out"
    assert await client.queue_status() == STATUS
    queue.status = 401
    with pytest.raises(httpx.HTTPStatusError):
        await client.queue_status()


def test_text_goes_to_stdout_queue_state_to_stderr_and_an_error_is_exit_code_1(
    queue, talk, tmp_path
) -> None:
    to = tmp_path / "talk.json"
    asked = ("--server", queue.url, "--token", "t", "transcribe", talk, "--output", to)
    run = vvv(*asked, "--hotwords", "A,B", PYTHONIOENCODING="cp1252")
    assert run.returncode == 0, run.stderr
    assert run.stdout.decode() == "".join(WORDS) + "\n"
    assert run.stderr == b"[Queue] Position: 2, ETA: 61s\n"
    assert to.read_text("utf-8") == "".join(WORDS)
    queue.frames = [data(WORDS[0]), FAILED]
    run = vvv(*asked)
    assert (run.returncode, run.stdout.decode()) == (1, WORDS[0])
    assert run.stderr == b"\n[Error] The GPU is lost.\n"
    queue.frames = [data(WORDS[0])]
    assert vvv(*asked).returncode == 1, "an end without 'done' is none"
    assert to.read_text("utf-8") == "".join(WORDS), "half a transcript replaces none"
    assert [path.name for path in tmp_path.iterdir() if path != talk] == ["talk.json"]


@pytest.mark.not_in_wine(NO_LINKS)
def test_output_is_replaced_by_a_whole_transcript_only_and_a_link_stays_one(
    queue, talk, tmp_path
) -> None:
    corrected = tmp_path / "texts" / "corrected.txt"
    corrected.parent.mkdir()
    corrected.write_text("corrected by hand", "utf-8")
    (link := tmp_path / "out.txt").symlink_to(corrected)
    nobody = ("--server", "http://127.0.0.1:9", "--token", "t", "transcribe", talk)
    assert vvv(*nobody, "--output", link).returncode == 1
    asked = ("--server", queue.url, "--token", "t", "transcribe", talk, "--output")
    queue.status = 500
    assert vvv(*asked, link).returncode == 1
    assert corrected.read_text("utf-8") == "corrected by hand"
    queue.status, queue.frames = 200, [data(WORDS[0])]
    assert vvv(*asked, link).returncode == 1
    assert vvv(*asked, tmp_path / "new.txt").returncode == 1
    assert corrected.read_text("utf-8") == "corrected by hand"
    assert (tmp_path / "new.txt").read_text("utf-8") == WORDS[0], (
        "what came is kept where nothing was"
    )
    queue.frames = [*FRAMES]
    assert vvv(*asked, link).returncode == 0
    assert link.is_symlink()
    assert corrected.read_text("utf-8") == "".join(WORDS)
    run = vvv(*asked, talk)
    assert run.stderr.decode() == f"Error: {talk}: it is the recording.\n"
    assert talk.read_bytes() == b"sound"
    run = vvv(*asked, tmp_path / "none" / "out.txt")
    assert f"{tmp_path / 'none' / 'out.txt'}: No such file" in run.stderr.decode()
    assert list(corrected.parent.iterdir()) == [corrected]


REVISED = '[{"Start":0,"End":1,"Speaker":1,"Content":"Grüße"}]'
DONE_REVISED = "event: done\ndata: " + json.dumps({"revised": REVISED})


def test_output_has_the_whole_text_of_the_end_where_parts_were_revised(
    queue, talk, tmp_path
) -> None:
    queue.frames = [*FRAMES[:-1], DONE_REVISED]
    path = tmp_path / "out.txt"
    asked = ("--server", queue.url, "--token", "t", "transcribe", talk, "--output")
    assert vvv(*asked, path).returncode == 0
    assert path.read_text("utf-8") == REVISED
    assert vvv(*asked, os.devnull).returncode == 0


def test_output_has_what_came_where_the_connection_breaks_unless_it_replaced_a_file(
    queue, talk, tmp_path
) -> None:
    corrected = new_file(tmp_path / "corrected.txt", "by hand")
    queue.frames, queue.missing = [data(WORDS[0])], 100
    asked = ("--server", queue.url, "--token", "t", "transcribe", talk, "--output")
    for path, text in ((corrected, "by hand"), (tmp_path / "new.txt", WORDS[0])):
        run = vvv(*asked, path)
        assert (run.returncode, run.stdout.decode()) == (1, WORDS[0])
        assert run.stderr.startswith(b"Error: ")
        assert path.read_text("utf-8") == text


def test_text_that_came_before_the_command_is_killed_is_in_a_file_beside_the_output(
    queue, talk, tmp_path
) -> None:
    queue.frames, queue.missing = [data(WORDS[0])], 100
    queue.goes_on.clear()
    asked = ("--server", queue.url, "--token", "t", "transcribe", talk, "--output")
    command = [sys.executable, "-m", "vibevoice_asr_client.vvv_cli", *map(str, asked)]
    with popen([*command, str(tmp_path / "new.txt")], stdout=subprocess.PIPE) as process:
        assert process.stdout.read(len(WORDS[0])).decode() == WORDS[0]
        process.kill()
    (part,) = tmp_path.glob("*.part")
    assert part.read_text("utf-8") == WORDS[0]


def test_output_that_is_a_console_of_windows_gets_the_text(
    queue, talk, monkeypatch, tmp_path
) -> None:
    def console(path: str, mode: str, **how: str) -> object:
        """As Python opens one."""
        if mode == "a":
            raise ValueError("Cannot open console input buffer for both reading and writing")
        return open(shown if path == os.devnull else path, mode, **how)

    shown = tmp_path / "shown"
    monkeypatch.setattr(vvv_cli, "open", console, raising=False)
    asked = ("--server", queue.url, "--token", "t", "transcribe", str(talk), "--output")
    assert vvv_cli.run([*asked, os.devnull]) == 0
    assert shown.read_text("utf-8") == "".join(WORDS)


@pytest.mark.posix("named pipes of POSIX")
def test_output_that_is_a_pipe_gets_the_final_transcript_and_stays(queue, talk, tmp_path) -> None:
    queue.frames = [*FRAMES[:-1], DONE_REVISED]
    os.mkfifo(pipe := tmp_path / "pipe")
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        asked = ("--server", queue.url, "--token", "t", "transcribe", talk)
        assert vvv(*asked, "--output", pipe).returncode == 0
        assert reader.communicate(timeout=PATIENCE_S)[0] == REVISED
    assert pipe.is_fifo()


@pytest.mark.posix("programs for Linux")
def test_output_that_is_open_already_is_written_behind_what_it_has_and_stdout_once(
    queue, talk, tmp_path
) -> None:
    log, said = new_file(tmp_path / "log", "Before. "), tmp_path / "said"
    asked = ("--server", queue.url, "--token", "t", "transcribe", talk, "--output")
    command = [sys.executable, "-m", "vibevoice_asr_client.vvv_cli", *map(str, asked)]
    with log.open("ab") as opened:
        run = run_command([*command, "/dev/stderr"], stderr=opened.fileno())
        assert run.returncode == 0
        opened.write(b" After.")
    words = log.read_text("utf-8")
    assert words.startswith("Before. ")
    assert words.endswith("".join(WORDS) + " After.")
    with said.open("wb") as opened:
        assert run_command([*command, "/dev/stdout"], stdout=opened.fileno()).returncode == 0
        assert os.path.samestat(said.stat(), os.fstat(opened.fileno()))
    assert said.read_text("utf-8") == "".join(WORDS) + "\n"


@pytest.mark.slow_except("full")
@pytest.mark.posix("programs for Linux")
@pytest.mark.parametrize(
    ("redirection", "said"), [(">&-", "output is closed"), ("| true", ""), (">/dev/full", "space")]
)
def test_output_that_cannot_be_written_is_no_traceback(redirection, said, queue, talk) -> None:
    if redirection == ">/dev/full" and not os.path.exists("/dev/full"):
        pytest.skip("Linux's device")
    command = [sys.executable, "-m", "vibevoice_asr_client.vvv_cli", "--server", queue.url]
    line = shlex.join([*command, "--token", "t", "transcribe", str(talk)])
    run = subprocess.run(
        f"{line} {redirection}",
        shell=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "clients/python/src")},
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
    )
    assert "Traceback" not in run.stderr
    assert said in run.stderr
    assert run.returncode == (1 if said else 0), "a shell has the exit code of the last command"


def test_output_whose_reader_is_gone_is_no_error_and_exits_with_1(queue, talk) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "vibevoice_asr_client.vvv_cli", "--server", queue.url]
    run = run_command([*command, "--token", "t", "transcribe", str(talk)], stdout=writer)
    os.close(writer)
    assert run.returncode == 1
    assert b"Error" not in run.stderr


@pytest.mark.posix("names of any bytes")
def test_recording_whose_name_is_not_valid_unicode_is_sent_with_a_readable_one(
    queue, tmp_path
) -> None:
    path = new_file(tmp_path / "Gr\udcfcn.wav", b"RIFF")
    run = vvv("--server", queue.url, "--token", "t", "transcribe", path)
    assert run.returncode == 0, run.stderr
    [(_, _, body)] = queue.requests
    assert b'filename="Gr?n.wav"' in body


@pytest.mark.posix("arguments of any bytes")
@pytest.mark.parametrize(("token", "hotwords"), [("Schlüssel", "Nagg"), ("t", "\udcff")])
def test_text_that_cannot_be_sent_is_one_line_of_error(token, hotwords, queue, talk) -> None:
    words = "transcribe", talk, "--hotwords", hotwords
    run = vvv("--server", queue.url, "--token", token, *words)
    assert (run.returncode, run.stdout) == (1, b"")
    assert b"cannot be sent" in run.stderr
    assert run.stderr.count(b"\n") == 1


def test_status_shows_own_jobs_with_the_environments_token_and_ignores_its_proxy(queue) -> None:
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    run = vvv("--server", queue.url, "status", VVV_TOKEN="t", **proxies)  # they would get the token
    assert run.returncode == 0, run.stderr
    assert run.stdout.decode().splitlines() == [
        "Total queued: 3",
        "  ab12cd34... status=queued position=1 eta=10s",
        "  cd34ef56... status=streaming",
    ]
    queue.status = 503
    run = vvv("--server", queue.url, "--token", "t", "status")
    assert (run.returncode, run.stdout) == (1, b"")
    assert b"503" in run.stderr
    assert b"Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--token", "t", "--insecure", "--ca-cert", "ca.pem", "status"], "--ca-cert"),
        (["status"], "VVV_TOKEN"),
        (["--token", "t", "transcribe", "gone.wav"], "gone.wav"),
        (["--token", "t", "--ca-cert", "gone.pem", "status"], "gone.pem"),
        (["--token", "t", "status"], "127.0.0.1:1"),
    ],
)
def test_error_is_one_line_and_exit_code_1(words, said) -> None:
    run = vvv("--server", "https://127.0.0.1:1", *words)
    assert (run.returncode, run.stdout) == (1, b"")
    assert said in run.stderr.decode()
    assert run.stderr.count(b"\n") == 1
