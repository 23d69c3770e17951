"""How many files and connections this process may have open."""

from __future__ import annotations

import sys

MACOS_MOST = 10_240
"""OPEN_MAX: there a limit that says "infinite" is none that can be set."""


def raise_limit() -> None:
    """As many as the system allows us; its usual 1,024 are for programs that use `select`, and
    every client that follows a job is one. Children inherit it. On Windows there is none."""
    if sys.platform == "win32":
        return
    import resource

    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (most, MACOS_MOST):
        if soft in (limit, resource.RLIM_INFINITY) or soft > limit > 0:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        except (ValueError, OSError):
            continue
        return


def limit() -> int | None:
    """How many that are; None where there is no limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
