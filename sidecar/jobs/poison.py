"""Whether a recording is to blame that those who work on it die: pure.

An engine's process that dies while its service lives says a lot: something in the recording may be
what kills it. A service that dies says little: most are killed by who owns the machine, and a
recording that takes all of it along (memory that is counted for both) does so each time. What
counts is since the job last got any further (`jobs.record`): what is settled is evidence that it
can be heard.
"""

from __future__ import annotations

from sidecar import errors

OF_A_CRASH = 5
"""What an engine's process that dies under a living service weighs."""
OF_A_DEATH = 1
"""The same of a service."""
ENOUGH = 10
"""So two crashes are, ten deaths, and one crash with five deaths."""


def weight(crashes: int, deaths: int) -> int:
    """How much speaks against a recording in which so many engines crashed, and so many services
    died."""
    return crashes * OF_A_CRASH + deaths * OF_A_DEATH


def given_up(crashes: int, deaths: int) -> errors.EngineCrashed | None:
    """What a job ends with in which so many died; None where it is to be tried again."""
    if weight(crashes, deaths) < ENOUGH:
        return None
    if not deaths:
        return errors.EngineCrashed()
    died = f"{deaths} services ended while they worked on this"
    also = f", and the engine's process died {crashes} times" if crashes else ""
    return errors.EngineCrashed(f"{died}{also}; nothing more of it was settled meanwhile.")
