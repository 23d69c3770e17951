"""Version of the contract with hosts and of this build; commands that start or extend it.

A build is its release, and in a packaged one the git revision it was made from.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path

CONTRACT = 1
"""Version of what a host relies on: the ready line, the exit codes, the signals, `/health`."""
DISTRIBUTION = "vibevoice-asr"
REVISION_FILE = "REVISION"
"""Written into a build beside this module; the source tree needs none."""


def is_frozen() -> bool:
    """Return whether this is an executable with all it needs inside, into which nothing is
    installed."""
    return bool(getattr(sys, "frozen", False))


def own_command(module: str, *words: str, frozen: tuple[str, ...] = ()) -> list[str]:
    """Return the command that starts another process of us: ``module`` by this interpreter, with
    ``words`` for Python before.

    An executable has no modules to be named: it is given the words ``frozen`` instead.
    """
    if is_frozen():
        return [sys.executable, *frozen]
    return [sys.executable, *words, "-m", module]


def install_command(extra: str) -> str:
    """Return how the packages of an extra ("": of the base alone) come to this installation, by the
    way that it came itself: no index has the project, so its name alone finds nothing. There is no
    path of this machine in it, for hints go to clients, too."""
    wanted = f"[{extra}]" if extra else ""
    if is_frozen():
        return (
            f"the executable has no extra '{extra}': install with Python instead, "
            f"pip install '.{wanted}' in the folder of the source"
        )
    if Path(__file__).parents[1].joinpath("pyproject.toml").exists():
        return f"pip install -e '.{wanted}' in the folder of the source"
    try:
        came = json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        came = {}
    if "dir_info" in came:
        return f"pip install '.{wanted}' in the folder of the source"
    if "vcs_info" in came:
        vcs = came["vcs_info"]
        return f"pip install '{DISTRIBUTION}{wanted} @ {vcs['vcs']}+{came['url']}'"
    if "archive_info" in came:
        file = came["url"].rpartition("/")[2]
        return f"pip install './{file}{wanted}' in the folder of that file"
    return f"pip install '{DISTRIBUTION}{wanted}'"


def build_version(release: str, folder: Path | None = None) -> str:
    """``release``, and the revision as a local version (PEP 440) where a build left one.

    Two builds of one release are two versions: a host that finds an orphan of the other one
    on its port can tell.
    """
    path = (folder or Path(__file__).parent) / REVISION_FILE
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return release
    revision = ".".join(re.findall(r"[a-z0-9]+", text.lower()))
    return f"{release}+{revision}" if revision else release
