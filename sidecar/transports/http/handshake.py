"""What the handshake of a WebSocket says of who asks, and in which language. Pure.

A browser cannot give a WebSocket headers of its own. So a key may come in the address (`api_key`),
as one of the subprotocols that are offered, or as a ticket that counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Scope

KEYS_OFFERED = ("bearer.", "openai-insecure-api-key.")
"""How a subprotocol begins that is a key: ours, and that of OpenAI's clients."""
TICKET = "ticket"
"""Its name in an address."""
EPHEMERAL = "ek_"
"""How a key begins that may be a ticket, up to the first dot, in all places where a key may be."""


def authorizations(scope: Scope) -> list[str]:
    """What was sent as a bearer token, as if it had come in `Authorization`: from there, from
    `X-API-Key`, the address, or the subprotocols; the first of these that has any, and all of
    it: two are refused."""
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


def ephemeral(authorizations: Sequence[str]) -> tuple[str, str] | None:
    """The word in a key that may be a ticket, and what stands behind it."""
    if len(authorizations) != 1 or not authorizations[0].startswith(f"Bearer {EPHEMERAL}"):
        return None
    word, _, rest = authorizations[0].removeprefix(f"Bearer {EPHEMERAL}").partition(".")
    return word, rest


def chosen(scope: Scope, spoken: Sequence[str]) -> str | None:
    """The first of the subprotocols that are offered which a wire speaks; never one with a key."""
    return next((one for one in scope.get("subprotocols", ()) if one in spoken), None)


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=100)
