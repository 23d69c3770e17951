"""A real service in a child process, and what can be seen of it from outside."""

import asyncio
import contextlib
import json
import os
import select
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import preloaded_service
import psutil
from preloaded_service import Forker, ServiceProcess

from bench.serving import free_port
from sidecar import windows_files
from sidecar.workers.rpc_server import PAGE_BYTES

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = float(os.environ.get("VIBEVOICE_TEST_PATIENCE", "300"))
"""How long a test waits for what is no promise: a busy machine is nobody's fault."""
REFUSED_S = 5.0
"""The service's promise: so long a bad request waits for its answer, at most."""
MB = 1 << 20
USUAL = [sys.executable, "-m", "sidecar.main"]
FORKER: Forker | None = None
"""What forks services whose command is `USUAL`, in tests (`conftest.py`); benchmarks start each."""
USERS_FOLDERS = ("XDG_STATE_HOME", "XDG_DATA_HOME", "WIN_PD_OVERRIDE_LOCAL_APPDATA")
"""What says where a user's data is: there are jobs and people that got no folder."""
web = httpx.Client(timeout=PATIENCE_S, limits=httpx.Limits(max_keepalive_connections=0))
"""Connects anew for each request, as `httpx.get`, which waits for 5 s at most, and reads all of the
system's certificates each time."""
_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For addresses without TLS: to read the certificates of all authorities takes 20 ms a client."""


def new_file(path: Path, content: bytes | str, mode: int | None = None) -> Path:
    """Write a file, with this mode if one is given; its path. On Windows the mode says whether
    others may read it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if mode is not None and sys.platform != "win32":
        path.chmod(mode)
    elif mode is not None and mode & 0o044:
        told_by(["icacls", path, "/grant", "*S-1-1-0:R"], check=True)
    elif mode is not None:
        windows_files.restrict(path)
    return path


def is_private(path: Path) -> bool:
    """Whether its owner alone may use a file or folder."""
    if sys.platform == "win32":
        return not windows_files.others_may_read(path)
    return path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def service_environment(home: Path, **settings: object) -> dict[str, str]:
    """The environment of a service or a command whose files are below ``home``: nothing of what is
    said to tests, the scripted engine, and these settings."""
    ours = "VIBEVOICE", "GRPC"
    outer = {key: value for key, value in os.environ.items() if not any(one in key for one in ours)}
    own = {
        "config": home / "none.toml",
        "data_dir": home / "data",
        "engine": "scripted",
        "whisper_model": "tiny",  # else that of the extra `languages` is unpacked for `auto`
        "people": 0,  # unset, it depends on a package that `make run` installs
        **settings,
    }
    return outer | {f"VIBEVOICE_{name.upper()}": str(value) for name, value in own.items()}


def popen(command: Any, *, fresh: bool = False, **options: Any) -> subprocess.Popen[Any]:
    """Start a process as `subprocess.Popen` does. Our commands are forked from a process that has
    imported them, but for those that are to be ``fresh``."""
    return preloaded_service.popen(FORKER, command, fresh=fresh, **options)


def run_command(
    command: Any, *, input: Any = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a process in the repository as `subprocess.run` does, and keep what it says; our commands
    are forked (`popen`)."""
    pipes = ("stdout", "stderr") if input is None else ("stdin", "stdout", "stderr")
    own = {"cwd": REPOSITORY, **dict.fromkeys(pipes, subprocess.PIPE)}
    with popen(command, **{**own, **options}) as process:
        try:
            out, wrong = process.communicate(input, PATIENCE_S)
        finally:
            process.kill()
    done = subprocess.CompletedProcess(command, process.returncode, out, wrong)
    if check:
        done.check_returncode()
    return done


def told_by(
    command: Any, timeout: float = PATIENCE_S, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as `subprocess.run` does; what it says is text."""
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=timeout, **options
    )


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until ``condition`` is true, less often the longer it takes; its value.

    Whoever is asked fifty times a second does little else.
    """
    # real time: a limit after which the test is given up
    deadline, pause_s = time.monotonic() + PATIENCE_S, 0.01
    while not (value := condition()):
        # real time: the same limit
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(pause_s)  # real time: a pause between two questions
        pause_s = min(0.1, 1.2 * pause_s)
    return value


async def until(condition: Callable[[], Any], what: str = "it came to that") -> Any:
    """Look again and again, on the loop, until ``condition`` is true; its value."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S  # real time: a limit after which the test is given up
    while not (value := condition()):
        # real time: the same limit
        assert loop.time() < deadline, f"not within {PATIENCE_S} s: {what}"
        await asyncio.sleep(0.002)  # real time: a pause between two questions
    return value


