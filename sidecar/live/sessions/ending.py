"""When a live session ends by the clock: nobody came back, nothing came, or it lasted too long."""

from __future__ import annotations

from sidecar import errors
from sidecar.live.sessions.session import Session

KEEPING_S = 120.0
"""So long one that is kept may take to tell the rest, when nobody is there or its time is over."""


def abandoned(session: Session, now: float, grace_s: float) -> bool:
    """Whether it ends because nobody came back to it; what is kept tells the rest before."""
    left = session.left_at
    return left is not None and now - left >= grace_s and not _finishes(session, now)


def overdue(session: Session, now: float, grace_s: float) -> errors.SidecarError | None:
    """What it ends with because its time is over while somebody is there, or may come; what is
    kept tells the rest before."""
    left = session.left_at
    if session.over or (left is not None and now - left >= grace_s) or _finishes(session, now):
        return None
    return session.overdue(now)


def _finishes(session: Session, now: float) -> bool:
    """Whether one whose time may be over is kept, and tells the rest for that."""
    left = session.left_at is not None
    if not session.options.keep or session.over:
        return False
    if not session.finishing:
        if not left and session.overdue(now) is None:
            return False
        session.finish(asked=False)
    return now - session.touched < KEEPING_S
