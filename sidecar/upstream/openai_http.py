"""HTTP to OpenAI-compatible servers: client options, bodies, model lists, server-sent events.

The LLM client, the TTS client and the upstreams have this in common. It asks nobody by itself.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sidecar import errors

if TYPE_CHECKING:
    import httpx

MAX_RETRY_AFTER_S = 300.0
SMALL_BYTES = 1 << 20
"""Of an answer that is no stream and no transcript, so much is read."""
MAX_MODELS = 200
"""Of a server's list that are looked at."""
MAX_SERVER_MESSAGE_CHARS = 200
"""Characters of a server's own words that are passed on."""
DONE = b"[DONE]"


def authorization(key: str) -> dict[str, str]:
    """Return the header with the key; none without a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def client_options(
    connect_s: float,
    silence_s: float | None = None,
    *,
    url: str = "",
    key: str = "",
    verify: ssl.SSLContext | bool = True,
) -> dict[str, Any]:
    """Return the arguments of an httpx client. No proxy and no netrc of the environment's is used,
    and no redirect followed: what people say goes where the settings say."""
    import httpx

    return {
        "base_url": url,
        "verify": verify,
        "trust_env": False,
        "follow_redirects": False,
        "timeout": httpx.Timeout(silence_s, connect=connect_s),
        "headers": {"Accept-Encoding": "identity", "User-Agent": "vibevoice-asr"}
        | authorization(key),
    }


def trusted(ca: str | None) -> ssl.SSLContext:
    """Return the context that checks certificates, also those that the file ``ca`` signed.

    Raises:
        errors.ModelLoadFailed: the file has none.
    """
    import httpx

    try:
        context = httpx.create_ssl_context()
        if ca is not None:
            context.load_verify_locations(ca)
    except OSError as error:  # ssl's are such
        raise errors.ModelLoadFailed(
            f"The certificates for the upstreams cannot be used: {type(error).__name__}.",
            hint="Set VIBEVOICE_UPSTREAM_CA to a PEM file of certificates.",
        ) from None
    return context


async def read_small(response: httpx.Response) -> bytes:
    """Return the beginning of a body, `SMALL_BYTES` at most."""
    body = b""
    async for data in response.aiter_bytes():
        body += data
        if len(body) > SMALL_BYTES:
            break
    return body[:SMALL_BYTES]


def loads(body: bytes | bytearray) -> Any:
    """Return what a JSON body says, None where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def server_message(body: bytes, key: str = "message") -> str:
    """Return what an error's body says, on one line and short: OpenAI's form, FastAPI's, a
    problem."""
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
    """Return their names."""
    return [str(one["id"]) for one in listed_models(body) if one.get("id")]


class EventStream:
    """Parser of server-sent events, of any pieces. ``done`` once the server said that the stream is
    over; what comes after that is passed over.

    ``wrong`` makes the error for a line that belongs to no such stream; it is given None for one
    without an end.
    """

    def __init__(self, longest_line: int, wrong: Callable[[bytes | None], Exception]) -> None:
        self.done = False
        self.rest = b""
        """The beginning of a line whose end has not come yet."""
        self._longest = longest_line
        self._wrong = wrong

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of the events that ``data`` ends; to be read to the end."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > self._longest:
            raise self._wrong(None)
        for line in lines:
            name, _, value = line.strip().partition(b":")
            if self.done or name in (b"", b"event", b"id", b"retry"):
                continue
            if name != b"data":
                raise self._wrong(line)
            if value.strip() == DONE:
                self.done = True
            else:
                yield value


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, within reason; None without one (or with a date)."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S) if seconds == seconds else None
