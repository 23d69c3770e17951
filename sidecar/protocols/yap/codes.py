"""How a connection of this wire ends: a close code, its reason, and what a frame says. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar import errors
from sidecar.api.http.sockets import close_code
from sidecar.config.settings import Settings
from sidecar.errors import Kind
from sidecar.protocols.yap.envelope import Ids, error_frame, in_its_words

IDLE, TOO_LONG = 4000, 4003


@dataclass(frozen=True, slots=True)
class Ending:
    """The last words of a connection; ``said`` is an error frame, None where there is none."""

    code: int
    reason: str
    said: str | None = None


def ending(error: errors.SidecarError, settings: Settings) -> Ending:
    """How ``error`` ends a connection."""
    if isinstance(error, errors.SessionIdle):
        return Ending(IDLE, settings.live_close_idle_reason)
    if isinstance(error, errors.SessionTooLong):
        return Ending(TOO_LONG, "max connection duration reached")
    refused = in_its_words(error)
    if isinstance(error, errors.InboundFull):
        refused.details["inbound_queue_max"] = settings.live_inbound
    own: dict[Kind | str, int] = {
        Kind.UNAUTHORIZED: settings.live_close_unauthorized,
        Kind.FORBIDDEN: settings.live_close_unauthorized,
        Kind.LIMITED: settings.live_close_busy,
        Kind.BUSY: settings.live_close_busy,
        errors.ShuttingDown.code: 1001,
    }
    return Ending(close_code(error, own), refused.reason, error_frame(refused, Ids()))
