"""Life as a child process: the start, the neighbours, the end, and who notices what."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hosted_service import PORT_PATIENCE, SERVE, HostedService, Start
from recordings import Studio, silence
from service_clock import clocked_command, put_ahead
from service_process import (
    PATIENCE_S,
    REPOSITORY,
    USERS_FOLDERS,
    Server,
    check_end,
    free_port,
    halted,
    new_file,
    popen,
    read_answer,
    run_command,
    service_environment,
    told_by,
    wait_for_ends,
    wait_until,
    web,
)
from systems import NO_OWNERS

from sidecar.auth.token_issuing import TokenIssuer
from sidecar.cli.serve import acquire_port
from sidecar.config.settings import Settings
from sidecar.observability.logs import REPEAT_MUTE_S
from sidecar.server import listeners, service_process
from sidecar.server.http_server import KEEP_ALIVE_S

posix = pytest.mark.posix("signals")
TOKEN = "correct-horse-battery-staple"
LATER = {"Prefer": "respond-async"}


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def busy(url: str, jobs: int = 1) -> str:
    """Give a slow service work, of which the first job runs: for longer than any test waits, at a
    second of audio a second. The job's address."""
    sent = [
        web.post(f"{url}/transcribe", files={"audio": silence(int(2 * PATIENCE_S))}, headers=LATER)
        for _ in range(jobs)
    ]
    assert [one.status_code for one in sent] == [202] * jobs, sent[0].text
    first = f"{url}/v1/jobs/{sent[0].json()['id']}"
    wait_until(lambda: web.get(first).json()["state"] == "running", "a job runs")
    return first


def seconds_done(job: str) -> float:
    return float(
        (web.get(job).json()["progress"] or {"audio_seconds_done": 0})["audio_seconds_done"]
    )


def health_of(url: str) -> dict[str, Any]:
    return dict(web.get(f"{url}/health").json())


def loaded(url: str) -> int:
    """Wait for the engine of a service that preloads; the id of its process."""
    wait_until(lambda: health_of(url)["engine_state"] == "ready", "it is loaded")
    return int(health_of(url)["worker_pid"])


