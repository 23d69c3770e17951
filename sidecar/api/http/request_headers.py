"""Request headers (Prefer, Range, Idempotency-Key, RateLimit, handshake), principal, JSON input.

A browser cannot give a WebSocket headers of its own. So a key may come in the address (`api_key`),
as one of the subprotocols that are offered, or as a ticket that counts once.

As draft 11 of the IETF's httpapi group has them (structured fields: `q` quota, `w` window in
seconds, `r` remaining, `t` seconds until it is whole again).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Message, Scope, Send

from sidecar import errors
from sidecar.audio.audio_source import sha256_of_file
from sidecar.auth.identity import Identity, split_authorization
from sidecar.auth.rate_limits import RateLimitState
from sidecar.auth.revocable_streams import RevocableStreams
from sidecar.errors import RangeUnsatisfiable, RequestInvalid

_IDENTITY_KEY = "identity"
_REVOCABLE_KEY = "visits"


def scope_with_identity(scope: Scope, caller: Identity, visits: RevocableStreams) -> Scope:
    """The scope of a request or WebSocket, with who it comes from."""
    return {
        **scope,
        "state": {**scope.get("state", {}), _IDENTITY_KEY: caller, _REVOCABLE_KEY: visits},
    }


PEER_GONE_KEY = "peer_gone"
"""Name in the state of a connection: whether its client hung up, also while nothing is read."""


def is_peer_gone(connection: HTTPConnection) -> bool:
    """Return whether the client of a request hung up, as far as that is seen before its body is
    read."""
    look: Callable[[], bool] | None = connection.scope.get("state", {}).get(PEER_GONE_KEY)
    return look is not None and look()


def identity_of(connection: HTTPConnection) -> Identity:
    """Return the identity of the sender; an error of ours at an address that is answered without
    one."""
    caller = connection.scope["state"][_IDENTITY_KEY]
    assert isinstance(caller, Identity)
    return caller


def revocable(scope: Scope, sent_away: Callable[[], None]) -> AbstractContextManager[None]:
    """While this lasts, ``sent_away`` is called if what proved who sent the request counts no
    more: an answer that goes on for long has to end then."""
    state = scope.get("state", {})
    if _IDENTITY_KEY not in state:
        return nullcontext()
    visits: RevocableStreams = state[_REVOCABLE_KEY]
    return visits.lasting(state[_IDENTITY_KEY], sent_away)


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


IDEMPOTENCY_KEY_HEADER = "idempotency-key"
_IDEMPOTENCY_KEY = re.compile(r'"?(?P<name>[\x21\x23-\x7e]{1,255})"?', re.ASCII)
"""A structured string by the draft (draft-ietf-httpapi-idempotency-key-header); most clients send
it without the quotes."""


def idempotency_key_of(request: Request) -> str | None:
    """Return the idempotency key of a request, None if it has none.

    Raises:
        errors.FieldInvalid: it is no key.
    """
    given = request.headers.getlist(IDEMPOTENCY_KEY_HEADER)
    if not given:
        return None
    matched = _IDEMPOTENCY_KEY.fullmatch(given[0].strip())
    if matched is None or len(given) > 1:
        raise errors.FieldInvalid(
            "The header 'Idempotency-Key' is not a valid key.",
            hint="Send one, of 1 to 255 ASCII characters without spaces, such as a UUID.",
        )
    return matched["name"]


def request_digest(fields: Mapping[str, Any], upload: int | None) -> str:
    """Of all that was sent: two requests with the same are one. A file that was named counts by its
    name. May wait for a disk."""
    found = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    if upload is not None:
        found.update(sha256_of_file(upload).encode())
    return found.hexdigest()


_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_WORD = rf'(?:"(?:[^"\\]|\\.)*"|{_NAME})'
_PARAMETER = rf"{_NAME}(?:\s*=\s*{_WORD})?"
_PREFERENCE = re.compile(
    rf"\s*(?P<name>{_NAME})(?:\s*=\s*(?P<value>{_WORD}))?(?:\s*;(?:\s*{_PARAMETER})?)*\s*"
)


def parse_prefer(headers: Iterable[str]) -> dict[str, str]:
    """Names, in lower case, and values ("" for none); of several of one name the first counts.

    A header that breaks the rules says nothing from there on.
    """
    found: dict[str, str] = {}
    for header in headers:
        at = 0
        while at < len(header):
            if header[at] == ",":
                at += 1
                continue
            preference = _PREFERENCE.match(header, at)
            if preference is None or header[preference.end() : preference.end() + 1] not in ",":
                break
            value = (preference["value"] or "").strip('"')
            found.setdefault(preference["name"].lower(), value)
            at = preference.end()
    return found


def wants_async(headers: Iterable[str]) -> bool:
    """Return whether the client prefers a job now to its result later."""
    return parse_prefer(headers).get("respond-async") == ""


_NUMBER = re.compile(r"\d{0,18}", re.ASCII)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The first byte that is asked for and the one behind the last; None where it is all of them,
    or what is asked for is not understood, as the standard has it.

    Raises:
        errors.RangeUnsatisfiable: there are no such bytes.
    """
    unit, _, span = header.partition("=")
    first, dash, last = (part.strip() for part in span.partition("-"))
    wanted = unit.strip().lower() == "bytes" and dash and first + last
    if not wanted or not all(_NUMBER.fullmatch(one) for one in (first, last)):
        return None
    if first == "":  # so many at the end
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last or size) + 1)
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise RangeUnsatisfiable(f"The recording has {size} bytes.")
    return begin, end


RATE_LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")
_POLICY = '"requests"'


def rate_limit_headers(standing: RateLimitState) -> list[tuple[bytes, bytes]]:
    """The two headers."""
    rate = standing.rate
    return [
        (b"ratelimit-policy", f"{_POLICY};q={rate.amount:.0f};w={rate.window_s:.0f}".encode()),
        (b"ratelimit", f"{_POLICY};r={standing.left};t={standing.full_in_s}".encode()),
    ]


def send_with_rate_limit(send: Send, standing: RateLimitState) -> Send:
    """``send``, with the headers in the answer."""

    async def say(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {
                **message,
                "headers": [*message.get("headers", ()), *rate_limit_headers(standing)],
            }
        await send(message)

    return say


MAX_JSON_VALUES = 100_000
"""Of one message: each is looked at while everybody else's wait, and a message may have 4 MiB."""


def parse_json_message(text: str | bytes) -> Any:
    """Parse a JSON message.

    Raises:
        ValueError: it is no JSON, NaN included, or holds what no wire could send on: half of a
            surrogate pair, or a number beyond those of a double (``1e400``); or too many values.
    """
    found = from_json(text, allow_inf_nan=False)
    inner: Collection[Any]
    waiting, count = [found], 1
    while waiting:
        match waiting.pop():
            case dict() as rate_limit_headers:
                inner = rate_limit_headers.values()
            case list() as items:
                inner = items
            case float() as number if not math.isfinite(number):
                raise ValueError("a number is too large")
            case _:
                continue
        count += len(inner)
        if count > MAX_JSON_VALUES:
            raise ValueError(f"more than {MAX_JSON_VALUES:,} values")
        waiting += inner
    return found