async def settle() -> None:
    """Let tasks go on as far as they can without waiting for files, processes or timers."""
    for _ in range(20):
        await asyncio.sleep(0)


def stand_still(seconds: float) -> None:
    """Hold up the event loop, as a long collection does, or a machine that swaps."""
    time.sleep(seconds)  # real time: timers of less are due; a longer one changes nothing


def runs(pid: int | None) -> bool:
    """Whether a process is there, and is no zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end while it is looked at
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_for_ends(processes: Sequence[psutil.Process]) -> None:
    """Wait until processes have ended. A zombie has: the system takes seconds to collect one whose
    parent has ended."""

    def lives(process: psutil.Process) -> bool:
        return process.is_running() and runs(process.pid)

    wait_until(
        lambda: not any(map(lives, processes)), f"the ends of {[one.pid for one in processes]}"
    )


def workers() -> list[psutil.Process]:
    """Processes of this process's engines that live."""
    return with_word(psutil.Process().children(), "sidecar.workers.worker_main")


def with_word(processes: Iterable[psutil.Process], word: str) -> list[psutil.Process]:
    """Those that live, and whose command line has this word."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # as one that has ended just now is
            if word in process.cmdline():
                found.append(process)
    return found


def worker_pids() -> set[int]:
    """Ids of `workers`; not of the process that forks them, which begins with the first."""
    return {one.pid for one in workers()}


class Server:
    """The service as its host sees it: a process, a port, a log, and a folder of its own."""

    def __init__(
        self,
        home: Path,
        command: list[str] | None = None,
        cwd: Path = REPOSITORY,
        port: int | None = None,
        limits: Mapping[str, float] | None = None,
        fresh: bool = False,
        **settings: object,
    ) -> None:
        """``limits``: constants by the names of `sidecar.limit_overrides`. ``fresh``: it and its
        workers are started anew, not forked."""
        self._fresh = fresh
        self.home = home
        self.spool = home / "spool"
        self.temp = home / "tmp"
        self.log_file = home / "stderr.log"
        for folder in (home, self.spool, self.temp):
            folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        own = {"shutdown_grace": 0, "port": self.port, "spool_dir": self.spool}
        # Who sends late goes on speaking, and who lost a stream of events comes back soon.
        limits = {"live_late": PATIENCE_S, "sse_retry_ms": 20, **(limits or {})}
        own |= {"live_delay": 0, "test_limits": json.dumps(limits)}  # finals may be late
        own |= {"exit_with_stdin": True} if sys.platform == "win32" else {}
        self.env = {
            **service_environment(home, **{**own, **settings}),
            **dict.fromkeys(USERS_FOLDERS, str(home / "user")),
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temp)),
        }
        self._command = command or USUAL
        self._cwd = cwd
        self.client = httpx.Client(
            base_url=self.url,
            timeout=PATIENCE_S,
            limits=httpx.Limits(max_connections=100),
            verify=_NO_AUTHORITIES,
        )

    def __enter__(self) -> Self:
        with self.log_file.open("wb") as log:
            started = popen(
                self._command,
                fresh=self._fresh,
                cwd=self._cwd,
                env=self.env,
                stdin=subprocess.PIPE if sys.platform == "win32" else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.process = ServiceProcess(started)
        wait_until(self._answers, f"the service is up\n{self.log()}")
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.client.close()
        if error is not None:
            print(f"{self.home.name}:\n{self.log()[-4000:]}", file=sys.stderr)
        family = self.family()
        if family:  # it may have ended by itself
            self.process.terminate()
        _, alive = psutil.wait_procs(family[:1], 15.0)
        for process in alive + [child for child in family[1:] if child.is_running()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the service ended at its start\n{self.log()}"
        try:
            response = self.client.get("/health")
        except httpx.TransportError:
            return False
        # Another test's may have the port that was free a moment ago: then ours ends.
        return response.status_code == 200 and response.json().get("pid") in (
            None,
            *(one.pid for one in self.family()),
        )

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    def health(self) -> dict[str, Any]:
        """GET /health."""
        return dict(self.client.get("/health").raise_for_status().json())

    def post(self, audio: bytes, name: str = "recording.wav", **fields: str) -> httpx.Response:
        """POST /transcribe with an upload."""
        return self.client.post("/transcribe", files={"audio": (name, audio)}, data=fields)

    def post_path(self, path: object, **fields: object) -> httpx.Response:
        """POST /transcribe with the path of a file."""
        return self.client.post("/transcribe", json={"audio_path": path, **fields})

    def submit(self, audio: bytes, **fields: str) -> str:
        """Post without waiting for the result; the job's id."""
        sent: dict[str, Any] = {"files": {"audio": audio}, "data": fields}
        response = self.client.post("/transcribe", headers={"Prefer": "respond-async"}, **sent)
        assert response.status_code == 202, response.text
        assert response.headers["preference-applied"] == "respond-async"
        job_id = str(response.json()["id"])
        assert response.headers["location"] == f"/v1/jobs/{job_id}"
        return job_id

    def done(self, audio: bytes, **fields: str) -> str:
        """Post, and wait until it is done; the job's id."""
        job_id = self.submit(audio, **fields)
        self.wait_state(job_id, "done")
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        """GET /v1/jobs/{id}."""
        return dict(self.client.get(f"/v1/jobs/{job_id}").raise_for_status().json())

    def transcript(self, job_id: str) -> dict[str, Any]:
        """GET /v1/jobs/{id}/transcript."""
        return dict(self.client.get(f"/v1/jobs/{job_id}/transcript").raise_for_status().json())

    def segments(self, job_id: str, least: int = 1) -> list[dict[str, Any]]:
        """The first segments of a job that runs, by its events, once there are so many."""
        found: dict[int, dict[str, Any]] = {}
        with self.client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            for line in response.iter_lines():
                body = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if "segment" in body:
                    found[body["index"]] = body["segment"]
                if len(found) >= least:
                    break
        return list(found.values())

    def cancel(self, job_id: str) -> dict[str, Any]:
        """End a job that stays in the list; the job as it is then."""
        answer = self.client.delete(f"/v1/jobs/{job_id}?keep=true")
        return dict(answer.raise_for_status().json())

    def jobs(self) -> list[dict[str, Any]]:
        """GET /v1/jobs."""
        answer = self.client.get("/v1/jobs", params={"limit": 500})
        return list(answer.raise_for_status().json()["jobs"])

    def wait_state(self, job_id: str, *states: str) -> dict[str, Any]:
        """The job, once it is in one of these states."""

        def reached() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in states else None

        return dict(wait_until(reached, f"job {states}"))

    def raw(self, timeout_s: float = PATIENCE_S) -> socket.socket:
        """A connection for requests that no library would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def log(self) -> str:
        """All that it wrote to stderr."""
        return self.log_file.read_text("utf-8") if self.log_file.exists() else ""

    def family(self) -> list[psutil.Process]:
        """The service and its children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def processes(self, word: str) -> list[psutil.Process]:
        """Those of the family that live, and whose command line has this word."""
        return with_word(self.family(), word)

    def rss(self) -> int:
        """Resident bytes of the whole family. Pages that its processes share count once, for a
        process that has just been forked has all those of its parent."""
        own, shared = 0, [0]
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if os.name != "posix":  # nothing there is forked
                    own += process.memory_info().rss
                    continue
                memory = process.memory_full_info()
                own += memory.uss
                shared.append(memory.rss - memory.uss)
        return own + max(shared)

    def leftovers(self) -> list[str]:
        """Names in the spool and the temporary folder, but for those of workers' pages."""
        paths = [path for folder in (self.spool, self.temp) for path in folder.rglob("*")]
        return [str(path) for path in paths if not _is_page(path)]

    def disk(self) -> int:
        """Bytes on disk in its folders, those of nameless files that it holds open included."""
        seen: dict[int, int] = {}
        device = self.spool.stat().st_dev
        for process in self.family():
            descriptors = Path(f"/proc/{process.pid}/fd")
            with contextlib.suppress(OSError):
                for descriptor in descriptors.iterdir():
                    with contextlib.suppress(OSError):
                        status = descriptor.stat()
                        if status.st_dev == device and not status.st_nlink:
                            seen[status.st_ino] = status.st_blocks * 512
        for name in self.leftovers():
            with contextlib.suppress(OSError):
                status = Path(name).stat()  # Windows tells no blocks
                size = status.st_blocks * 512 if os.name == "posix" else status.st_size
                seen[status.st_ino] = size
        return sum(seen.values())


