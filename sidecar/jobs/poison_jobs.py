"""Poison jobs: attempts after crashes of workers and deaths of services. Pure."""

from __future__ import annotations

from sidecar import errors

CRASH_WEIGHT = 5
"""Weight of an engine's process that dies under a living service."""
SERVICE_DEATH_WEIGHT = 1
"""The same of a service."""
POISON_WEIGHT = 10
"""So two crashes are, ten deaths, and one crash with five deaths."""
# a machine may be at fault; two that fail alike put the blame on the recording
MAX_NODE_ATTEMPTS = 2
"""Nodes that try a job which could not be done, before it fails."""


def poison_weight(crashes: int, deaths: int) -> int:
    """Return the evidence against a recording in which so many engines crashed, and so many
    services died."""
    return crashes * CRASH_WEIGHT + deaths * SERVICE_DEATH_WEIGHT


def poison_error(crashes: int, deaths: int) -> errors.EngineCrashed | None:
    """Return the error of a job in which so many processes died; None if it is to be tried
    again."""
    if poison_weight(crashes, deaths) < POISON_WEIGHT:
        return None
    if not deaths:
        return errors.EngineCrashed()
    died = f"{deaths} services ended while they worked on this"
    also = f", and the engine's process died {crashes} times" if crashes else ""
    return errors.EngineCrashed(f"{died}{also}, without progress between the attempts.")
