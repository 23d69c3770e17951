"""What the benchmarks share: servers as child processes, recordings, memory, tables.

Both sides of a comparison are started the same way: this interpreter, ``-m``, the same
environment, without access logs, with cached bytecode (as an installed package has it: with the
``PYTHONDONTWRITEBYTECODE`` of a developer's shell every start would compile our modules, none of
the libraries').
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "support"))
BOUNDARY = "benchboundary7f3a"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
KEY = "0123456789abcdef0123456789abcdef"
"""Of journals."""
START_LIMIT_S = 300.0
COMMAND = [sys.executable, "-m", "sidecar.main"]
_POLL_S = 0.005
_KEPT: list[socket.socket] = []
"""Bound, and listening never: nobody is given their ports by chance."""
_HELLO = """
import sys
import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/health")
async def health():
    return {"status": "ok"}

%s
if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False)
"""
_ECHO_ROUTE = """
from fastapi import UploadFile


@app.post("/echo")
async def echo(audio: UploadFile):
    return {"size": len(await audio.read())}

"""


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary folder with the bare apps, an empty configuration and a spool; then gone."""
    with tempfile.TemporaryDirectory(prefix="vibevoice-bench-") as name:
        folder = Path(name)
        (folder / "hello_main.py").write_text(_HELLO % "", "utf-8")
        (folder / "echo_main.py").write_text(_HELLO % _ECHO_ROUTE, "utf-8")
        (folder / "config.toml").touch()
        (folder / "spool").mkdir()
        compile_all = [sys.executable, "-m", "compileall", "-q", str(folder), str(ROOT / "sidecar")]
        subprocess.run(compile_all, check=True)
        yield folder


def child_env(**extra: str) -> dict[str, str]:
    """The environment of a child: ours, without anybody's settings, plus ``extra``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VIBEVOICE_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, **extra}


def service_env(settings: Mapping[str, object]) -> dict[str, str]:
    """That of a service with these settings, by their names."""
    return child_env(**{f"VIBEVOICE_{name.upper()}": str(settings[name]) for name in settings})


class Server:
    """A server in a child process, up and answering ``/health``."""

    def __init__(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], port: int, log: Path
    ) -> None:
        self.port = port
        self._log = log
        with log.open("wb") as output:
            begun = time.perf_counter()
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.PIPE,  # held open: a child may take its end for its host's
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_healthy(begun + START_LIMIT_S)
        except BaseException:
            self.stop()
            raise
        self.started_s = time.perf_counter() - begun
        """From the spawn to the first answer of ``/health``."""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def tree(self) -> list[psutil.Process]:
        """This process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        return []

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request on a connection of its own; the JSON of its answer.

        Raises:
            RuntimeError: the answer is no success.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            text = response.read()
        except OSError as error:
            raise RuntimeError(f"{method} {path}: {error}; {self._said()}") from error
        finally:
            connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {text[:500]!r}")
        return json.loads(text)

    def transcribe(self, audio: bytes, **fields: str) -> Any:
        """The answer of ``POST /transcribe`` to an upload."""
        return self.request(
            "POST", "/transcribe", form(audio, **fields), {"Content-Type": FORM_TYPE}
        )

    def stop(self) -> None:
        """End it, and everything it has started."""
        below = self.tree()[1:]
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _wait_healthy(self, deadline: float) -> None:
        while True:
            if answers(self.port, deadline - time.perf_counter()):
                return
            if self._process.poll() is not None or time.perf_counter() > deadline:
                raise RuntimeError(f"the server did not start; {self._said()}")
            time.sleep(_POLL_S)

    def _said(self) -> str:
        text = self._log.read_text("utf-8", "replace")[-2000:]
        return f"exit code {self._process.poll()}, log:\n{text}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def ours(folder: Path, **settings: str) -> Server:
    """This project's server; ``settings`` are environment variables without their prefix."""
    port = free_port()
    values = {
        "port": str(port),
        "config": str(folder / "config.toml"),
        "spool_dir": str(folder / "spool"),
        "log_level": "warning",
        **settings,
    }
    return Server(COMMAND, ROOT, service_env(values), port, folder / f"ours-{port}.log")


def bare(folder: Path, module: str = "hello_main") -> Server:
    """A FastAPI app with nothing behind it: ``hello_main``, or ``echo_main`` with ``/echo``."""
    port = free_port()
    command = [sys.executable, "-m", module, str(port)]
    return Server(command, folder, child_env(), port, folder / f"bare-{port}.log")


def free_port() -> int:
    """A port that nobody has at any address, nor gets until this process ends but who asks for it
    by its number: no connection goes out from it, and nobody else finds it free."""
    if socket.has_dualstack_ipv6():  # at one address it may be free, and not for a server at all
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
    else:
        sock = socket.socket()
        sock.bind(("", 0))
    if os.name == "posix":  # servers set the same, and then may have it beside us
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _KEPT.append(sock)
    port = int(sock.getsockname()[1])
    if os.name != "posix":
        sock.close()
    return port


def answers(port: int, timeout_s: float) -> bool:
    """Whether ``/health`` is answered with success; False at once where nobody listens."""
    head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), max(0.001, timeout_s)) as sock:
            sock.sendall(head.encode())
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def form(audio: bytes, **fields: str) -> bytes:
    """A multipart body (of `FORM_TYPE`)."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    named = 'Content-Disposition: form-data; name="audio"; filename="audio.wav"'
    head = f"{''.join(parts)}--{BOUNDARY}\r\n{named}\r\nContent-Type: audio/wav\r\n\r\n"
    return head.encode() + audio + f"\r\n--{BOUNDARY}--\r\n".encode()


def clip(name: str) -> Path:
    """A recording out of the moonshine-voice wheel."""
    import moonshine_voice

    return Path(str(moonshine_voice.get_assets_path())) / name


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process in MB; the last two are None where the system does not tell."""

    rss: float
    pss: float | None
    uss: float | None


def memory(pid: int) -> Memory:
    """What a process holds now."""
    process = psutil.Process(pid)
    try:
        full = process.memory_full_info()
    except psutil.AccessDenied:
        return Memory(process.memory_info().rss / 1e6, None, None)
    pss, uss = getattr(full, "pss", None), getattr(full, "uss", None)
    return Memory(full.rss / 1e6, pss and pss / 1e6, uss and uss / 1e6)


def rss(processes: Sequence[psutil.Process]) -> float:
    """Resident memory in MB, in sum; those that have ended count nothing."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    """Seconds of processor that processes have had so far, in sum; those that have ended, none."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def interleaved(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each side once per round, in turn, after one round that is thrown away."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, measure in sides.items():
            value = measure()
            if number:
                taken[name].append(value)
    return taken


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """One whose help begins with the text of a benchmark as it is."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def verdict(value: float, goal: float, *, at_least: bool = False) -> str:
    """The goal, and whether ``value`` meets it."""
    met = value >= goal if at_least else value <= goal
    return f"{'≥' if at_least else '≤'} {goal:g}: {'met' if met else 'MISSED'}"


def table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a markdown table."""
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    print(f"\n### {title}\n")
    for index, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(f"| {' | '.join(cells)} |")
        if index == 0:
            print(f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    sys.stdout.flush()


def machine() -> str:
    """What these figures were taken on, and how quiet it was."""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {load()} at the start"
    )


def load() -> str:
    """How busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
