"""The service as its host has it: pipes to all of its standard streams."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service_process import PATIENCE_S, REPOSITORY, popen, service_environment

SERVE = [sys.executable, "-m", "sidecar.main"]
PORT_PATIENCE = {"test_limits": json.dumps(dict.fromkeys(("port_probe", "port_stop"), PATIENCE_S))}
"""A service at a port that has no processor for a while is not taken for another program."""


class HostedService:
    """One that was started, with ``words`` behind the command and these settings in variables."""

    def __init__(
        self,
        home: Path,
        *words: object,
        command: Sequence[str] = SERVE,
        env: Mapping[str, str] | None = None,
        how: Mapping[str, Any] | None = None,
        **settings: object,
    ) -> None:
        """``env``: variables that are no settings. ``how``: options of `service_process.popen`."""
        own = {"HF_HOME": str(home / "hub"), **(env or {})}
        self.env = service_environment(home, **settings) | own
        usual: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        usual["cwd"] = REPOSITORY
        self.process: subprocess.Popen[bytes] = popen(
            [*command, *map(str, words)], env=self.env, **{**usual, **(how or {})}
        )

    def line(self) -> dict[str, Any]:
        """The line that it says on standard output."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.isascii()
        assert said.endswith(b"\n"), self.ended()
        return dict(json.loads(said))

    def tell(self, line: bytes) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def ended(self) -> tuple[int, bytes, str]:
        """Its exit code, what else it said on standard output, and all of standard error."""
        out, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, log.decode()

    def refused(self, code: str = "settings_invalid", exit_code: int = 78) -> dict[str, Any]:
        """Its line on standard output, in which it says why it does not start; it ends."""
        line = self.line()
        assert (line["event"], line["code"]) == ("fatal", code), line
        ended, out, self.log = self.ended()
        assert (ended, out) == (exit_code, b"")
        assert "Traceback" not in self.log
        return line


Start = Callable[..., HostedService]
