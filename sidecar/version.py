"""Version of this build, and of the contract with hosts.

A build is its release, and in a packaged one the git revision it was made from.
"""

from __future__ import annotations

import re
from pathlib import Path

CONTRACT = 1
"""Version of what a host relies on: the ready line, the exit codes, the signals, `/health`."""
REVISION_FILE = "REVISION"
"""Written into a build beside this module; the source tree needs none."""


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


__version__ = build_version("0.2.0")
