"""Which build this is: the release, and in a packaged one the git revision it was made from."""

from __future__ import annotations

import re
from pathlib import Path

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
