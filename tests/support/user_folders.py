"""What keeps tests away from the data of whoever runs them, whose own service may run beside.

An audit hook sees what this process opens and starts. A service of the user's that writes to its
own folders meanwhile is no fault of a test, so those folders are not looked at.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

NAMES = (
    ("WIN_PD_OVERRIDE_LOCAL_APPDATA",) if os.name == "nt" else ("XDG_DATA_HOME", "XDG_STATE_HOME")
)
"""The variables that say where a service that is given no folder has its data."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset(
    ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree")
)
"""Events of what makes, deletes or moves something."""
_WATCHED = _CHANGES | {"open", "sqlite3.connect", "subprocess.Popen"}
"""Events that are looked at: there are hundreds of others in each test, such as of `id`."""


class Guard:
    """Refuses what writes to ``folders`` or deletes there, and what starts a service that would:
    one with the ``home`` of whoever runs the tests, or with what their ``env`` says of `NAMES`.

    Raises `AssertionError` from within the call that is at fault, so that its test fails.
    """

    def __init__(self, env: Mapping[str, str], home: Path, folders: Sequence[Path]) -> None:
        self._home = home
        self._named = {name: env[name] for name in NAMES if env.get(name)}
        self._folders = folders

    def __call__(self, event: str, args: Sequence[Any]) -> None:
        """Look at an event (`sys.addaudithook`)."""
        if event not in _WATCHED:
            return
        match event, args:
            case "open", (str() | os.PathLike() as path, _, int(flags)) if flags & _WRITES:
                self._check_path(path)
            case "sqlite3.connect", (str() | os.PathLike() as path, *_):
                self._check_path(str(path).removeprefix("file:").partition("?")[0])
            case changes, (str() | os.PathLike() as path, *rest) if changes in _CHANGES:
                self._check_path(path)
                if rest and isinstance(rest[0], str | os.PathLike):  # where it is moved
                    self._check_path(rest[0])
            case "subprocess.Popen", (_, command, _, env):
                words = command.split() if isinstance(command, str) else [*map(str, command)]
                if _is_ours(words):
                    self._check_child(os.environ if env is None else env)

    def _check_path(self, path: str | os.PathLike[str]) -> None:
        at = os.path.abspath(path)
        for folder in self._folders:
            inside = at == str(folder) or at.startswith(f"{folder}{os.sep}")
            assert not inside, f"a test writes to {at}, where the user's own data are"

    def _check_child(self, env: Mapping[Any, Any]) -> None:
        said = {os.fsdecode(key): os.fsdecode(value) for key, value in env.items()}
        elsewhere = said.get("HOME", str(self._home)) != str(self._home)
        for name in NAMES:
            value = said.get(name)
            safe = value != self._named.get(name) if value else elsewhere
            assert safe, f"a test starts a service whose data would be the user's own: set {name}"


def _is_ours(words: Sequence[str]) -> bool:
    """Whether a command runs the service or its command line; a worker process has no data."""
    program = Path(words[0]).name
    said = " ".join(words[1:])
    python = program.startswith("python") and "sidecar" in said and "sidecar.workers." not in said
    return python or program.startswith("vibevoice-asr")


def watch() -> None:
    """Look at this process until it ends."""
    folders = [
        find("vibevoice-asr", appauthor=False)
        for find in (platformdirs.user_data_path, platformdirs.user_state_path)
    ]
    sys.addaudithook(Guard(dict(os.environ), Path.home(), folders))
