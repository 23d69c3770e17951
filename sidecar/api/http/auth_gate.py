"""Auth gate before every route and WebSocket; where tokens, keys and tickets are found.

Behind it every request has a caller, but for those at open addresses.

A browser cannot give a WebSocket headers of its own. So a key may come in the address (`api_key`),
as one of the subprotocols that are offered, or as a ticket that counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar import errors
from sidecar.api.http import auth_gate, request_headers
from sidecar.api.http.cors import AccessCors
from sidecar.api.http.error_responses import ErrorDialects, error_response_at
from sidecar.api.http.request_headers import check_header_sizes
from sidecar.auth.authentication import AccessPolicy, SleepFunction, identify_request
from sidecar.auth.identity import split_authorization
from sidecar.auth.one_time_codes import OneTimeCodes
from sidecar.auth.open_connections import RevocableStreams
from sidecar.auth.rate_limits import RateLimiter
from sidecar.auth.request_origin import PROXY_HEADER_PREFIXES, RequestOrigin
from sidecar.errors import RequestInvalid

PROBES = ("/healthz/live", "/healthz/ready", "/healthz/startup")
OPEN_PATHS = frozenset({"/health", "/healthz", *PROBES})
"""Paths without authentication: a liveness probe has no token."""
LEARNS_NOTHING = OPEN_PATHS | {"/v1/models"}
"""Paths that a page under a rebound name may read: they have nothing of any recording."""
SendRefusal = Callable[[errors.SidecarError, Scope, Receive, Send], Awaitable[None]]
"""Rejection of a WebSocket in the format of its wire."""
WebSocketRefusals = Mapping[str, SendRefusal]
"""By address; elsewhere the handshake is refused with 403."""
_NO_REFUSALS: WebSocketRefusals = {}
IsPublic = Callable[[Scope], bool]
"""Predicate: True if a request is for public content."""


class AuthGate:
    """Lets in what `AccessPolicy` lets in; pages of the allowed origins may read the answers
    (CORS)."""

    def __init__(
        self,
        app: ASGIApp,
        access: AccessPolicy,
        rate_limiter: RateLimiter | None = None,
        pause: SleepFunction = asyncio.sleep,
        dialects: ErrorDialects | None = None,
        visits: RevocableStreams | None = None,
        opens: IsPublic = lambda scope: False,
        refusals: WebSocketRefusals = _NO_REFUSALS,
        tickets: OneTimeCodes[auth_gate.TicketGrant] | None = None,
    ) -> None:
        """Without a ``rate_limiter`` requests are not counted, without ``visits`` streams are
        not revoked; ``pause`` waits for so many seconds. A request that ``opens`` accepts needs
        no authentication, as at `OPEN_PATHS`."""
        self._app, self._access, self._rate_limiter, self._pause = app, access, rate_limiter, pause
        self._dialects, self._visits = dialects or {}, visits or RevocableStreams()
        self._opens, self._refusals, self._tickets = opens, refusals, tickets
        # A page that may ask sees why it is refused.
        self._behind_cors = AccessCors(self._authenticate, access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            check_header_sizes(scope["headers"])
            self._access.check_peer_and_host(request_origin(scope))
        except errors.SidecarError as error:
            if "websocket.http.response" in scope.get("extensions", ()):  # status and body
                await error_response_at(scope["path"], self._dialects)(error)(scope, receive, send)
            else:
                await send_refusal(error, scope, receive, send, self._dialects)
            return
        await self._behind_cors(scope, receive, send)

    async def _authenticate(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.ExitStack() as opened:
            admitted = await self._admitted(scope, receive, send, opened)
            if admitted is not None:
                await self._app(admitted[0], receive, admitted[1])

    async def _admitted(
        self, scope: Scope, receive: Receive, send: Send, opened: contextlib.ExitStack
    ) -> tuple[Scope, Send] | None:
        """The scope with its caller and how to answer; None where it was refused. While ``opened``
        is, the request or connection counts as the caller's."""
        approach = request_origin(scope)
        try:
            if self._rate_limiter is not None:
                self._rate_limiter.admit_request(approach)
            if scope["path"] not in OPEN_PATHS and not self._opens(scope):
                approach, session = self._with_ticket(scope, approach)
                caller = await identify_request(
                    self._access, self._rate_limiter, approach, self._pause
                )
                if session is not None:
                    caller = dataclasses.replace(caller, scopes=frozenset())
                scope = request_headers.scope_with_identity(scope, caller, self._visits)
                scope["state"][auth_gate.AGREED_SESSION_KEY] = session
                if self._rate_limiter is not None:
                    try:
                        self._rate_limiter.enter(caller)
                    finally:
                        send = request_headers.send_with_rate_limit(
                            send, self._rate_limiter.standing(caller)
                        )
                opened.enter_context(self._visits.opened(caller))
        except errors.SidecarError as error:
            say_no = self._refusals.get(scope["path"]) if scope["type"] == "websocket" else None
            if say_no is not None:
                await say_no(error, scope, receive, send)
            else:
                await send_refusal(error, scope, receive, send, self._dialects)
            return None
        return scope, send

    def _with_ticket(
        self, scope: Scope, approach: RequestOrigin
    ) -> tuple[RequestOrigin, str | None]:
        """The approach of a WebSocket with the token that its ticket or key stands for, and the
        session that it opens, None for any."""
        if scope["type"] != "websocket" or self._tickets is None:
            return approach, None
        key = auth_gate.ephemeral_ticket(approach.authorizations)
        word = key or (None if approach.authorizations else auth_gate.ticket_of(scope))
        if word is None:
            return approach, None
        try:
            grant = self._tickets.take(word)
        except errors.LinkInvalid:
            if key is not None:  # it may be a token that looks like a key
                return approach, None
            raise errors.TicketInvalid() from None
        if grant.path not in (None, scope["path"]):
            raise errors.TicketInvalid(f"This client secret is valid for '{grant.path}' only.")
        given = [f"Bearer {grant.token}"]
        return dataclasses.replace(approach, authorizations=given), grant.session


