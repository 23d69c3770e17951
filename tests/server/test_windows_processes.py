"""Life as a child process on Windows: consoles, job objects, killed hosts, no window."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import psutil
import pytest
from hosted_service import SERVE, HostedService, Start
from recordings import silence
from service_process import (
    PATIENCE_S,
    REPOSITORY,
    popen,
    service_environment,
    wait_for_ends,
    wait_until,
    web,
)
from windows_processes import (
    CLOSE,
    CTRL_BREAK,
    HIDDEN,
    LOG_OFF,
    job_of,
    press_ctrl_c,
    send_event,
    with_its_console,
    writes_into,
)

from bench.serving import free_port

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="consoles and jobs of Windows")
DETACHED = 8


def started(start: Start, *words: object, **settings: object) -> tuple[HostedService, str, int]:
    """A service that has loaded its engine, its address, and the id of its worker."""
    how = settings.pop("how", HIDDEN)
    service = start("--port", 0, "--preload", how=how, **settings)
    url = service.line()["url"]
    wait_until(lambda: web.get(f"{url}/health").json()["engine_state"] == "ready", "it is loaded")
    return service, url, int(web.get(f"{url}/health").json()["worker_pid"])


def family(service: HostedService) -> list[psutil.Process]:
    process = psutil.Process(service.process.pid)
    return [process, *process.children(recursive=True)]


@pytest.mark.parametrize("event", [CLOSE, LOG_OFF], ids=["console closed", "log-off"])
def test_end_of_the_console_ends_service_in_order_before_the_grace_of_its_job(
    event: int, start: Start
) -> None:
    service, url, _ = started(start, scripted_speed=1, shutdown_grace="20m")
    files = {"audio": silence(int(2 * PATIENCE_S))}
    sent = web.post(f"{url}/transcribe", files=files, headers={"Prefer": "respond-async"})
    sent.raise_for_status()
    processes = family(service)
    send_event(service.process.pid, event)
    wait_for_ends(processes)
    exit_code, _, log = service.ended()
    assert exit_code == 0, log
    assert "the console is closed: the service stops" in log
    assert "Application shutdown complete" in log


def test_ctrl_break_lets_running_job_finish(start: Start) -> None:
    service, url, worker = started(start, shutdown_grace="10m")
    headers = {"Prefer": "respond-async"}
    psutil.Process(worker).suspend()
    sent = web.post(f"{url}/transcribe", files={"audio": silence(9)}, headers=headers)
    job = f"{url}/v1/jobs/{sent.json()['id']}"
    wait_until(lambda: web.get(job).json()["state"] == "running", "it runs")
    send_event(service.process.pid, CTRL_BREAK)
    wait_until(lambda: web.get(f"{url}/health").json()["status"] == "stopping", "it is told")
    psutil.Process(worker).resume()
    wait_until(lambda: web.get(job).json()["state"] == "done", "it has finished")
    assert service.ended()[0] == 0


def test_ctrl_c_ends_service_with_130_and_its_worker_without_a_crash_note(
    start: Start, tmp_path: Path
) -> None:
    service, _, worker = started(start)
    processes = family(service)
    assert worker not in with_its_console(service.process.pid), "Ctrl-Break would end it"
    press_ctrl_c(service.process.pid)
    wait_for_ends(processes)
    exit_code, _, log = service.ended()
    assert exit_code == 130, log
    assert "Traceback" not in log
    assert not [*(tmp_path / "data" / "crash").glob("*")]


@pytest.mark.parametrize("way", ["killed", "its job object closed"])
def test_end_of_service_ends_worker_that_cannot_run(way: str, start: Start) -> None:
    """As one that a native call keeps, which does not notice the end of its connection."""
    service, _, worker = started(start)
    processes = family(service)
    psutil.Process(worker).suspend()
    if way == "killed":
        service.process.kill()
    else:
        with job_of(service.process):
            pass
    wait_for_ends(processes)


HOST = textwrap.dedent(
    """
    import subprocess, sys, time
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print(child.stdout.readline().decode(), end="", flush=True)
    time.sleep(600)
    """
)


@pytest.mark.parametrize("way", ["--exit-with-stdin", "--parent-pid"])
def test_service_and_worker_end_with_their_killed_host(way: str, tmp_path: Path) -> None:
    words = [way]
    code = HOST
    if way == "--parent-pid":
        code = HOST.replace("sys.argv[1:]", "[*sys.argv[1:], str(__import__('os').getpid())]")
    env = service_environment(tmp_path, port=0, preload=True)
    command = [sys.executable, "-c", code, *SERVE, *words]
    host = popen(command, stdout=subprocess.PIPE, env=env, cwd=REPOSITORY)
    assert host.stdout is not None
    assert b'"ready"' in host.stdout.readline()
    children = psutil.Process(host.pid).children(recursive=True)
    host.kill()
    host.communicate()
    wait_for_ends(children)


def test_service_and_worker_end_with_the_closed_job_object_of_their_host(tmp_path: Path) -> None:
    """As with a host that its own starter put there, and a service that is not told to watch it."""
    env = service_environment(tmp_path, port=0, preload=True)
    command = [sys.executable, "-c", f"input()\n{HOST}", *SERVE]
    pipes: dict[str, int] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    host = popen(command, env=env, cwd=REPOSITORY, **pipes)
    assert host.stdin is not None
    assert host.stdout is not None
    with job_of(host):  # before it starts any process
        host.stdin.write(b"\n")
        host.stdin.flush()
        line = json.loads(host.stdout.readline())
        health = f"{line['url']}/health"
        wait_until(lambda: web.get(health).json()["worker_pid"], "its worker is there")
        processes = psutil.Process(host.pid).children(recursive=True)
        assert len(processes) >= 2
    wait_for_ends(processes)
    host.communicate()


def test_handle_that_a_host_lets_its_service_inherit_is_none_of_its_worker(start: Start) -> None:
    """A pipe whose end a worker has as well has no end for its host."""
    import msvcrt

    reads, writes = os.pipe()
    handle = msvcrt.get_osfhandle(writes)
    os.set_handle_inheritable(handle, True)
    service, _, worker = started(start, how={**HIDDEN, "close_fds": False})
    from_it = msvcrt.get_osfhandle(reads)
    assert writes_into(service.process.pid, handle, from_it), "else nothing is shown"
    assert not writes_into(worker, handle, from_it)
    for end in (reads, writes):
        os.close(end)


@pytest.mark.parametrize("program", ["python", "pythonw"])
def test_service_without_a_console_has_no_output_and_serves_with_a_worker_of_its_own_console(
    program: str, tmp_path: Path, voice: bytes
) -> None:
    """So a host without a console gets no window, neither of the service nor of its worker."""
    port = free_port()
    command = [sys.executable.replace("python.exe", f"{program}.exe"), *SERVE[1:], "--preload"]
    service = popen(
        [*command, "--port", str(port)],
        cwd=REPOSITORY,
        env=service_environment(tmp_path),
        creationflags=DETACHED,
    )
    url = f"http://127.0.0.1:{port}"

    def loaded() -> int | None:
        try:
            pid: int | None = web.get(f"{url}/health").json()["worker_pid"]
            return pid
        except httpx.TransportError:
            return None

    try:
        worker = wait_until(loaded, "it serves")
        assert web.post(f"{url}/transcribe", files={"audio": voice}).status_code == 200
        if program == "python":  # that of `pythonw` has none at all
            assert service.pid not in with_its_console(worker)
        (log,) = (tmp_path / "data/log").glob("*.log")
        assert "serving on" in log.read_text("utf-8")
    finally:
        service.kill()
        service.communicate()


def test_ctrl_c_ends_demo_that_serves_and_its_service(
    start: Start, voice: bytes, tmp_path: Path
) -> None:
    recording = tmp_path / "voice.wav"
    recording.write_bytes(voice)
    demo = start("demo", recording, "--port", 0, how=HIDDEN)
    assert demo.process.stderr is not None
    lines = iter(demo.process.stderr.readline, b"")
    assert any(b"Ctrl-C stops it" in line for line in lines)
    processes = family(demo)
    assert len(processes) >= 3
    press_ctrl_c(demo.process.pid)
    wait_for_ends(processes)
    assert demo.ended()[0] == 130


@pytest.mark.parametrize("encoding", ["cp1252", "cp932", "cp437"])
def test_lines_for_the_host_are_ascii_of_utf_8_whatever_the_code_page(
    encoding: str, start: Start
) -> None:
    name = "Grün-\N{CJK UNIFIED IDEOGRAPH-5F55}-\N{GRINNING FACE}"
    service = start(
        "--port", 0, engine="auto", model_path=f"C:/{name}", env={"PYTHONIOENCODING": encoding}
    )
    assert name in service.refused("checkpoint_not_found", 66)["message"]
    assert name in service.log, "the log is UTF-8, too"


def test_services_at_any_port_have_a_log_and_an_end_of_their_own(start: Start) -> None:
    services = [start("--port", 0, "--exit-with-stdin") for _ in range(2)]
    ports = {service.line()["port"] for service in services}
    assert len(ports) == 2
    folder = Path(services[0].env["VIBEVOICE_DATA_DIR"]) / "log"
    logs = [folder / "vibevoice-asr-0.log", folder / "vibevoice-asr-0-2.log"]
    services[0].end_input()
    assert services[0].ended()[0] == 0
    assert services[1].process.poll() is None
    services[1].end_input()
    assert services[1].ended()[0] == 0
    assert [log.read_text("utf-8").count("serving on") for log in logs] == [1, 1]
