"""The hosts of the documents and of examples/ are run as they stand, against the real service."""

import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NoReturn

import httpx
import psutil
import pytest
from http_file_server import FileHost
from not_tested import missing
from recordings import Studio
from service_process import (
    PATIENCE_S,
    REPOSITORY,
    free_port,
    service_environment,
    wait_for_ends,
    wait_until,
    web,
)
from tiny_vibevoice import skip_without

from sidecar import errors
from sidecar.cli.output import EXIT_CODES
from sidecar.plugins import settings_class

PAGE = (REPOSITORY / "docs/embedding.md").read_text("utf-8")
TAURI_PAGE = (REPOSITORY / "docs/tauri.md").read_text("utf-8")
HOSTS = REPOSITORY / "examples/hosts"
APP = REPOSITORY / "examples/tauri-host/src"
PROGRAMS = os.environ.get("VIBEVOICE_TEST_TAURI")
"""Where `make test-tauri` built the Rust host."""
SOURCE = [sys.executable, "-m", "sidecar.main"]
PROGRESS = re.compile(r"progress 0\.[1-9]")
"""A line of the page's hosts; not the first, which says that nothing is done."""
FOREIGN_FLAGS = {
    *("--save-dev", "--prefix", "--path", "--manifest-path"),  # npm, cargo
    *("--yes", "--template", "--manager"),  # npm create tauri-app
    *("--bundle", "--format", "--outfile"),  # esbuild
    *("--force", "--options", "--timestamp", "--entitlements", "--sign"),  # codesign
}


def skip(reason: str) -> NoReturn:
    """Skip so that it is seen without -rs."""
    warnings.warn(f"NOT TESTED: {reason}", stacklevel=2)
    pytest.skip(reason)


