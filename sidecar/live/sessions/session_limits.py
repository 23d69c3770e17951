"""Admission of live sessions, and their time limits (`live_grace`, `live_idle`, `live_longest`).

How many of them may speak at once the engine decides (`live.runtime.load_shedding`), by what they
say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Self

from sidecar import errors
from sidecar.auth.identity import Identity, Scope
from sidecar.auth.rate_limits import is_within_fair_share
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.session import Session, SessionBounds, clamp_options


@dataclasses.dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many there may be: in all, and of one owner (None: as its limits say); for how many
    seconds one waits for a client that went; bytes of sound that all of them keep; and how long a
    final may wait because of others, 0 for no such limit."""

    sessions: int = 100
    of_owner: int | None = None
    grace_s: float = 15.0
    sound_bytes: int = 256 << 20
    delay_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(
            settings.live_sessions,
            settings.live_sessions
            if settings.live_sessions_per_owner == 0
            else settings.live_sessions_per_owner,
            settings.live_grace,
            settings.live_buffer_mb << 20,
            settings.live_delay,
        )


class SessionAdmission:
    """``spec``: of the engine that hears live, None where none does."""

    def __init__(self, spec: EngineSpec | None, room: SessionLimits) -> None:
        self.spec = spec
        self._room = room

    @property
    def most(self) -> int:
        """How many there may be."""
        return min(self._room.sessions, self.spec.sessions if self.spec else 0)

    def check(self, caller: Identity, there: Collection[Session]) -> None:
        """Refuse one more beside those that are ``there``.

        Raises:
            errors.LiveUnavailable: no engine here hears live.
            errors.LiveFull, errors.LiveLimited: there are enough of them.
        """
        if self.spec is None:
            raise errors.LiveUnavailable()
        going = [one for one in there if not one.over]
        if len(going) >= self.most:
            raise errors.LiveFull()
        has = sum(one.owner == caller.owner for one in going)
        if not self._may_have_more(caller, has, self.most - len(going)):
            raise errors.LiveLimited()

    def accepted(self, options: LiveOptions, bounds: SessionBounds) -> LiveOptions:
        """Return the options as a session has them, whether it begins, changes or is taken up.

        Raises:
            errors.LanguageUnsupported: the engine does not know the language.
            errors.BadRequest: as `clamp_options`.
        """
        options = clamp_options(options, bounds)
        if self.spec is not None and not self.spec.speaks(options.language):
            detail = f"The engine '{self.spec.name}' does not support '{options.language}'."
            raise errors.LanguageUnsupported(detail)
        return options

    def _may_have_more(self, caller: Identity, has: int, free: int) -> bool:
        """Return whether the caller may have one more session beside so many. By default some are
        left to others; a token with the scope 'lease' is of a service that counts its own
        owners."""
        if self._room.of_owner is not None:
            return has < self._room.of_owner
        limits = caller.limits
        if Scope.LEASE in caller.scopes:
            return True
        if limits.live_sessions is not None and has >= limits.live_sessions:
            return False
        return not limits.shares or is_within_fair_share(has, 1, free)


FINISH_TIMEOUT_S = 120.0
"""So long one that is kept may take to tell the rest, when nobody is there or its time is over."""


def is_abandoned(session: Session, now: float, grace_s: float) -> bool:
    """Return whether a session ends because its client did not come back; one that is kept sends
    the rest before."""
    left = session.disconnected_at
    return left is not None and now - left >= grace_s and not _is_finishing(session, now)


def time_limit_error(session: Session, now: float, grace_s: float) -> errors.SidecarError | None:
    """Return the error of a session whose time is over while its client is there, or may come; one
    that is kept sends the rest before."""
    left = session.disconnected_at
    if session.over or (left is not None and now - left >= grace_s) or _is_finishing(session, now):
        return None
    return session.overdue(now)


def _is_finishing(session: Session, now: float) -> bool:
    """Return whether a session whose time may be over is kept, and sends the rest for that."""
    left = session.disconnected_at is not None
    if not session.options.keep or session.over:
        return False
    if not session.finishing:
        if not left and session.overdue(now) is None:
            return False
        session.finish(asked=False)
    return now - session.touched < FINISH_TIMEOUT_S
