"""Request headers (size limits, Prefer, Idempotency-Key), identity, JSON messages."""

import asyncio
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.request import parse_http_list

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from sidecar.audio.audio_source import sha256_of_file
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import RevocableStreams
from sidecar.errors import FieldInvalid, HeaderTooLarge

_IDENTITY_KEY = "identity"
_REVOCABLE_KEY = "revocable_streams"


def scope_with_identity(scope: Scope, identity: Identity, streams: RevocableStreams) -> Scope:
    """Return the scope of a request or WebSocket with the identity of its client."""
    return {
        **scope,
        "state": {**scope.get("state", {}), _IDENTITY_KEY: identity, _REVOCABLE_KEY: streams},
    }


PEER_GONE_KEY = "peer_gone"
"""Key of a function that returns whether the client of a connection has disconnected."""


def is_peer_gone(connection: HTTPConnection) -> bool:
    """Return whether the client of a request disconnected, as far as the server notices it before
    the body is read: not while bytes that its socket has no space for are still to come."""
    peer_gone: Callable[[], bool] | None = connection.scope.get("state", {}).get(PEER_GONE_KEY)
    return peer_gone is not None and peer_gone()


def identity_of(connection: HTTPConnection) -> Identity:
    """Return the identity of the client. At a public path there is none: calling this there is a
    bug."""
    identity = connection.scope["state"][_IDENTITY_KEY]
    assert isinstance(identity, Identity)
    return identity


@contextmanager
def revocable(scope: Scope, sent_away: Callable[[], object]) -> Iterator[asyncio.Event]:
    """Call ``sent_away`` within this context if the credential of the request is revoked, to end a
    long response. The event is then set."""
    revoked = asyncio.Event()

    def end() -> None:
        revoked.set()
        sent_away()

    state = scope.get("state", {})
    streams: RevocableStreams | None = state.get(_REVOCABLE_KEY)
    with streams.lasting(state[_IDENTITY_KEY], end) if streams is not None else nullcontext():
        yield revoked


IDEMPOTENCY_KEY_HEADER = "idempotency-key"
_IDEMPOTENCY_KEY = re.compile(r'"?(?P<name>[\x21\x23-\x7e]{1,255})"?', re.ASCII)
"""A string by draft-ietf-httpapi-idempotency-key-header, which most send without quotes."""


def idempotency_key_of(request: Request) -> str | None:
    """Return the idempotency key of a request, or `None` if it has none.

    Raises:
        errors.FieldInvalid: the key is malformed, or there are several.
    """
    given = request.headers.getlist(IDEMPOTENCY_KEY_HEADER)
    if not given:
        return None
    matched = _IDEMPOTENCY_KEY.fullmatch(given[0].strip())
    if matched is None or len(given) > 1:
        raise FieldInvalid(
            "The header 'Idempotency-Key' is not a valid key.",
            hint="Send one, of 1 to 255 ASCII characters without spaces, such as a UUID.",
        )
    return matched["name"]


def request_digest(fields: Mapping[str, Any], upload: int | None) -> str:
    """Return a digest of the whole request: requests with equal digests count as the same. A file
    that is named by its path counts by that path. May wait for a disk."""
    found = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    if upload is not None:
        found.update(sha256_of_file(upload).encode())
    return found.hexdigest()


def wants_async(headers: Iterable[str]) -> bool:
    """Return whether the client asks for a job at once instead of its result later
    (`Prefer: respond-async`, RFC 7240). Of several preferences with this name the first counts."""
    for preference in itertools.chain.from_iterable(map(parse_http_list, headers)):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "respond-async":
            return value.strip() in ("", '""')
    return False


MAX_JSON_VALUES = 100_000
"""Maximum of values in a message: they are checked while all other requests wait."""


def parse_json_message(text: str | bytes) -> Any:
    """Parse a JSON message.

    Raises:
        ValueError: it is no JSON, NaN included; it has too many values, or one that cannot be sent
            on: half of a surrogate pair, or a number beyond the range of a double (``1e400``).
    """
    found = from_json(text, allow_inf_nan=False)
    inner: Collection[Any]
    waiting, count = [found], 1
    while waiting:
        match waiting.pop():
            case dict() as fields:
                inner = fields.values()
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


def parse_json_object(text: str | bytes) -> dict[str, Any] | None:
    """Return the fields of a JSON message; `None` if it is not a JSON object."""
    try:
        found = parse_json_message(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


MAX_HEADER_BYTES = 1 << 10
"""Maximum of one header, name and value: no client of this service and no browser needs more."""
MAX_ALL_HEADERS_BYTES = 128 << 10
"""Maximum of all headers together; the parser lets longer ones pass that come in one read."""
LONG_HEADERS = (
    *("authorization", "proxy-authorization", "x-api-key", "api-key", "api_key"),
    "sec-websocket-protocol",  # tokens of pages, which cannot set headers of WebSockets
    "cookie",  # browsers send the cookies of all programs on localhost
    "referer",
    *("tracestate", "baggage"),
    *("x-forwarded-client-cert", "x-forwarded-tls-client-cert", "client-cert", "x-client-cert"),
    *("ssl-client-", "x-ssl-client-", "x-arr-clientcert"),
    *("x-forwarded-access-token", "x-id-token", "x-access-token", "x-serverless-authorization"),
    *("x-auth-request-", "x-authentik-", "x-pomerium-"),
    *("x-amzn-", "x-ms-", "cf-access-", "x-goog-iap-", "x-envoy-"),
    *("x-original-ur", "x-forwarded-uri"),
)
"""Prefixes of headers that only `MAX_ALL_HEADERS_BYTES` limits: tokens, and those not parsed."""


def check_header_sizes(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request with a header, or a total of headers, beyond its limit.

    Raises:
        errors.HeaderTooLarge: the message names the header.
    """
    total = 0
    for name, value in headers:
        size = len(name) + len(value)
        total += size
        known = name[:64].decode("latin-1").lower()
        if size > MAX_HEADER_BYTES and not known.startswith(LONG_HEADERS):
            raise HeaderTooLarge(
                f"The header '{known}' has {size} bytes; the limit is {MAX_HEADER_BYTES}."
            )
    if total > MAX_ALL_HEADERS_BYTES:
        raise HeaderTooLarge(
            f"The headers have {total} bytes; the limit is {MAX_ALL_HEADERS_BYTES}."
        )


_ID = re.compile(r"\d{1,15}", re.ASCII)
LAST_EVENT_HINT = (
    "Send the last id that you received, or omit the header to start from the first event."
)


def last_event_id(request: Request) -> int:
    """Return the number of the last event that the client received (`Last-Event-ID`); 0 for none.

    Raises:
        errors.FieldInvalid: it is not an event number.
    """
    given = request.headers.get("last-event-id", "").strip()
    if given and not _ID.fullmatch(given):
        raise FieldInvalid("'Last-Event-ID' is not the id of an event.", hint=LAST_EVENT_HINT)
    return int(given or 0)


def accepts(headers: Headers, kind: str) -> bool:
    """Return whether a client accepts a media type by name (`Accept`); `*/*` names none."""
    kinds = ",".join(headers.getlist("accept")).lower().split(",")
    return any(one.partition(";")[0].strip() == kind for one in kinds)


def media_type(request: Request) -> str:
    """Return the Content-Type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
