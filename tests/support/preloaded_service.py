"""A process that has imported the service and its commands, and built their table, and forks itself
for each that a test starts: a service, a command, a worker.

What they import costs up to a second of processor time. A forked one has the same environment,
folder, streams, parent and exit code as one that is started anew; how hosts start it is tried by
tests/server.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from windows_processes import CTRL_BREAK, send_event

MODULES = (
    *("sidecar.cli", "sidecar.server.app", "sidecar.server.service_process", "uvicorn"),
    *("sidecar.server.http_app", "sidecar.jobs.recovery"),
    "sidecar.plugins.shared_jobs.shared_backend",
    "sidecar.plugins.grpc_stt.admin_routes",
    *(f"sidecar.plugins.{name}.routes" for name in ("openai", "realtime", "s2s", "vvv", "yap")),
    *("sidecar.cli.command_table", "sidecar.cli.serve", "sidecar.server.http_server"),
    *("sidecar.workers.worker_main", "numpy", "pydantic.v1", "typer", "ctypes.util", "pynvml"),
    *("uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.loops.asyncio"),
    *("rich.console", "rich.live", "rich.markdown", "rich.traceback", "rich.columns"),
    *("rich.syntax", "sidecar.cli.remote_service", "sidecar.plugins.load_test.command", "httpcore"),
    *("sidecar.live.runtime.live_scheduler", "anyio._backends._asyncio", "soundfile", "soxr"),
    *("psycopg", "psycopg_pool", "argparse", "vibevoice_asr_client.vvv"),
    *("httpx2", "httpcore2", "tqdm.auto", "yaml", "filelock", "fsspec"),
)
"""What services and workers import, but for what reads settings while it is imported, as
huggingface_hub does (the last line is what that imports), or starts threads, as onnxruntime
does."""
SERVICE, WORKER = "sidecar.main", "sidecar.workers.worker_main"
COMMANDS = (SERVICE, "vibevoice_asr_client.vvv_cli")
"""Modules that are run with words."""
_SCRIPT = "vibevoice-asr"
_PULL = "pull"
"""The command that starts none of our processes; it waits for its children at its end."""
_ROOT = str(Path(__file__).resolve().parents[2])
_LARGEST_MESSAGE = 1 << 17
_LONGEST_COMMAND = 1000
"""Bytes of a command line that can be told in /proc."""
_NAME = b"test-preloader"
"""By which `children_of` knows a process that only forks."""
READ_AT_IMPORT = frozenset(
    ("live_buffer", "llm_first_token", "llm_max_tokens", "llm_next_token", "openai_held")
)
"""Limits (`sidecar.limit_overrides`) that are defaults of parameters or fields: no service that is
forked can have other ones."""
_LIMITS = "VIBEVOICE_TEST_LIMITS"
_LIMIT = re.compile(r'^(\w+) = limit\("(\w+)"', re.MULTILINE)
_PR_SET_NAME, _CLONE_PARENT = 15, 0x00008000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine) if os.name == "posix" else None


class ServiceProcess(psutil.Process):
    """A service that was started, and what can be seen of its process."""

    returncode: int | None = None
    """Its exit code, once it was asked for; a signal's is negative."""

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        super().__init__(started.pid)
        self._started = started

    def terminate(self) -> None:
        """Ask it to end, as its host does: on Windows, which has no SIGTERM, by the end of its
        standard input."""
        if self._started.stdin is None:
            super().terminate()
        else:
            self._started.stdin.close()

    def stop(self) -> None:
        """Tell it to stop, with the grace of its jobs: by SIGTERM, on Windows by Ctrl-Break."""
        if sys.platform == "win32":
            send_event(self.pid, CTRL_BREAK)
        else:
            super().terminate()

    def num_fds(self) -> int:
        """Return the number of its descriptors, on Windows of its handles."""
        return int(super().num_fds() if os.name == "posix" else self.num_handles())

    def poll(self) -> int | None:
        """Return its exit code, if it has ended."""
        self.returncode = self._started.poll()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code."""
        self.returncode = self._started.wait(timeout)
        return self.returncode

    def children(self, recursive: bool = False) -> list[psutil.Process]:
        """Return its processes, but for the one that forks its workers."""
        return list(filter(_is_its_own, super().children(recursive=recursive)))


def _is_its_own(child: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return os.name != "posix" or child.name() != _NAME.decode()
    return True


class Forker:
    """The process that forks, started with the first that is asked for."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where services start."""
        self.folder = folder
        self._lock = threading.Lock()
        self._control: socket.socket | None = None

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, session: bool, fds: list[int]
    ) -> int:
        """Start a service, a command or a worker that is our own child; its id. ``fds``: standard
        input, output and error."""
        message = {"argv": list(argv), "env": dict(env), "cwd": cwd, "session": session}
        with self._lock:
            if self._control is None:
                self._control = self._begun()
            socket.send_fds(self._control, [json.dumps(message).encode()], fds)
            return int(self._control.recv(_LARGEST_MESSAGE))

    def _begun(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), " " * _LONGEST_COMMAND],
                cwd=self.folder,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # it forks, so it has one thread
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        return ours


