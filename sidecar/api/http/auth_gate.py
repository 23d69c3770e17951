"""Authentication gate of all routes and WebSockets; sources of tokens, keys and tickets.

Every request that passes it has an identity, except at public paths.

A browser cannot set the headers of a WebSocket. So a key may come in the query (`api_key`), as one
of the offered subprotocols, or as a one-time ticket.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar import errors
from sidecar.api.http import error_responses, middleware, request_headers
from sidecar.auth.authentication import AccessControl, OneTimeCodes
from sidecar.auth.identity import PROXY_HEADER_PREFIXES, RequestOrigin, split_authorization

PROBES = ("/healthz/live", "/healthz/ready", "/healthz/startup")
OPEN_PATHS = frozenset({"/health", "/healthz", *PROBES})
"""Paths without authentication: a liveness probe has no token."""
LEARNS_NOTHING = OPEN_PATHS | {"/v1/models"}
"""Paths that a page under a rebound name may read: without scopes they reveal nothing."""
_ORIGIN_KEY = "origin"
"""Key of the `RequestOrigin` in the scope, behind CORS."""
SendRefusal = Callable[[errors.SidecarError, Scope, Receive, Send], Awaitable[None]]
KEY_SUBPROTOCOL_PREFIXES = ("bearer.", "openai-insecure-api-key.")
"""Prefixes of a subprotocol that is a key: that of this service and that of OpenAI's clients."""
ANONYMOUS = "nobody"
"""Stands for a token where none is required."""
AGREED_SESSION_KEY = "agreed_session"
"""Key in the state of a connection."""
TICKET_PARAMETER = "ticket"
"""Name of the query parameter."""
MAX_QUERY_FIELDS = 100
"""Maximum of fields in a query."""
EPHEMERAL_KEY_PREFIX = "ek_"
"""Prefix of a key that may be a ticket, wherever a key is accepted."""


@dataclass(frozen=True, slots=True)
class PortRules:
    """Rules of the protocols at one port.

    ``refusals``: refusals of WebSockets by path; on other paths the handshake is refused with 403.
    A request that ``opens`` accepts needs no authentication, like those at `OPEN_PATHS`.
    ``tidy_prefixes``: as in `middleware.TidyPaths`.
    """

    refusals: Mapping[str, SendRefusal] = field(default_factory=dict)
    dialects: error_responses.ErrorDialects = field(default_factory=dict)
    opens: Callable[[Scope], bool] = lambda scope: False
    tickets: OneTimeCodes[TicketGrant] | None = None
    tidy_prefixes: tuple[str, ...] = ()


