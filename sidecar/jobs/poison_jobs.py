"""Poison jobs: limits of attempts after worker crashes and service deaths. Pure."""

from __future__ import annotations

from sidecar import errors

CRASH_WEIGHT = 5
"""Weight of a crash of the engine's worker process while the service lives on."""
SERVICE_DEATH_WEIGHT = 1
"""Weight of the death of a service."""
POISON_WEIGHT = 10
"""Weight at which a job fails: two crashes, ten deaths, or one crash and five deaths."""
# One machine may be at fault. If two fail alike, the recording is to blame.
MAX_NODE_ATTEMPTS = 2
"""Nodes that try a job before it fails."""


def poison_weight(crashes: int, deaths: int) -> int:
    """Return the evidence against a recording after this many engine crashes and service deaths."""
    return crashes * CRASH_WEIGHT + deaths * SERVICE_DEATH_WEIGHT


def poison_error(crashes: int, deaths: int) -> errors.EngineCrashed | None:
    """Return the error of a job after this many crashes and deaths; None if it is tried again."""
    if poison_weight(crashes, deaths) < POISON_WEIGHT:
        return None
    if not deaths:
        return errors.EngineCrashed()
    died = f"{deaths} services ended while they worked on this"
    also = f", and the engine's process died {crashes} times" if crashes else ""
    return errors.EngineCrashed(f"{died}{also}, without progress between the attempts.")