class _ForkedAlready(Forker):
    """In a service: the process that it has forked from itself before it began."""

    def __init__(self) -> None:
        super().__init__(Path.cwd())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.is_it = not os.fork()
        self._control, other = (theirs, ours) if self.is_it else (ours, theirs)
        other.close()

    def serve(self) -> dict[str, Any]:
        """Fork for the service until it ends; return in each child."""
        assert self._control is not None
        usual = Path("/proc/self/comm").read_bytes().strip()
        _set_name(_NAME)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        os.close(nothing)
        message = _serve(self._control)
        _set_name(usual)
        return message


def _show_command(message: dict[str, Any]) -> None:
    """Have /proc tell the command line that this process would have."""
    module, *words = message["argv"]
    start = ["-P", "-m", module] if module == WORKER else ["-m", module]
    start = start if module in (WORKER, *COMMANDS) else [module]
    shown = os.fsencode("\0".join([sys.executable, *start, *words]))[:_LONGEST_COMMAND]
    status = Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()
    begin, end = int(status[45]), int(status[46])
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, shown, len(shown))


def _set_name(name: bytes) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)


def popen(
    forker: Forker | None, command: Any, *, fresh: bool = False, **options: Any
) -> subprocess.Popen[Any]:
    """Start a process as `subprocess.Popen` does; ``forker`` forks our commands and workers, but
    for those that are to be ``fresh``."""
    argv = None if forker is None or fresh else _preloaded(command)
    ours = dict(options.get("env") or os.environ)
    # What is read while modules are imported was read long ago.
    if argv is None or not _is_plain(ours) or {"pass_fds", "shell"} & options.keys():
        return subprocess.Popen(command, **options)
    assert forker is not None
    return _ForkedChild(forker, argv, **{**options, "env": ours, "preexec_fn": None})


def _preloaded(command: Any) -> list[str] | None:
    """Return the module and the arguments of a command that can be forked."""
    match command:
        case [sys.executable, "-m", module, *words] if module in COMMANDS:
            return [module, *map(str, words)]
        case [sys.executable, "-P", "-m", module] if module == WORKER:
            return [module]
        case [str(script), *words] if Path(script).name == _SCRIPT:
            return [script, *map(str, words)]
    return None


def _is_plain(env: Mapping[str, str]) -> bool:
    """Return whether Python would begin with it as it did here: limits, language, streams, path."""
    names = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONWARNINGS")
    path = env.get("PYTHONPATH")
    return (
        _SYS_CLONE is not None
        and not READ_AT_IMPORT & json.loads(env.get(_LIMITS) or "{}").keys()
        and (path in (None, os.environ.get("PYTHONPATH")) or path.split(os.pathsep)[0] == _ROOT)
        and all(env.get(name) == os.environ.get(name) for name in names)
    )


def limits_of(source: str) -> dict[str, str]:
    """Return the constants of a module that are limits, by the limits' names."""
    return {name: constant for constant, name in _LIMIT.findall(source)}


