"""Lines that are typed while somebody talks."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

from sidecar.cli.sounds import in_a_thread

LONGEST = 1 << 16


async def lines() -> AsyncIterator[str]:
    """Each line of standard input, as it comes, without its end."""
    if sys.stdin is None:
        return
    # Not by sys.stdin, whose lock a thread that waits for ever takes with it to the end.
    source, rest = sys.stdin.fileno(), b""
    while raw := await in_a_thread(lambda: os.read(source, LONGEST)):
        *whole, rest = (rest + raw).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").strip()
    if rest:
        yield rest.decode("utf-8", "replace").strip()
