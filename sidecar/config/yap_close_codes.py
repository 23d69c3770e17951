"""Close codes of the yap protocol, from the variables of its server (docs/live.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sidecar import errors
from sidecar.config.settings import yap_variable

MAX_REASON_BYTES = 123
"""Maximum bytes of a close frame's reason (RFC 6455, 5.5)."""


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
            errors.SettingsInvalid: a code is not a close code, or the reason is too long for a
                frame.
        """
        reason = yap_variable("WS_CLOSE_IDLE_REASON") or cls().idle_reason
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise errors.SettingsInvalid("WS_CLOSE_IDLE_REASON is too long for a close frame.")
        return cls(
            _close_code("WS_CLOSE_UNAUTHORIZED_CODE", cls().unauthorized),
            _close_code("WS_CLOSE_BUSY_CODE", cls().busy),
            reason,
        )


def _close_code(variable: str, usual: int) -> int:
    value = yap_variable(variable) or str(usual)
    if not re.fullmatch(r"[1-4][0-9]{3}", value, re.ASCII):
        raise errors.SettingsInvalid(
            f"{variable} is not a close code.", hint="Use a number from 1000 to 4999."
        )
    return int(value)
