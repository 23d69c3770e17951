"""Version of this build, and of the contract with hosts.

A build's version is its release, plus the git revision if it is packaged.
"""

import re
from pathlib import Path

CONTRACT = 1
"""Version of the contract with hosts: the ready line, the exit codes, the signals, `/health`."""
REVISION_FILE = "REVISION"
"""File beside this module that a build writes; the source tree has none."""


def build_version(release: str, folder: Path | None = None) -> str:
    """Return ``release``, with the revision as a local version (PEP 440) if the build wrote one.

    Two builds of one release have different versions. So a host that finds an orphan of the other
    build on its port can distinguish them.
    """
    path = (folder or Path(__file__).parent) / REVISION_FILE
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return release
    revision = ".".join(re.findall(r"[a-z0-9]+", text.lower()))
    return f"{release}+{revision}" if revision else release


__version__ = build_version("1.0.0")