def _set_limits() -> None:
    """Give the limits of this process to the modules that were imported before it was forked."""
    given = json.loads(os.environ.get(_LIMITS) or "{}")
    modules = [module for name, module in sys.modules.items() if name.startswith("sidecar.")]
    for module in modules if given else ():
        for name, constant in limits_of(Path(str(module.__file__)).read_text("utf-8")).items():
            usual = getattr(module, constant)
            number = type(usual)(given.get(name, usual))
            for other in modules:
                if vars(other).get(constant) is usual:
                    setattr(other, constant, number)


class _ForkedChild(subprocess.Popen[Any]):
    """A child of this process that a `Forker` has forked."""

    def __init__(self, forker: Forker, argv: list[str], **options: Any) -> None:
        self._forker, self._argv = forker, argv
        super().__init__(argv, **options)

    def _execute_child(self, *given: Any) -> None:
        (_, _, _, _, _, cwd, env, _, _, _, *streams), session = given[:16], given[-2]
        sys.audit("subprocess.Popen", self._argv[0], self._argv, cwd, env)
        reading = streams[0], streams[3], streams[5]  # the child's ends
        fds = [number if number != -1 else at for at, number in enumerate(reading)]
        try:
            self.pid = self._forker.start(
                self._argv, env, str(cwd or Path.cwd()), bool(session), fds
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(*streams)  # type: ignore[attr-defined]


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request until the other end is closed; return in each child its request."""
    while True:
        data, files, *_ = socket.recv_fds(control, _LARGEST_MESSAGE, 3)
        if not data:
            os._exit(0)
        message = json.loads(data)
        pid = _fork_sibling()
        if not pid:
            control.close()
            _take_streams(files)
            os.environ.clear()
            os.environ.update(message["env"])
            return dict(message)
        for file in files:
            os.close(file)
        control.send(str(pid).encode())


def _fork_sibling() -> int:
    """Fork a process whose parent is our parent."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(ctypes.PyDLL(None).syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    if pid:
        python.PyOS_AfterFork_Parent()
    else:
        python.PyOS_AfterFork_Child()
    if pid < 0:
        raise OSError("no process can be forked")
    return pid


def _take_streams(files: list[int]) -> None:
    """Have these as standard input, output and error."""
    kept = [os.dup(file) if file <= 2 else file for file in files]
    for at, file in enumerate(kept):
        os.dup2(file, at)
    for file in kept:
        os.close(file)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        lines = number == 2 or os.isatty(number)
        stream = io.TextIOWrapper(raw, "utf-8", errors, line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.__stdin__ = sys.stdin


def fork_children(forker: Forker, *modules: str) -> None:
    """Let ``forker`` fork the services and workers that these modules of ours start."""
    ours = types.ModuleType("subprocess")
    vars(ours).update(vars(subprocess), Popen=functools.partial(popen, forker))
    for name in modules:
        vars(importlib.import_module(name))["subprocess"] = ours


def main() -> None:
    """Import what services do, fork, and be a service, a command or a worker in each child."""
    import gc
    import random
    import runpy

    sys.path[0] = os.getcwd()  # as `python -m`
    for name in MODULES:
        with contextlib.suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(name)
    sys.modules["sidecar.cli.command_table"].build_command()
    gc.collect()
    gc.freeze()  # what is shared stays so
    try:
        message = _serve(socket.socket(fileno=int(sys.argv[1])))
        while message["argv"][0] != WORKER and message["argv"][1:2] != [_PULL]:
            forker = _ForkedAlready()
            if not forker.is_it:
                fork_children(forker, "sidecar.workers.channel", "sidecar.cli.backends")
                break
            message = forker.serve()
    except KeyboardInterrupt:  # the whole terminal's
        os._exit(130)
    _show_command(message)
    random.seed()
    time.tzset()
    _set_limits()
    if message.get("session"):
        os.setsid()
    os.chdir(message.get("cwd", "."))
    sys.argv = message["argv"]
    try:
        if sys.argv[0] == WORKER:
            sys.modules[WORKER].main()  # it is imported already
        elif sys.argv[0] in COMMANDS:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            _end(ended.code or 0)
        raise
    _end(0)


def _end(code: int) -> None:
    """End as Python does, but do not take apart all that was imported: its pages are the
    forker's, and each would be copied. A fault in that shows in processes started ``fresh`` alone
    (`service_process.check_end`)."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # who reads has gone: Python says so
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