class Stage:
    """An environment of its own for a host and its service, and a mark to find all of it by."""

    def __init__(self, home: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.hold = home / "hold"
        """A file; while it is there, the scripted engine goes no further than the first second."""
        self.port = free_port()
        temp = home / "tmp"
        temp.mkdir()
        self.environment = {
            **service_environment(home, port=self.port, scripted_hold=self.hold),
            "TMPDIR": str(temp),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "HF_HOME": str(home / "hub"),
            "TEST_MARK": self.mark,
        }

    def run(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a host to its end."""
        return subprocess.run(
            [str(word) for word in words],
            cwd=REPOSITORY,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
        )

    @contextlib.contextmanager
    def start(
        self, command: list[str], stdin: int = subprocess.DEVNULL, stderr: int | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a host, and wait for its end; its standard error is that of the tests."""
        with subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
        ) as process:
            limit = threading.Timer(PATIENCE_S, process.kill)
            limit.start()
            try:
                yield process
            finally:
                limit.cancel()

    def left(self) -> list[psutil.Process]:
        """Processes that were started here and still run; workers do not carry the mark."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get("TEST_MARK") == self.mark
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def stage(tmp_path: Path):
    here = Stage(tmp_path)
    yield here
    for process in here.left():
        with contextlib.suppress(psutil.NoSuchProcess):  # on Windows it ends with its parent
            process.kill()


@pytest.fixture(scope="module")
def recording(studio: Studio) -> Path:
    """Three seconds."""
    return studio.voice


@pytest.fixture(params=["source", "frozen"])
def service(request: pytest.FixtureRequest) -> list[str]:
    """The command that a host starts."""
    if request.param == "source":
        return SOURCE
    executable = os.environ.get("VIBEVOICE_EXECUTABLE")
    if executable is None:
        skip("the Rust host against the executable: VIBEVOICE_EXECUTABLE does not name one")
    return [str(Path(executable).resolve())]


@pytest.fixture(params=["host.py", "host.mjs", "main.rs"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A host of the page, as a command."""
    if request.param == "main.rs":
        if PROGRAMS is None:
            pytest.skip(missing("the built Rust host", "test-tauri", "make"))
        return [str(Path(PROGRAMS) / "host")]
    runtime = sys.executable if request.param == "host.py" else shutil.which("node")
    if runtime is None:
        skip("the Node host of examples/hosts: there is no node here")
    return [runtime, shutil.copy(HOSTS / request.param, tmp_path)]


@pytest.mark.slow_except("host.py")
def test_example_host_prints_progress_and_transcript_of_relative_path_and_leaves_no_process(
    host: list[str], stage: Stage, recording: Path
) -> None:
    stage.hold.touch()
    no_relative = recording.drive != REPOSITORY.drive  # folders of tests under Wine are on another
    path = str(recording) if no_relative else os.path.relpath(recording, REPOSITORY)
    command = [*host, path, *SOURCE]
    lines: list[str] = []
    with stage.start(command) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if PROGRESS.match(line):
                stage.hold.unlink(missing_ok=True)
    assert process.returncode == 0, lines
    seen = [float(line.split()[1]) for line in lines if line.startswith("progress ")]
    assert seen == sorted(seen)
    segments = [line for line in lines if re.match(r" +\d+\.\d\d Speaker_\d: [0-9a-f]{8}$", line)]
    assert len(segments) == 3
    assert lines[-1] == "exit code 0"
    assert stage.left() == []


PROXY_PAGES = {
    "html": b"<html>Bad Gateway</html>",
    "list": b'["Bad Gateway"]',
    "object": b'{"message": "Bad Gateway"}',
}


class ProxyPage(FileHost):
    """A proxy that answers with a page of its own."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        kind, _, name = request.path[1:].partition("/")
        what = {"Content-Type": "text/html" if kind == "html" else "application/json"}
        self.reply(request, 200 if name == "fine" else 502, PROXY_PAGES[kind], what)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/html/fine", "200, text/html"),
        ("/html/bad", "502, text/html"),
        ("/list/fine", "200, application/json"),
        ("/list/bad", "502, application/json"),
        ("/object/bad", "502, application/json"),
    ],
)
def test_python_example_host_reports_status_and_content_type_of_a_proxys_own_page(
    path: str, said: str
) -> None:
    host = runpy.run_path(str(HOSTS / "host.py"))
    with ProxyPage() as proxy:
        sidecar = host["Sidecar"].__new__(host["Sidecar"])
        sidecar.ready = {"url": proxy.url, "token": "t"}
        with pytest.raises(host["SpeechError"], match=rf"\({said}\).*proxy.*\(no_json\)"):
            sidecar.call("GET", path)


@pytest.mark.slow
def test_example_host_prints_reason_and_exit_code_of_failed_start_and_leaves_no_process(
    host: list[str], stage: Stage, recording: Path
) -> None:
    skip_without("vibevoice", "torch")
    result = stage.run(*host, recording, *SOURCE, VIBEVOICE_ENGINE="vibevoice")
    assert result.returncode != 0
    assert errors.CheckpointNotFound.default_detail[:30] in result.stdout + result.stderr
    assert re.search(r"exit (code|status):? 66", result.stdout + result.stderr)
    assert stage.left() == []


@pytest.mark.slow_except("host.py")
def test_example_host_cancels_its_job_once_enter_is_pressed_and_leaves_no_process(
    host: list[str], stage: Stage, recording: Path
) -> None:
    stage.hold.touch()
    command = [*host, str(recording), *SOURCE]
    with stage.start(command, subprocess.PIPE, subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told: list[str] = []
        for line in process.stdout:
            told.append(line.rstrip())
            if PROGRESS.match(line):
                process.stdin.write("\n")
                process.stdin.flush()
                break
        told += [line.rstrip() for line in process.stdout]
    assert process.returncode == 1, told
    assert [line for line in told if line.endswith("(job_cancelled)")], told
    assert stage.left() == []


def test_example_host_without_arguments_says_its_usage_in_one_line(
    host: list[str], stage: Stage
) -> None:
    run = stage.run(*host, PYTHONIOENCODING="utf-8")
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("usage: ")


@pytest.mark.slow_except("host.py")
def test_example_host_prints_failed_job_as_one_line_with_remedy_and_leaves_no_process(
    host: list[str], stage: Stage
) -> None:
    failed = stage.run(*host, "no-such.wav", *SOURCE)
    assert failed.returncode == 1
    hint = f"{errors.AudioPathNotFound.default_hint} (audio_path_not_found)"
    (line,) = [line for line in failed.stderr.splitlines() if line.endswith(hint)]
    assert line.count(" - ") == 0  # the other lines are the log of the service
    assert "Traceback" not in failed.stderr
    assert "Error:" not in failed.stderr
    assert stage.left() == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_service_and_engine_end_after_their_example_host_is_killed(
    host: list[str], stage: Stage, recording: Path
) -> None:
    stage.hold.touch()
    with stage.start([*host, str(recording), *SOURCE]) as process:
        assert process.stdout is not None
        assert any(map(PROGRESS.match, process.stdout)), "it ended before it made progress"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2  # the service and its engine
        process.send_signal(signal.SIGKILL)
    wait_for_ends(family)


class OriginalHost:
    """The original Rust host: it starts the service without arguments, reads its standard error
    only, sends these very bytes, and kills it."""

    def __init__(self, stage: Stage, command: list[str]) -> None:
        self.port = stage.port
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**stage.environment, "TRISPR_DEV_BUILD": "0"},
            stdout=subprocess.PIPE,  # held, and never read
            stderr=subprocess.PIPE,
            pipesize=4096,  # full after a few lines
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode("utf-8"))  # what is not UTF-8 ends the reader

    def ask(self, method: str, path: str, body: str = "") -> tuple[int, Any]:
        """Send a request; the status, and the JSON of the answer."""
        head = {"User-Agent": "ureq/2.12.1"} | (
            {"Content-Type": "application/json"} if body else {}
        )
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = web.request(method, url, content=body, headers=head)
        return answer.status_code, answer.json()

    def health(self) -> dict[str, Any]:
        status, body = self.ask("GET", "/health")
        assert status == 200
        return dict(body)

    def wait(self) -> dict[str, Any]:
        """The first answer: only a refused connection is tried again."""

        def answer() -> dict[str, Any] | None:
            with contextlib.suppress(httpx.ConnectError):
                return self.health()
            return None

        return dict(wait_until(answer, "an answer"))

    def transcribe(self, path: str) -> tuple[int, Any]:
        body = f'{{"audio_path":{json.dumps(path)},"language":"auto","precision":"fp16"}}'
        return self.ask("POST", "/transcribe", body)

    def kill(self) -> list[psutil.Process]:
        """End it as the host does, without a word; those of its children that outlive it."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        return [
            one
            for one in psutil.wait_procs(family, PATIENCE_S)[1]
            if one.status() != psutil.STATUS_ZOMBIE
        ]


