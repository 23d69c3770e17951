"""Variables of the yap server's environment: settings, and close codes of connections."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sidecar.config.setting_types import MAX_REASON_BYTES
from sidecar.config.settings import foreign_variable
from sidecar.errors import SettingsInvalid

YAP_VARIABLES = {
    "MAX_CONCURRENT_CONNECTIONS": "live_sessions",
    "WS_IDLE_TIMEOUT_S": "live_idle",
    "WS_MAX_CONNECTION_DURATION_S": "live_longest",
}
"""Settings by their variables in the yap server, whose protocol is served at `/api/asr-streaming`
(docs/live.md)."""
UNSUPPORTED_YAP_VARIABLES = (
    "WS_INBOUND_QUEUE_MAX",
    "WS_MAX_MESSAGES_PER_WINDOW",
    "WS_MAX_CANCELS_PER_WINDOW",
)
"""Variables whose values are fixed in this service; if one is set, the service logs a warning."""


@dataclass(frozen=True, slots=True)
class YapCloseCodes:
    """Close codes of connections; newer clients expect 1008, 1013 and `idle_timeout`."""

    unauthorized: int = 4001
    busy: int = 4002
    idle_reason: str = "idle timeout"

    @classmethod
    def of_environment(cls) -> YapCloseCodes:
        """Return the codes that the variables of the yap server configure (docs/live.md).

        Raises:
            SettingsInvalid: a code is not a close code, or the reason is too long for a
                frame.
        """
        reason = foreign_variable("WS_CLOSE_IDLE_REASON") or cls().idle_reason
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise SettingsInvalid("WS_CLOSE_IDLE_REASON is too long for a close frame.")
        return cls(
            _close_code("WS_CLOSE_UNAUTHORIZED_CODE", cls().unauthorized),
            _close_code("WS_CLOSE_BUSY_CODE", cls().busy),
            reason,
        )


def _close_code(variable: str, usual: int) -> int:
    value = foreign_variable(variable) or str(usual)
    if not re.fullmatch(r"[1-4][0-9]{3}", value, re.ASCII):
        raise SettingsInvalid(
            f"{variable} is not a close code.", hint="Use a number from 1000 to 4999."
        )
    return int(value)