def request_origin(scope: Scope) -> RequestOrigin:
    """Return the origin of a request."""
    headers = Headers(scope=scope)
    live = scope["type"] == "websocket"
    method = scope.get("method")
    scheme = str(scope.get("scheme", "http"))
    return RequestOrigin(
        hosts=headers.getlist("host"),
        origins=headers.getlist("origin"),
        authorizations=auth_gate.authorizations(scope)
        if live
        else headers.getlist("authorization"),
        fetch_site=headers.get("sec-fetch-site", ""),
        navigates=method == "GET" and headers.get("sec-fetch-mode") == "navigate",
        # Fetch: browsers send an Origin with every WebSocket and every method but these two.
        rebinding_proof=live or method not in ("GET", "HEAD") or scope["path"] in LEARNS_NOTHING,
        scheme={"ws": "http", "wss": "https"}.get(scheme, scheme),  # as an Origin has it
        peer=(scope.get("client") or (None,))[0],
        forwarded=any(name.startswith(PROXY_HEADER_PREFIXES) for name in headers),
    )


async def send_refusal(
    error: errors.SidecarError, scope: Scope, receive: Receive, send: Send, dialects: ErrorDialects
) -> None:
    """Answer before anybody has read the body; a WebSocket's handshake gets 403."""
    if scope["type"] == "websocket":
        await receive()
        message: Message = {"type": "websocket.close", "code": 1008, "reason": error.code}
        await send(message)
        return
    await error_response_at(scope["path"], dialects)(error)(scope, receive, send)


KEY_SUBPROTOCOL_PREFIXES = ("bearer.", "openai-insecure-api-key.")
"""Prefixes of a subprotocol that is a key: ours, and that of OpenAI's clients."""
ANONYMOUS = "nobody"
"""Stands for a token where none is asked for."""
AGREED_SESSION_KEY = "agreed_session"
"""Its name in the state of a connection."""
TICKET_PARAMETER = "ticket"
"""Its name in an address."""
MAX_QUERY_FIELDS = 100
"""In the query of an address."""
EPHEMERAL_KEY_PREFIX = "ek_"
"""Prefix of a key that may be a ticket, in all places where a key may be."""


@dataclass(frozen=True, slots=True)
class TicketGrant:
    """Grant of a ticket or an ephemeral key."""

    token: str
    path: str | None = None
    """The only address that it opens; None for every live connection."""
    session: str | None = None
    """The only session that it opens, as JSON; None for any."""


def agreed_session(scope: Scope) -> str | None:
    """The only session that the key of a connection opens, as JSON; None for any."""
    session: str | None = scope.get("state", {}).get(AGREED_SESSION_KEY)
    return session


def authorizations(scope: Scope) -> list[str]:
    """Return the bearer tokens of a connection, as if they had come in `Authorization`: from there,
    from `X-API-Key`, the address, or the subprotocols; the first of these that has any, and all of
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
            for begin in KEY_SUBPROTOCOL_PREFIXES
            if one.startswith(begin)
        ],
    )
    given = headers.getlist("authorization")
    return given or [f"Bearer {key}" for key in next(filter(None, ways), [])]


def sent_token(request: Request) -> str:
    """Return the token of a request that was let in, "" where it needed none."""
    return split_authorization(request.headers.get("authorization", ""))[1]


def ticket_of(scope: Scope) -> str | None:
    """The ticket in the address, None where there is none."""
    return next(iter(_query(scope).get(TICKET_PARAMETER, [])), None)


def ephemeral_ticket(authorizations: Sequence[str]) -> str | None:
    """The word in a key that may be a ticket."""
    if len(authorizations) != 1 or not authorizations[0].startswith(
        f"Bearer {EPHEMERAL_KEY_PREFIX}"
    ):
        return None
    return authorizations[0].removeprefix(f"Bearer {EPHEMERAL_KEY_PREFIX}")


def choose_subprotocol(scope: Scope, spoken: Sequence[str]) -> str | None:
    """The first of the subprotocols that are offered which a wire speaks; never one with a key."""
    return next((one for one in scope.get("subprotocols", ()) if one in spoken), None)


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(
            scope.get("query_string", b"").decode("latin-1"), max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError:
        raise RequestInvalid(f"The query has more than {MAX_QUERY_FIELDS} fields.") from None
