"""HTTP to OpenAI-compatible servers: requests, bodies, errors, model lists, event streams.

The LLM client, the TTS client and the upstreams share it.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sidecar import errors

if TYPE_CHECKING:
    import httpx

MAX_RETRY_AFTER_S = 300.0
SMALL_BYTES = 1 << 20
"""Bytes that are read of an answer that is neither a stream nor a transcript."""
MAX_MODELS = 200
"""Models of a server's list that are read."""
MAX_SERVER_MESSAGE_CHARS = 200
"""Characters of a server's message that are passed on."""
DONE = b"[DONE]"
EVENT_STREAM = "text/event-stream"
TOO_LARGE_MESSAGE = re.compile(
    r"context length|encoder cache|too (long|large|big)|exceeds? the (max|limit)|max_model_len"
    r"|maximum (allowed )?(file ?size|duration|content size|audio)|duration.{0,40}exceed"
    r"|session (exceeded|outgrew)",
    re.IGNORECASE,
)
"""Servers' messages for a recording that is too long or too large, whatever the status."""


def authorization(key: str) -> dict[str, str]:
    """Return the Authorization header; empty if there is no key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def client_options(
    connect_s: float,
    silence_s: float | None = None,
    *,
    url: str = "",
    key: str = "",
    verify: ssl.SSLContext | bool = True,
) -> dict[str, Any]:
    """Return the arguments of an httpx client. It ignores the environment's proxies and netrc and
    follows no redirects: speech goes only where the settings point. No request waits for the
    connection of another."""
    import httpx

    return {
        "base_url": url,
        "verify": verify,
        "trust_env": False,
        "follow_redirects": False,
        "timeout": httpx.Timeout(silence_s, connect=connect_s),
        "limits": httpx.Limits(),
        "headers": {"Accept-Encoding": "identity", "User-Agent": "vibevoice-asr"}
        | authorization(key),
    }


def trusted(ca: str | None) -> ssl.SSLContext:
    """Return a TLS context that also trusts the certificates in the file ``ca``.

    Raises:
        errors.ModelLoadFailed: the file contains no certificates.
    """
    import httpx

    try:
        context = httpx.create_ssl_context()
        if ca is not None:
            context.load_verify_locations(ca)
    except OSError as error:  # ssl's errors are OSErrors
        raise errors.ModelLoadFailed(
            f"The certificates for the upstreams cannot be used: {type(error).__name__}.",
            hint="Set VIBEVOICE_UPSTREAM_CA to a PEM file of certificates.",
        ) from None
    return context


class RequestRefused(Exception):
    """Status other than 200; ``body``: its first bytes."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        super().__init__(f"status {status}")


@asynccontextmanager
async def accepted(
    client: httpx.AsyncClient, method: str, url: str, **content: Any
) -> AsyncIterator[httpx.Response]:
    """Send a request and yield its response, whose body is not read yet.

    Raises:
        RequestRefused: the status is not 200.
        httpx.HTTPError: there is no response.
    """
    async with client.stream(method, url, **content) as response:
        if response.status_code != 200:
            body = await read_small(response)
            raise RequestRefused(response.status_code, response.headers, body)
        yield response


async def get(client: httpx.AsyncClient, url: str, **content: Any) -> bytes:
    """Return the body of a small resource; raise as `accepted`."""
    async with accepted(client, "GET", url, **content) as response:
        return await read_small(response)


@contextmanager
def http_errors_as(
    unreachable: Callable[[Exception], Exception], broken: Callable[[Exception], Exception]
) -> Iterator[None]:
    """Raise other errors for those of httpx: of a failed connection, and of all others."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise unreachable(error) from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise broken(error) from None


async def read_small(response: httpx.Response) -> bytes:
    """Return the first bytes of a body, at most `SMALL_BYTES`."""
    body = b""
    async for data in response.aiter_bytes():
        body += data
        if len(body) > SMALL_BYTES:
            break
    return body[:SMALL_BYTES]


def loads(body: str | bytes | bytearray) -> Any:
    """Parse a JSON body; return None if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def server_message(body: bytes, key: str = "message") -> str:
    """Return the message in an error's body, short and on one line. The body may be OpenAI's error,
    FastAPI's, or problem details."""
    value = loads(body)
    if isinstance(value, dict):
        value = value.get("error", value)
    if isinstance(value, dict):
        value = next((value[name] for name in (key, "detail", "message") if name in value), "")
    if isinstance(value, (list, dict)):
        value = json.dumps(value)
    said = "".join(one if one.isprintable() else " " for one in str(value or ""))
    return " ".join(said.split())[:MAX_SERVER_MESSAGE_CHARS]


def listed_models(body: object) -> list[dict[str, Any]]:
    """Return the models in the body of `/v1/models`, in their order."""
    match body:
        case {"data": [*listed]}:
            return [one for one in listed[:MAX_MODELS] if isinstance(one, dict)]
    return []


def model_names(body: object) -> list[str]:
    """Return the ids of the models in the body of `/v1/models`."""
    return [str(one["id"]) for one in listed_models(body) if one.get("id")]


async def event_data(
    body: AsyncIterator[bytes], longest: int, wrong: Callable[[bytes | None], Exception]
) -> AsyncGenerator[bytes, None]:
    """Yield the data of the server-sent events in a body, `DONE` included.

    ``wrong`` creates the error for a body without events, of its beginning; it gets None if an
    event is longer than ``longest`` bytes.
    """
    import httpx
    import httpx_sse

    first, held, begun = b"", 0, False

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal first, held
        async for piece in body:
            first, held = first or piece, held + len(piece)
            if held > longest:
                raise wrong(None)
            yield piece
        yield b"\n\n"  # some servers leave it out behind the last event

    stream = httpx.Response(200, headers={"content-type": EVENT_STREAM}, content=pieces())
    async for event in httpx_sse.EventSource(stream).aiter_sse():
        held = 0
        if event.data:
            begun = True
            yield event.data.encode()
    if first and not begun:
        raise wrong(first[:SMALL_BYTES])


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, clipped; None if it is missing or a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S) if seconds == seconds else None