StartServer = Callable[..., Server]
"""Start a service with these settings; it ends with the test."""


def _is_page(path: Path) -> bool:
    """Whether it is the page of a worker's calls, which is a file with a name on Windows alone."""
    with contextlib.suppress(OSError):
        return sys.platform == "win32" and path.stat().st_size == PAGE_BYTES
    return False


def halt(pid: int) -> None:
    """Stop a process. It goes on for a moment after it was sent the signal."""
    process = psutil.Process(pid)
    process.suspend()
    if os.name == "posix":
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "it has stopped")


@contextlib.contextmanager
def halted(pid: int) -> Iterator[None]:
    """A process does nothing meanwhile. An engine that has a job may be like that for half a
    minute: so long the job runs, whatever the machine does, and then it ends as it would have."""
    halt(pid)
    try:
        yield
    finally:
        psutil.Process(pid).resume()


class Peak:
    """The most memory and disk that a service had, above what it had at the start."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.rss = self.disk = self.samples = 0

    def __enter__(self) -> Self:
        self._rss, self._disk = self._server.rss(), self._server.disk()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        self._look()

    def _look(self) -> None:
        self.rss = max(self.rss, self._server.rss() - self._rss)
        self.disk = max(self.disk, self._server.disk() - self._disk)
        self.samples += 1

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._look()


def shown_on(terminal: int) -> bytes:
    """What is written on a terminal until its other end is closed; then this one is, too."""
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end has closed
        while part := os.read(terminal, 1 << 16):
            shown += part
    os.close(terminal)
    return shown


def shown_until(terminal: int, what: bytes) -> bytes:
    """What is written on a terminal until ``what`` is among it; its other end stays open."""
    shown = b""
    while what not in shown:
        assert select.select([terminal], [], [], PATIENCE_S)[0], shown
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # as of `shown_on`
            part = b""
        assert part, f"its other end was closed; it has shown {shown!r}"
        shown += part
    return shown


@contextlib.contextmanager
def counting_listener() -> Iterator[tuple[int, list[bytearray]]]:
    """A TCP port, and the list of all that connected to it (what they sent first); each is let go
    once it has said something."""
    visits: list[bytearray] = []

    class Visit(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            visits.append(said := bytearray())
            with contextlib.suppress(OSError):
                said += self.request.recv(200)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Listener(("127.0.0.1", 0), Visit) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield int(listener.server_address[1]), visits
        finally:
            listener.shutdown()


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One HTTP response off a raw socket: status, headers in lower case, body."""
    with sock.makefile("rb") as stream:
        status = stream.readline()
        assert status, "the connection was closed without an answer"
        headers: dict[str, str] = {}
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        body = stream.read(int(headers.get("content-length", "0")))
    return int(status.split()[1]), headers, body


def check_end(code: int | None, log: str) -> None:
    """A process ended well, its interpreter's last steps included: only one that was started
    ``fresh`` takes them, as one that was forked leaves all in place."""
    assert code == 0, log
    for fault in ("Traceback", "Exception ignored", "was destroyed"):
        assert fault not in log, log


def check_problem(response: httpx.Response, status: int | set[int], code: str | set[str]) -> None:
    """The response is a problem (RFC 9457) with this status and code, and gives nothing away."""
    statuses = status if isinstance(status, set) else {status}
    codes = code if isinstance(code, set) else {code}
    assert response.status_code in statuses, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] in codes, body
    assert body["status"] == response.status_code
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert isinstance(body["hint"], str)
    assert body["hint"]
    assert body["title"]
    assert body["type"]
    check_discreet(response.text)


def check_discreet(text: str) -> None:
    """No path of ours and no traceback in what a client gets to read."""
    assert len(text) <= 8 << 10
    for secret in ("Traceback", "/tmp/", "/proc/", "/home/", "/dev/fd", sys.prefix):
        assert secret not in text
    assert str(REPOSITORY) not in text