def reachable(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


# --- the start


@pytest.mark.slow_except("generated")
@pytest.mark.parametrize("way", ["generated", "stdin", "file", "environment"])
def test_token_is_demanded_printed_only_if_generated_and_never_logged(
    way: str, start: Start, tmp_path: Path
) -> None:
    file = new_file(tmp_path / "token", TOKEN + "\n", 0o600)
    settings = {
        "generated": {"generate_token": True},
        "stdin": {"token": "@-"},
        "file": {"token": f"@{file}"},
        "environment": {"token": TOKEN},
    }
    service = start(port=0, **settings[way])
    if way == "stdin":
        service.tell(TOKEN.encode())
    ready = service.line()
    assert ("token" in ready) == (way == "generated")
    token = ready.get("token", TOKEN)
    assert web.get(f"{ready['url']}/v1/jobs").status_code == 401
    bearer = {"Authorization": f"Bearer {token}"}
    assert web.get(f"{ready['url']}/v1/jobs", headers=bearer).status_code == 200
    service.process.terminate()
    assert token not in service.ended()[2]


def test_commands_send_token_of_client_before_that_of_service(
    start: Start, tmp_path: Path, voice: bytes
) -> None:
    issuer = TokenIssuer(tmp_path / "tokens")
    anna, _ = issuer.create("anna")
    service = start("--port", 0, "--token-keys", issuer.keys.public)
    url = service.line()["url"]
    file = new_file(tmp_path / "anna", anna, 0o600)
    clip = new_file(tmp_path / "clip.wav", voice)

    def run(*words: str, **env: str) -> int:
        return run_command(
            [*SERVE, "transcribe", clip, "--server", url, *words], env={**service.env, **env}
        ).returncode

    both = {"VIBEVOICE_TOKEN": TOKEN, "VIBEVOICE_CLIENT_TOKEN": anna}
    assert run(**both) == 0
    assert run(VIBEVOICE_CLIENT_TOKEN=f"@{file}") == 0
    assert run("--token", f"@{file}") == 0
    assert run(VIBEVOICE_TOKEN=TOKEN) == 1
    assert run(VIBEVOICE_TOKEN=anna) == 0, "as it was: the only one that is known"


def test_json_log_of_a_transcription_has_only_json_lines_and_its_file_the_same(
    start: Start, voice: bytes
) -> None:
    service = start("--port", 0, "--log-format", "json")
    url = service.line()["url"]
    assert web.post(f"{url}/transcribe", files={"audio": voice}).status_code == 200
    service.process.terminate()
    lines = [json.loads(line) for line in service.ended()[2].splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    files = list(Path(service.env["VIBEVOICE_DATA_DIR"]).glob("log/*.log"))
    assert [json.loads(line) for line in files[0].read_text("utf-8").splitlines()] == lines


# --- neighbours


@pytest.mark.slow
def test_start_on_port_in_use_names_its_owner(start: Start) -> None:
    first = start("--port", 0).line()
    assert (
        f"pid {first['pid']}" in start("--port", first["port"], **PORT_PATIENCE).line()["message"]
    )
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = start("--port", other.getsockname()[1]).line()["message"]
        assert "other than vibevoice-asr" in said


def test_port_freed_during_query_of_its_owner_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def asked(*_: object) -> None:
            other.close()

        monkeypatch.setattr(listeners, "find_service", asked)
        with acquire_port(Settings(engine="scripted", port=port)) as place:
            assert place.getsockname()[1] == port


@pytest.mark.not_in_wine(NO_OWNERS)
def test_takeover_replaces_own_service_and_no_other_program(start: Start, tmp_path: Path) -> None:
    old = start("--port", 0)
    first = old.line()
    second = start("--port", first["port"], "--if-port-taken", "takeover", **PORT_PATIENCE).line()
    assert second["pid"] != first["pid"]
    assert old.process.wait(PATIENCE_S) is not None
    assert web.get(f"{second['url']}/health").json()["pid"] == second["pid"]
    victim = popen([sys.executable, "-c", "import time; time.sleep(60)"])
    lie = {"instance": "x", "pid": victim.pid, "version": "0.1.0"}
    (tmp_path / "health").write_text(json.dumps(lie), "utf-8")
    serves = ["http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    liar = popen([sys.executable, "-u", "-m", *serves], stdout=subprocess.PIPE)
    try:
        assert liar.stdout is not None
        port = int(re.findall(rb"port (\d+)", liar.stdout.readline())[0])
        fatal = start("--port", port, "--if-port-taken", "takeover", **PORT_PATIENCE).line()
        assert fatal["code"] == "port_in_use"
        assert f"with pid {victim.pid}" in fatal["message"], "it was believed as far as that"
        assert victim.poll() is None
        assert liar.poll() is None
    finally:
        for process in (liar, victim):
            process.kill()
            process.communicate()


# --- the end

HOST = textwrap.dedent(
    """
    import subprocess, sys, threading, time
    def spawn():
        child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        print(child.stdout.readline().decode(), end="", flush=True)
    pool = threading.Thread(target=spawn)  # the thread that spawns ends; the host lives on
    pool.start()
    pool.join()
    time.sleep(600)
    """
)


@pytest.mark.slow_except("--exit-with-stdin")
@posix
@pytest.mark.parametrize(
    "way", ["--parent-pid", "--exit-with-stdin", "a known host", "nobody asked"]
)
def test_service_with_running_job_ends_with_its_killed_host_only_if_asked_to(
    way: str, tmp_path: Path
) -> None:
    words = [way] if way == "--exit-with-stdin" else []
    known = {"TRISPR_DEV_BUILD": "0"} if way == "a known host" else {}
    env = service_environment(tmp_path, port=0, scripted_speed=1) | known
    shell = [*SERVE, *words]
    if way == "--parent-pid":  # the host puts its own number there
        shell = [
            sys.executable,
            "-c",
            "import os, sys; host = str(os.getppid());"
            "os.execv(sys.argv[1], [*sys.argv[1:], '--parent-pid', host])",
            *shell,
        ]
    host = popen(
        [sys.executable, "-c", HOST, *shell], stdout=subprocess.PIPE, env=env, cwd=REPOSITORY
    )
    assert host.stdout is not None
    ready = json.loads(host.stdout.readline())
    try:
        job = busy(ready["url"])
        alone = psutil.Process(host.pid)
        wait_until(lambda: alone.num_threads() == 1, "the thread that spawned ends")
        processes = family(ready["pid"])
        assert len(processes) >= 2
        host.kill()
        host.wait()
        if way == "nobody asked":
            for _ in range(3):
                done_s = seconds_done(job)
                wait_until(lambda: seconds_done(job) > done_s, "it goes on")  # noqa: B023
        else:
            wait_for_ends(processes)
            assert not reachable(ready["port"])
    finally:
        host.kill()
        host.communicate()
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in family(ready["pid"]):
                process.kill()


@pytest.mark.slow_except("[it]")
@posix
@pytest.mark.parametrize("told", ["it", "its group"])
def test_stop_finishes_running_job_and_refuses_waiting_ones(
    start: Start, tmp_path: Path, voice: bytes, told: str
) -> None:
    service = start("--port", 0, "--shutdown-grace", "10m", "--preload")
    url = service.line()["url"]
    engine = loaded(url)
    # It says of itself how long it is, and is predicted to take a while: nothing waits inside.
    long = {"audio": silence(60)}
    with ThreadPoolExecutor(2) as pool:
        with halted(engine):
            running = pool.submit(web.post, f"{url}/transcribe", files=long)
            wait_until(lambda: health_of(url)["engine_state"] == "busy", "one runs")
            waiting = pool.submit(web.post, f"{url}/transcribe", files={"audio": voice})
            wait_until(lambda: health_of(url)["jobs_waiting"] == 1, "one waits")
            for process in family(service.process.pid)[: 1 if told == "it" else None]:
                process.send_signal(signal.SIGTERM)
            wait_until(lambda: health_of(url)["status"] == "stopping", "it is told")
        answers = running.result(), waiting.result()
    assert answers[0].status_code == 200
    assert answers[1].status_code == 503
    assert answers[1].json()["code"] == "shutting_down"
    assert service.ended()[0] == 0
    assert not [*(tmp_path / "data" / "crash").glob("*")], "its engine is not told by others"


@pytest.mark.slow
@posix
def test_service_with_moonshine_ends_cleanly_after_job(start: Start, voice: bytes) -> None:
    service = start(port=0, engine="moonshine", how={"fresh": True})
    url = service.line()["url"]
    assert web.post(f"{url}/transcribe", files={"audio": voice}).status_code == 200
    service.process.terminate()
    exit_code, out, log = service.ended()
    check_end(exit_code, log)
    assert out == b""


@pytest.mark.slow
@posix
def test_second_stop_signal_ends_service_before_the_grace_of_its_job_is_over(start: Start) -> None:
    service = start("--port", 0, "--shutdown-grace", "20m", scripted_speed=1)
    url = service.line()["url"]
    busy(url)
    processes = family(service.process.pid)
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: health_of(url)["status"] == "stopping", "it was told")
    wait_until(lambda: health_of(url)["engine_state"] == "busy", "the running job has its grace")
    service.process.send_signal(signal.SIGTERM)
    wait_for_ends(processes)
    exit_code, _, log = service.ended()
    assert exit_code == 0
    assert "internal error" not in log
    assert "Traceback" not in log


@pytest.mark.slow
@posix
def test_start_with_reuse_on_port_of_stopping_service_waits_and_serves_itself(start: Start) -> None:
    port = free_port()
    first = start("--port", port, "--shutdown-grace", "1s", scripted_speed=1)
    busy(first.line()["url"])
    first.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(httpx.TransportError):  # it may have ended while nobody looked
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: health_of(url)["status"] == "stopping", "it was told")
    second = start("--port", port, "--if-port-taken", "reuse", **PORT_PATIENCE).line()
    assert second["event"] == "ready"
    assert "reused" not in second
    first.process.wait(PATIENCE_S)


def test_service_whose_dispatcher_failed_ends_with_exit_code_1_and_logged_reason(
    tmp_path: Path, voice: bytes
) -> None:
    """The host starts it again; what nobody would ever work on is no service."""
    fault = """
import asyncio, sys
from sidecar.cli import main
from sidecar.jobs.wait_queue import WaitQueue
def due(waiting, at):
    if len(waiting): raise asyncio.CancelledError
WaitQueue.due = due
sys.argv = ["vibevoice-asr"]
main()
"""
    with Server(tmp_path, command=[sys.executable, "-c", fault]) as server:
        response = server.post(voice)
        assert response.status_code == 500
        assert server.process.wait(PATIENCE_S) == 1
        assert "a dispatcher ended" in server.log()


@pytest.mark.posix("select of pipes")
@pytest.mark.parametrize(("end", "exit_code"), [("stop", 0), ("fault", 1)])
def test_service_has_its_exit_code_although_a_daemon_thread_is_within_a_c_function(
    end: str, exit_code: int, tmp_path: Path
) -> None:
    """Python aborts if such a thread has the lock of a stream, or meets its end in C++, as one that
    imports may."""
    now = str(tmp_path / "now")
    code = f"""
import asyncio, io, os, pathlib, select, signal, sys, threading
from sidecar.cli import main
from sidecar.server import http_server
complete = http_server.StagedApp.complete
async def complete_and_block(app):
    await complete(app)
    full = os.pipe()[1]
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(full, "w")))
    write = sys.stdout.buffer.write
    threading.Thread(target=write, args=(bytes(1 << 22),), daemon=True).start()
    while select.select([], [full], [], 0)[1] or not pathlib.Path({now!r}).exists():
        await asyncio.sleep(0.01)
    if {end == "fault"}: raise RuntimeError("cannot serve")
    os.kill(os.getpid(), signal.SIGTERM)
http_server.StagedApp.complete = complete_and_block
sys.argv = ["vibevoice-asr"]
main()
"""
    with Server(tmp_path, command=[sys.executable, "-c", code]) as server:
        Path(now).touch()
        assert server.process.wait(PATIENCE_S) == exit_code
        assert ("cannot serve" in server.log()) == exit_code


def test_internal_error_at_the_start_is_told_to_the_host_and_in_the_log_with_its_traceback(
    tmp_path: Path,
) -> None:
    code = """
import sys
from sidecar.cli import main
from sidecar.server import app
def fail(*_): raise RuntimeError("a fault of ours")
app.create_service = fail
sys.argv = ["vibevoice-asr"]
main()
"""
    ended = told_by([sys.executable, "-c", code], env=service_environment(tmp_path, port=0))
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["code"] == "internal"
    assert "RuntimeError: a fault of ours" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("vibevoice-asr: ")


@pytest.mark.parametrize("words", [["--parent-pid", "1"], ["--exit-with-stdin"]])
def test_service_whose_watch_of_its_host_fails_ends_with_exit_code_1_and_logged_reason(
    words: list[str], tmp_path: Path
) -> None:
    """Without it, it would outlive its host."""
    fault = f"""
import asyncio, pathlib, sys
from sidecar.cli import main
from sidecar.server import service_process
async def fail(_):
    while not pathlib.Path({str(tmp_path / "now")!r}).exists():
        await asyncio.sleep(0.01)
    raise RuntimeError("cannot watch")
service_process.wait_for_exit = service_process.wait_for_pipe_close = fail
sys.argv = ["vibevoice-asr", *{words}]
main()
"""
    with Server(tmp_path, command=[sys.executable, "-c", fault]) as server:
        (tmp_path / "now").touch()
        assert server.process.wait(PATIENCE_S) == 1
        assert "cannot watch" in server.log()


@pytest.mark.posix("permissions of POSIX")
@pytest.mark.parametrize(
    "words", [["doctor"], ["list"], ["serve", "--port=0", "--exit-with-stdin"]]
)
def test_command_of_a_user_without_home_folder_works_and_writes_no_file(
    words: list[str], tmp_path: Path
) -> None:
    """As in a container with a number of a user that nobody knows."""
    code = f"""
import os, pwd, sys
def unknown(user): raise KeyError(user)
pwd.getpwuid = unknown
for name in [*os.environ]:
    if name.startswith(("HOME", "XDG_", "HF_", "VIBEVOICE_")): del os.environ[name]
from sidecar.cli import main
sys.argv = ["vibevoice-asr", *{words}]
main()
"""
    env = service_environment(tmp_path) | dict.fromkeys(USERS_FOLDERS, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_killed_service_leaves_no_process_port_or_file(start: Start, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    service = start("--port", 0, scripted_speed=1, spool_dir=spool)
    ready = service.line()
    busy(ready["url"], jobs=3)
    processes = family(ready["pid"])
    assert len(processes) >= 2
    service.process.kill()
    wait_for_ends(processes)
    assert not reachable(ready["port"])
    assert list(spool.iterdir()) == []


# --- rude hosts


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="fills the pipe from outside")
def test_full_stderr_pipe_of_host_blocks_no_job_log_file_or_stop_of_service(
    start: Start, voice: bytes
) -> None:
    service = start("--port", 0, "--log-level", "debug")
    url = service.line()["url"]
    pipe = os.open(f"/proc/{service.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(pipe, b"."):
            pass
    os.close(pipe)
    for _ in range(3):
        assert web.post(f"{url}/transcribe", files={"audio": voice}).status_code == 200
        assert web.get(f"{url}/health").status_code == 200
    (file,) = Path(service.env["VIBEVOICE_DATA_DIR"]).glob("log/*.log")
    loaded = "engine scripted loaded"
    wait_until(lambda: loaded in file.read_text("utf-8"), "lines for the full pipe, too")
    service.process.terminate()
    assert service.process.wait(PATIENCE_S) == 0, "nor does its end wait for a reader"
    assert service.ended()[1] == b""


@pytest.mark.slow_except("both")
@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_closed_pipe_of_host_does_not_end_service(stream: str, start: Start, voice: bytes) -> None:
    port = free_port()
    service = start("--port", port, "--log-level", "debug")
    if stream != "stderr":
        service.process.stdout.close()
    if stream != "stdout":
        service.process.stderr.close()
    wait_until(lambda: reachable(port), "it listens")
    url = f"http://127.0.0.1:{port}"
    for _ in range(20):
        assert web.post(f"{url}/transcribe", files={"audio": voice}).status_code == 200
    assert service.process.poll() is None


def rest_of(sock: socket.socket) -> bytes:
    """What comes before the end, which who wrote into it is told in another way."""
    with contextlib.suppress(ConnectionError):
        return sock.recv(100)
    return b""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit of another process")
def test_connections_beyond_file_limit_wait_and_are_logged_once(tmp_path: Path) -> None:
    with (
        Server(tmp_path, limits={"request_deadline": 1}) as server,
        contextlib.ExitStack() as stack,
    ):
        web.get(f"http://127.0.0.1:{server.port}/v1/jobs")  # answered once all is imported
        process = psutil.Process(server.process.pid)
        before = process.num_fds()
        begin = time.monotonic()  # real time: more lines are allowed if more time has passed
        process.rlimit(psutil.RLIMIT_NOFILE, (before + 4, before + 4))
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        said = "no connection can be accepted"
        wait_until(lambda: said in server.log(), "there are no more")
        health = web.get(f"http://127.0.0.1:{server.port}/health")
        assert health.status_code == 200, "once the others were given up"
        lines = server.log().count(said)
        # real time: of all until those lines were counted
        periods = int((time.monotonic() - begin) // REPEAT_MUTE_S)
        assert 1 <= lines <= 1 + periods
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_past_the_request_deadline_idle_connection_stays_and_unfinished_request_is_closed(
    tmp_path: Path,
) -> None:
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def is_answered(sock: socket.socket) -> bool:
        sock.settimeout(PATIENCE_S)
        sock.sendall(ask)
        return read_answer(sock)[0] == 200

    ahead_s = KEEP_ALIVE_S / 2
    limits = {"request_deadline": ahead_s - 1}
    with Server(tmp_path, clocked_command(tmp_path, ahead_s), limits=limits) as server:
        address = "127.0.0.1", server.port
        with socket.create_connection(address) as rests:
            assert is_answered(rests)
            with socket.create_connection(address) as stops:
                assert is_answered(stops)
                stops.sendall(ask[:20])
                server.health()  # which it answers after it has read the others
                put_ahead(server)
                assert rest_of(stops) == b""  # the other rests for longer
            assert is_answered(rests)


def test_crash_note_of_killed_worker_has_no_text_of_transcript(
    tmp_path: Path, voice: bytes
) -> None:
    with Server(tmp_path, scripted_speed="5") as server:
        job = server.submit(silence(60))
        segments = server.segments(job)
        psutil.Process(server.health()["worker_pid"]).kill()
        folder = tmp_path / "data" / "crash"
        wait_until(lambda: list(folder.glob("*.json")), "the note is there")
    said = {segment["text"] for segment in segments}
    assert said
    (file,) = folder.glob("*.json")
    note = json.loads(file.read_text("utf-8"))
    killed = -signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM  # so psutil kills there
    assert note["exit_code"] == killed
    assert note.keys() >= {"time", "who", "version", "system", "engine", "memory_plan", "gpu"}
    assert not any(text in file.read_text("utf-8") for text in said)


# --- what is left behind, and what is not


@pytest.mark.slow
@posix
def test_services_killed_at_random_moments_leave_no_process_port_or_file(
    start: Start, tmp_path: Path
) -> None:
    port, moments = free_port(), random.Random(4)
    spool = tmp_path / "spool"
    spool.mkdir()
    for number in range(20):
        service = start(port=port, scripted_speed=20, spool_dir=spool, env={"TMPDIR": str(spool)})
        moment = moments.random()
        if moment < 0.3:
            time.sleep(moment)  # real time: any moment will do, most before it serves
        else:
            url = service.line()["url"]
            for _ in range(number % 4):
                web.post(f"{url}/transcribe", files={"audio": silence(60)}, headers=LATER)
            time.sleep(moment / 2)  # real time: any moment will do
        processes = family(service.process.pid)
        service.process.kill()
        service.process.communicate()
        wait_for_ends(processes)
        assert not reachable(port), number
        assert list(spool.iterdir()) == [], number


def test_transcripts_prompts_and_file_names_are_in_no_file(tmp_path: Path) -> None:
    """The scripted engine's words are fingerprints: they stand for what a person said."""
    marks = set()
    with Server(tmp_path, log_level="debug") as server:
        for number in range(20):
            name = f"secret-name-{number}.wav"
            body = server.post(silence(1 + number), name=name, prompt="secret-context").json()
            marks |= {segment["text"] for segment in body["segments"]}
        server.post(b"RIFF-secret-garbage", name="secret-name.wav", language="secret-context")
        server.post_path("/secret-name.wav")
        server.client.get("/secret-name", params={"token": "secret-context"})
        folders = [tmp_path, Path(server.env["VIBEVOICE_DATA_DIR"])]
    marks |= {"secret-name", "secret-context", "secret-garbage"}
    assert len(marks) > 20
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    for path in files:
        text = path.read_bytes().decode("utf-8", "replace")
        assert not [mark for mark in marks if mark in text], path


@pytest.mark.slow
@posix
def test_job_is_done_in_its_first_attempt_after_suspend_of_machine(tmp_path: Path) -> None:
    settings = {"scripted_speed": "4", "limits": {"request_deadline": 1.5}, "preload": True}
    with Server(tmp_path, **settings) as server:  # type: ignore[arg-type]
        engine = wait_until(lambda: server.health()["worker_pid"], "it is there")
        with halted(engine):
            job = server.submit(silence(12))
            server.wait_state(job, "running")
        processes = family(server.process.pid)
        for process in processes:
            process.suspend()
        time.sleep(2.0)  # real time: more than the deadline; any more changes nothing
        for process in reversed(processes):
            process.resume()
        assert server.wait_state(job, "done", "failed")["state"] == "done"
        assert server.job(job)["attempts"] == 1


@pytest.mark.slow
def test_report_has_log_crash_notes_and_findings_without_home_folder(
    tmp_path: Path, voice: bytes
) -> None:
    with Server(tmp_path) as server:
        server.post(voice)
        (tmp_path / "data" / "crash").mkdir()
        (tmp_path / "data" / "crash" / "1.json").write_text(
            f'{{"folder": "{Path.home()}"}}', "utf-8"
        )
        report = tmp_path / "report.zip"
        run = run_command([*SERVE, "doctor", "--report", "-o", report], env=server.env, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(report)
    with zipfile.ZipFile(report) as content:
        names = content.namelist()
        texts = [content.read(name).decode() for name in names]
    assert names[:2] == ["doctor.txt", "crash/1.json"]
    assert [name for name in names if name.startswith("log/")]
    assert not any(str(Path.home()) in text for text in texts if str(Path.home()) != "/")


@pytest.fixture
def demo(start: Start, studio: Studio, tmp_path: Path) -> Callable[..., HostedService]:
    """Starts demos, and waits until each serves."""

    def begin(*words: object, **settings: object) -> HostedService:
        with (tmp_path / "said").open("wb") as said:
            started = start("demo", studio.voice, *words, how={"stderr": said}, **settings)
        wait_until(lambda: "Still serving" in (tmp_path / "said").read_text("utf-8"), "it serves")
        return started

    return begin


@pytest.mark.slow
@posix
def test_service_of_killed_demo_ends(demo: Callable[..., HostedService]) -> None:
    port = free_port()
    started = demo("--port", port)
    processes = family(started.process.pid)
    assert len(processes) >= 3
    started.process.kill()
    wait_for_ends(processes)
    assert not reachable(port)


@pytest.mark.slow_except("variable")
@posix
@pytest.mark.parametrize("words", [["--port", "0"], []], ids=["flag", "variable"])
def test_demo_transcribes_at_any_port_and_token_and_ends_its_service_on_interrupt(
    words: list[str], demo: Callable[..., HostedService]
) -> None:
    started = demo(*words, port=0, generate_token=True)
    processes = family(started.process.pid)
    started.process.send_signal(signal.SIGINT)
    out, _ = started.process.communicate(timeout=PATIENCE_S)
    assert started.process.returncode == 130
    assert b"Speaker_0" in out
    wait_for_ends(processes)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at a limit of another process")
def test_service_raises_its_file_limit_to_maximum(start: Start) -> None:
    few = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", *SERVE]
    service = start("--port", 0, command=few)
    service.line()
    soft, most = psutil.Process(service.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == most > 256


@pytest.mark.posix("file descriptors by number")
@pytest.mark.parametrize("most", [4096, 100_000, -1], ids=["4096", "100000", "infinite"])
def test_limit_of_descriptors_is_raised_on_macos_which_sets_none_above_its_own(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    limits = [256, most]

    def set_as_macos_does(_: int, to: tuple[int, int]) -> None:
        if not 0 <= to[0] <= service_process.MACOS_OPEN_MAX:
            raise ValueError("current limit exceeds maximum limit")
        limits[:] = to

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_as_macos_does)
    service_process.raise_fd_limit()
    assert limits == [min(most % (1 << 40), service_process.MACOS_OPEN_MAX), most]
    assert service_process.fd_limit() == limits[0]
