"""Keys for clients that should not have a token: each opens one connection, heard as was agreed.

One is a ticket (`http.tickets`) and, behind a dot, the word for what was agreed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from sidecar import errors
from sidecar.access.handover import Handover
from sidecar.transports.http.handshake import EPHEMERAL, authorizations, ephemeral

NOBODY = "nobody"
"""Stands for a token where none is asked for."""


class Keys:
    """Those that wait; ``tickets`` are those that the gate takes."""

    def __init__(self, tickets: Handover) -> None:
        self._tickets, self._agreed = tickets, Handover()

    def give(self, token: str, owner: str, session: Mapping[str, Any]) -> str:
        """A key for a token of ``owner``, and for a session that is heard as ``session`` says."""
        agreed = self._agreed.give(json.dumps(session), owner)
        return f"{EPHEMERAL}{self._tickets.give(token or NOBODY, owner)}.{agreed}"

    def agreed(self, scope: Scope) -> Mapping[str, Any]:
        """What was agreed for a connection; nothing for one with a key of another kind."""
        key = ephemeral(authorizations(scope))
        if key is None:
            return {}
        try:
            session: Mapping[str, Any] = json.loads(self._agreed.take(key[1]))
        except errors.LinkInvalid:
            return {}
        return session
