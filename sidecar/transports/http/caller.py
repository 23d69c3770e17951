"""Who sent a request: the gate writes it down, and wires read it here."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import Scope

from sidecar.access.identity import Identity

_KEY = "identity"


def with_caller(scope: Scope, caller: Identity) -> Scope:
    """The scope of a request or WebSocket, with who it comes from."""
    return {**scope, "state": {**scope.get("state", {}), _KEY: caller}}


def caller_of(connection: HTTPConnection) -> Identity:
    """Who sent this; a fault of ours at an address that is answered without asking who it is."""
    caller = connection.scope["state"][_KEY]
    assert isinstance(caller, Identity)
    return caller
