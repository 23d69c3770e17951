"""Where `vibevoice-asr` is run as people run it: a folder, an environment, a terminal."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hosted_service import PORT_PATIENCE, HostedService
from service_process import PATIENCE_S, popen, run_command, shown_on, wait_until
from windows_processes import HIDDEN, press_ctrl_c

DEVICES = Path(__file__).parent / "devices"
PRESS_S = 10.0
"""Seconds between two presses of Ctrl-C: more than those that count as one, and than the five of a
farewell to a service that hangs: a third press at the very end would meet what runs after it."""
NOHUP = pytest.mark.skipif(
    sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
    reason="nohup keeps SIGHUP from commands",
)
SOUND_DEVICES = {"PYTHONPATH": os.pathsep.join(map(str, (DEVICES, DEVICES.parent)))}
"""Of a command: it has a microphone and a loudspeaker (`devices/sounddevice.py`)."""


def start_command(
    home: Path,
    word: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    **how: Any,
) -> subprocess.Popen[bytes]:
    """Start `vibevoice-asr WORD` with pipes of bytes but for those that ``how`` names."""
    settings = {"engine": "auto", **PORT_PATIENCE}
    own = {**HIDDEN, **how}
    return HostedService(home, word, *arguments, env=environment, how=own, **settings).process


def interrupt(process: "subprocess.Popen[Any]") -> None:
    """Press Ctrl-C where a command runs that was started here."""
    if sys.platform == "win32":
        press_ctrl_c(process.pid)
    else:
        process.send_signal(signal.SIGINT)


def interrupt_until_ended(process: "subprocess.Popen[Any]") -> None:
    """Press Ctrl-C until a command ends: a busy machine may heed two as one."""

    def press() -> bool:
        interrupt(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PRESS_S)
        return process.poll() is not None

    wait_until(press, "it ends")


def say(process: "subprocess.Popen[bytes]", audio: bytes) -> None:
    """Pipe audio into a command whose standard input stays open."""
    assert process.stdin is not None
    process.stdin.write(audio)
    process.stdin.flush()


def ended(process: subprocess.Popen[bytes], code: int = 0, typed: str = "") -> tuple[str, str]:
    """What it wrote to both, once it has ended with ``code``; lines end as in Python."""
    written = process.communicate(typed.encode(), timeout=PATIENCE_S)
    said, complained = (text.decode().replace(os.linesep, "\n") for text in written)
    assert process.returncode == code, complained
    return said, complained


def installed_command() -> list[str]:
    """The path of `vibevoice-asr`; the module where `make windows` installs no programs."""
    found = shutil.which("vibevoice-asr", path=sysconfig.get_path("scripts"))
    assert found or sys.platform == "win32", "the package is not installed: pip install -e ."
    return [found] if found else [sys.executable, "-m", "sidecar.main"]


def browser_that(folder: Path, does: str = "") -> str:
    """What `BROWSER` says, so that a program of Python in ``folder`` is called as a browser is; it
    does this with the address in ``sys.argv[1]``."""
    code = f"import sys\nfrom pathlib import Path\n{does}\n"
    (program := folder / "browser.py").write_text(code, "utf-8")
    words = Path(sys.executable).as_posix(), program.as_posix()  # `webbrowser` takes \\ away
    return f"{shlex.join(words)} %s"


class Terminal:
    """A folder in which commands are run, with an environment without settings of the machine's."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        (home / "config.toml").touch()
        theirs = (
            "VIBEVOICE",
            "_VIBEVOICE",
            "HF_",
            "HUGGING",
            "XDG_CACHE",
            "FORCE_COLOR",
            "NO_COLOR",
        )
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(theirs)},
            "COLUMNS": "200",
            "HF_HOME": str(home / "huggingface"),
            "VIBEVOICE_CONFIG": str(home / "config.toml"),
            "VIBEVOICE_WHISPER_MODEL": "tiny",  # as in `service_environment`
            **env,
        }

    def start(self, *words: object, fresh: bool = False, **env: str) -> subprocess.Popen[str]:
        """Start a command whose output goes to pipes."""
        return popen(
            [*installed_command(), *map(str, words)],
            fresh=fresh,
            cwd=self.home,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            **HIDDEN,
            # Tests that run in the background of a shell inherit a Ctrl-C that is ignored.
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
            if os.name == "posix"
            else None,
        )

    def run(
        self, *words: object, fresh: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run_command(
            [*installed_command(), *map(str, words)],
            fresh=fresh,
            cwd=self.home,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
        )

    def shown(
        self,
        *words: object,
        typed: bytes | None = None,
        piped: bool = False,
        once: tuple[bytes, Callable[[], object]] | None = None,
        **env: str,
    ) -> tuple[int, bytes, str]:
        """Run a command at a terminal where ``typed`` is typed: its exit code, what was shown, and
        what went into the pipe of its output if it is ``piped``. ``once``: what is done when the
        terminal has shown what this expression matches."""
        import pty

        ours, theirs = pty.openpty()
        if typed:
            os.write(ours, typed)
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL if typed is None else theirs}
        with popen(
            [*installed_command(), *map(str, words)],
            cwd=self.home,
            env={**self.env, "TERM": "xterm", **env},
            stdout=subprocess.PIPE if piped else theirs,
            stderr=theirs,
            **how,
        ) as process:
            os.close(theirs)
            shown = bytearray()
            if once:
                pattern, act = once
                try:
                    read = partial(os.read, ours, 1 << 16)
                    wait_until(lambda: shown.extend(read()) or re.search(pattern, shown), "shown")
                    act()
                except BaseException:
                    process.kill()
                    raise
            shown += shown_on(ours)
            out, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, bytes(shown), (out or b"").decode()


def check_one_line(run: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """It failed with this exit code and one line that says all of ``parts``."""
    assert run.returncode == code, run.stderr
    assert run.stderr.startswith("vibevoice-asr: ")
    assert run.stderr.count("\n") == 1, run.stderr
    for part in parts:
        assert part in run.stderr
