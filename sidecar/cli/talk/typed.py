"""Lines that are typed while somebody talks."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

from sidecar.cli.sounds import in_a_thread


async def lines() -> AsyncIterator[str]:
    """Each line of standard input, as it comes, without its end."""
    pipe: Any = getattr(sys.stdin, "buffer", None)
    while pipe is not None and (raw := await in_a_thread(pipe.readline)):
        yield raw.decode("utf-8", "replace").strip()