class AuthGate:
    """Admission by the `AccessControl`; pages of allowed origins may read the responses (CORS)."""

    def __init__(self, app: ASGIApp, access: AccessControl, rules: PortRules) -> None:
        self._app, self._access, self._rules = app, access, rules
        # The gate is behind CORS, so that an allowed page can read why it is refused.
        self._behind_cors = middleware.AccessCors(self._authenticate, access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        parts = {name: scope[name] for name in error_responses.LOGGED_PARTS if name in scope}
        error_responses.CURRENT_REQUEST.set(parts)
        try:
            request_headers.check_header_sizes(scope["headers"])
            origin = request_origin(scope)
            self._access.check_origin(origin)
        except errors.SidecarError as error:
            if "websocket.http.response" in scope.get("extensions", ()):  # status and body
                await self._send_error(error, scope, receive, send)
            else:
                await self._refuse(error, scope, receive, send)
            return
        await self._behind_cors({**scope, _ORIGIN_KEY: origin}, receive, send)

    async def _authenticate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with the identity of its client, and count it as the client's until it
        ends; or refuse it."""
        origin, rate_limiter = scope[_ORIGIN_KEY], self._access.rate_limiter
        streams = self._access.streams
        with contextlib.ExitStack() as opened:
            try:
                if rate_limiter is not None:
                    rate_limiter.admit_request(origin)
                if scope["path"] not in OPEN_PATHS and not self._rules.opens(scope):
                    origin, session = self._with_ticket(scope, origin)
                    identity = await self._access.authenticate(origin)
                    if session is not None:
                        identity = dataclasses.replace(identity, scopes=frozenset())
                    scope = request_headers.scope_with_identity(scope, identity, streams)
                    scope["state"][AGREED_SESSION_KEY] = session
                    if rate_limiter is not None:
                        try:
                            rate_limiter.enter(identity)
                        finally:
                            state = rate_limiter.state(identity)
                            send = middleware.send_with_rate_limit(send, state)
                    opened.enter_context(streams.opened(identity))
            except errors.SidecarError as error:
                send_refusal = self._rules.refusals.get(scope["path"])
                if scope["type"] == "websocket" and send_refusal is not None:
                    await send_refusal(error, scope, receive, send)
                else:
                    await self._refuse(error, scope, receive, send)
                return
            await self._app(scope, receive, send)

    async def _refuse(
        self, error: errors.SidecarError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse a request before its body is read; the handshake of a WebSocket gets 403."""
        if scope["type"] == "websocket":
            error_responses.log_error(error, None)
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        else:
            await self._send_error(error, scope, receive, send)

    async def _send_error(
        self, error: errors.SidecarError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send an error with its status and body, in the format of the request."""
        render = error_responses.error_response_at(scope, self._rules.dialects)
        await render(error)(scope, receive, send)

    def _with_ticket(self, scope: Scope, origin: RequestOrigin) -> tuple[RequestOrigin, str | None]:
        """Return the origin of a WebSocket with the token of its ticket or key, and the only
        session that this opens (`None`: any)."""
        if scope["type"] != "websocket" or self._rules.tickets is None:
            return origin, None
        given, begin, key = origin.authorizations, f"Bearer {EPHEMERAL_KEY_PREFIX}", None
        if len(given) == 1 and given[0].startswith(begin):  # perhaps a ticket
            key = given[0].removeprefix(begin)
        word = key
        if not given:
            word = next(iter(_query(scope).get(TICKET_PARAMETER, [])), None)
        if word is None:
            return origin, None
        try:
            grant = self._rules.tickets.take(word)
        except errors.LinkInvalid:
            if key is not None:  # it may be a token that looks like a key
                return origin, None
            raise errors.TicketInvalid() from None
        if grant.path not in (None, scope["path"]):
            raise errors.TicketInvalid(f"This client secret is valid for '{grant.path}' only.")
        token = [f"Bearer {grant.token}"]
        return dataclasses.replace(origin, authorizations=token), grant.session


def request_origin(scope: Scope) -> RequestOrigin:
    """Return the origin of a request."""
    headers = Headers(scope=scope)
    live = scope["type"] == "websocket"
    method = scope.get("method")
    scheme = str(scope.get("scheme", "http"))
    return RequestOrigin(
        hosts=headers.getlist("host"),
        origins=headers.getlist("origin"),
        authorizations=authorizations(scope) if live else headers.getlist("authorization"),
        fetch_site=headers.get("sec-fetch-site", ""),
        navigates=method == "GET" and headers.get("sec-fetch-mode") == "navigate",
        # Fetch: browsers send an Origin with every WebSocket and every method but these two.
        rebinding_proof=live or method not in ("GET", "HEAD"),
        learns_nothing=scope["path"] in LEARNS_NOTHING,
        scheme={"ws": "http", "wss": "https"}.get(scheme, scheme),  # as in an Origin
        peer=(scope.get("client") or (None,))[0],
        forwarded=any(name.startswith(PROXY_HEADER_PREFIXES) for name in headers),
    )


@dataclass(frozen=True, slots=True)
class TicketGrant:
    """Grant of a ticket or an ephemeral key."""

    token: str
    path: str | None = None
    """The only path that it opens; `None`: every live connection."""
    session: str | None = None
    """The only session that it opens, as JSON; `None`: any."""


def authorizations(scope: Scope) -> list[str]:
    """Return the bearer tokens of a connection, in the form of `Authorization` headers.

    Sources in order: `Authorization`, `X-API-Key`, query, subprotocols. The first one with a token
    counts, with all its tokens, as more than one are refused later.

    Raises:
        errors.RequestInvalid: the query has too many fields.
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
    """Return the token of an admitted request; "" if it needed none."""
    return split_authorization(request.headers.get("authorization", ""))[1]


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(
            scope.get("query_string", b"").decode("latin-1"), max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError:
        raise errors.RequestInvalid(f"The query has more than {MAX_QUERY_FIELDS} fields.") from None