def test_original_rust_host_with_unread_stdout_gets_its_answers_and_kill_leaves_no_process(
    service: list[str], stage: Stage, recording: Path
) -> None:
    host = OriginalHost(stage, service)
    assert host.wait()["status"] in ("ok", "loading")
    stage.hold.touch()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(host.transcribe, str(recording))
        wait_until(lambda: host.health()["engine_state"] == "busy", "it works")
        host.health()
        stage.hold.unlink()
    status, body = working.result()
    assert (status, body["status"]) == (200, "success")
    segments, about = body["segments"], body["metadata"]
    assert [one["start_time"] for one in segments] == sorted(one["start_time"] for one in segments)
    assert all(re.fullmatch(r"Speaker_\d+", one["speaker"]) and one["text"] for one in segments)
    assert all(one["end_time"] >= one["start_time"] for one in segments)
    assert (len(segments), type(about["num_speakers"])) == (3, int)
    assert about["duration"] > 0
    assert about["processing_time"] >= 0
    assert {type(about[name]) for name in ("language", "model_precision")} == {str}
    status, body = host.ask("POST", "/reload-model", '{"precision":"int8"}')
    assert (status, body["status"], type(body["message"])) == (200, "success", str)
    status, body = host.transcribe(str(Path("no/such.wav").absolute()))
    assert (status, "detail" in body) == (404, True)
    for _ in range(150):  # standard output may stay unread
        host.health()
    assert host.lines
    assert not [line for line in host.lines if re.match(r"ERROR:|.* - (ERROR|CRITICAL) - ", line)]

    stage.hold.touch()
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(host.transcribe, str(recording))
        wait_until(lambda: host.health()["engine_state"] == "busy", "it works")
        assert host.kill() == []
        assert broken.exception(PATIENCE_S) is not None, "the call ends at once"
    again = OriginalHost(stage, service)
    again.wait()
    assert again.kill() == []
    with pytest.raises(httpx.ConnectError):
        again.health()
    assert stage.left() == []


def test_example_app_has_texts_only_for_error_codes_that_exist_and_shows_no_raw_message() -> None:
    page = (APP / "texts.ts").read_text("utf-8")
    (texts,) = re.findall(r"const ERRORS.*? = {\n(.*?)\n};", page, re.DOTALL)
    codes = set(re.findall(r"(?m)^  (\w+): ", texts))
    rust = (REPOSITORY / "clients/rust/src/error.rs").read_text("utf-8")
    own = set(re.findall(r'=> "(\w+)"', rust))
    assert len(codes) > 2
    assert codes <= {error.code for error in errors.all_errors()} | own
    for path in APP.glob("*.ts"):
        for shown in re.findall(r"textContent = (.*);|say\(.*, (.*)\)", path.read_text("utf-8")):
            assert path.name == "service.ts" or not re.search(r"message|detail|reason", str(shown))


def test_exit_codes_on_embedding_page_are_those_of_service() -> None:
    rows = re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|[^|]*\|$", PAGE, re.MULTILINE)
    said = {code: int(number) for number, cell in rows for code in re.findall(r"`(\w+)`", cell)}
    assert said == EXIT_CODES


def test_every_exit_code_has_remedy_on_tauri_page() -> None:
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", TAURI_PAGE, re.MULTILINE)
    table = re.findall(r"\w+", " ".join(cells))
    assert set(EXIT_CODES) <= set(table)
    assert set(table) <= {error.code for error in errors.all_errors()}


@pytest.mark.parametrize("page", [PAGE, TAURI_PAGE], ids=["embedding.md", "tauri.md"])
def test_flags_and_variables_on_host_pages_exist(page: str) -> None:
    fields = set(settings_class().model_fields)
    known = {f"--{name.replace('_', '-')}" for name in fields} | FOREIGN_FLAGS
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page))
    assert flags
    assert flags <= known
    variables = set(re.findall(r"\bVIBEVOICE_([A-Z_]+)", page))
    assert {name.lower() for name in variables} <= {
        *settings_class().model_fields,
        "config",
        "client_token",
        "executable",  # of the plugin for Tauri
    }
