"""All that is kept of an owner, deleted at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sidecar.auth.identity import Identity
from sidecar.jobs.owned import OwnedJobs
from sidecar.live.sessions.session_registry import Sessions
from sidecar.service.known import KnownVoices


@dataclass(frozen=True, slots=True)
class Erased:
    """How many jobs and people are gone, and how many live sessions of the owner go on here."""

    jobs: int
    people: int
    live_sessions: int


class Erasure:
    """``captured``: forgets what was captured of an owner's sessions."""

    def __init__(
        self,
        jobs: OwnedJobs,
        voices: KnownVoices,
        live: Sessions,
        captured: Callable[[str], Awaitable[None]],
    ) -> None:
        self._jobs, self._voices, self._live = jobs, voices, live
        self._captured = captured

    async def erase(self, caller: Identity) -> Erased:
        """Forget the caller's people, then its jobs, of which those that wait or run end, then what
        was said in live sessions that are over. Asking again does no harm, and does the rest where
        it went wrong.

        Raises:
            errors.JournalUnreachable: it may be done or not.
            errors.DiskFull, errors.SidecarError: it cannot be written; what was done stays done.
        """
        people = await self._voices.forget(caller)
        jobs = await self._jobs.delete_all(caller)
        self._live.forget_over(caller.owner)
        await self._captured(caller.owner)
        going = sum(one.owner == caller.owner for one in self._live.going_on())
        return Erased(jobs, people, going)
