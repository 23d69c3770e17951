"""Who sent a request: the gate writes it down, and wires read it here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from starlette.requests import HTTPConnection
from starlette.types import Scope

from sidecar.auth.identity import Identity
from sidecar.auth.revocable_streams import Visits

_KEY = "identity"
_VISITS = "visits"


def with_caller(scope: Scope, caller: Identity, visits: Visits) -> Scope:
    """The scope of a request or WebSocket, with who it comes from."""
    return {**scope, "state": {**scope.get("state", {}), _KEY: caller, _VISITS: visits}}


def caller_of(connection: HTTPConnection) -> Identity:
    """Who sent this; a fault of ours at an address that is answered without asking who it is."""
    caller = connection.scope["state"][_KEY]
    assert isinstance(caller, Identity)
    return caller


def lasting(scope: Scope, sent_away: Callable[[], None]) -> AbstractContextManager[None]:
    """While this lasts, ``sent_away`` is called if what proved who sent the request counts no
    more: an answer that goes on for long has to end then."""
    state = scope.get("state", {})
    if _KEY not in state:
        return nullcontext()
    visits: Visits = state[_VISITS]
    return visits.lasting(state[_KEY], sent_away)
