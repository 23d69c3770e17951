"""What the handshake of a WebSocket says of who asks, and in which language. Pure.

A browser cannot give a WebSocket headers of its own. So a key may come in the address (`api_key`),
as one of the subprotocols that are offered, or as a ticket that counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Scope

from sidecar.errors import RequestInvalid

KEYS_OFFERED = ("bearer.", "openai-insecure-api-key.")
"""How a subprotocol begins that is a key: ours, and that of OpenAI's clients."""
NOBODY = "nobody"
"""Stands for a token where none is asked for."""
SESSION = "agreed_session"
"""Its name in the state of a connection."""
TICKET = "ticket"
"""Its name in an address."""
MOST_FIELDS = 100
"""In the query of an address."""
EPHEMERAL = "ek_"
"""How a key begins that may be a ticket, in all places where a key may be."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a ticket or an ephemeral key stands for."""

    token: str
    path: str | None = None
    """The only address that it opens; None for every live connection."""
    session: str | None = None
    """The only session that it opens, as JSON; None for any."""


def agreed(scope: Scope) -> str | None:
    """The only session that the key of a connection opens, as JSON; None for any."""
    session: str | None = scope.get("state", {}).get(SESSION)
    return session


def authorizations(scope: Scope) -> list[str]:
    """What was sent as a bearer token, as if it had come in `Authorization`: from there, from
    `X-API-Key`, the address, or the subprotocols; the first of these that has any, and all of
    it: two are refused.

    Raises:
        errors.RequestInvalid: the address has too many fields.
    """
    headers = Headers(scope=scope)
    ways = (
        headers.getlist("x-api-key"),
        _query(scope).get("api_key", []),
        [
            one.removeprefix(begin)
            for one in scope.get("subprotocols", ())
            for begin in KEYS_OFFERED
            if one.startswith(begin)
        ],
    )
    given = headers.getlist("authorization")
    return given or [f"Bearer {key}" for key in next(filter(None, ways), [])]


def ticket(scope: Scope) -> str | None:
    """The ticket in the address, None where there is none."""
    return next(iter(_query(scope).get(TICKET, [])), None)


def ephemeral(authorizations: Sequence[str]) -> str | None:
    """The word in a key that may be a ticket."""
    if len(authorizations) != 1 or not authorizations[0].startswith(f"Bearer {EPHEMERAL}"):
        return None
    return authorizations[0].removeprefix(f"Bearer {EPHEMERAL}")


def chosen(scope: Scope, spoken: Sequence[str]) -> str | None:
    """The first of the subprotocols that are offered which a wire speaks; never one with a key."""
    return next((one for one in scope.get("subprotocols", ()) if one in spoken), None)


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(
            scope.get("query_string", b"").decode("latin-1"), max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise RequestInvalid(f"The address has more than {MOST_FIELDS} fields.") from None
