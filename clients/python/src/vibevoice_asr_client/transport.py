"""What the client says to httpx, and the two ways of waiting for it: on an event loop, or blocking.

`AsyncClient` is written once. Over `Blocking` none of its coroutines ever waits for a loop, so that
`Client` runs each to its end in one step.
"""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, AsyncIterator, Callable, Dict, Mapping, Optional

import httpx
from httpx_sse import EventSource, ServerSentEvent

from vibevoice_asr_client import calls
from vibevoice_asr_client.calls import EVENT_STREAM, Answer, Call
from vibevoice_asr_client.errors import (
    AnswerNotUnderstood,
    CertificateRefused,
    ConnectionLost,
    ServiceUnreachable,
)
from vibevoice_asr_client.flows import Lost, Surroundings
from vibevoice_asr_client.retry import Retry
from vibevoice_asr_client.tls import HINT, Trust, forget_unusable_key_log, refusal, unreachable
from vibevoice_asr_client.uploads import CONTENT_TYPE, Upload

CONNECT_S = 10.0
MOST_PORT = 65535
SILENCE_S = 60.0
"""Longest silence of the service, which takes seconds to look at a recording that others await,
and says on a stream every few that it is there."""

FAREWELL_S = 10.0
"""So long a service may take to end a job that nobody waits for any more."""
LONGEST_EVENT = 64 << 20
"""Bytes: ten times the transcript of a day. Nobody needs more."""


def surroundings(retry: Retry) -> Surroundings:
    """The world as it is."""
    return Surroundings(retry, random.random, lambda: datetime.now(timezone.utc))


def options(url: str, token: Optional[str], silence_s: float, trust: Trust) -> Dict[str, Any]:
    """The arguments of httpx's clients. May ask the service for its certificate.

    A proxy of the environment is for what is far away; the service is near.

    Raises:
        ServiceUnreachable: ``url`` is no address.
        ClientError: what `Trust.context` raises.
    """
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ServiceUnreachable(f"'{url}' is no address: {error}.") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise ServiceUnreachable(f"'{url}' is no address: it begins http:// or https://.")
    if (base.port or 0) > MOST_PORT:
        raise ServiceUnreachable(f"'{url}' is no address: there is no such port.")
    if warning := forget_unusable_key_log():
        warnings.warn(warning, RuntimeWarning, stacklevel=2)
    verify = trust.context(url)
    return {
        "base_url": base,
        "headers": calls.authorization(token),
        "timeout": httpx.Timeout(silence_s, connect=min(CONNECT_S, silence_s)),
        "trust_env": False,
        "verify": True if verify is None else verify,
    }


def request(call: Call, upload: Optional[Upload] = None) -> Dict[str, Any]:
    """The arguments of one request."""
    said: Dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "headers": dict(call.headers),
        "params": dict(call.params) or None,
    }
    if upload is not None:
        upload.rewind()
        said["data"] = dict(call.fields)
        said["files"] = {"audio": (upload.name, upload, CONTENT_TYPE)}
    elif call.body is not None:
        said["json"] = dict(call.body)
    return said


def whole(call: Call, response: httpx.Response) -> Answer:
    """An answer that was read to its end."""
    if call.text or not response.is_success:
        return answer(response, response.text)
    return replace(answer(response), content=response.content)


def answer(response: httpx.Response, text: str = "") -> Answer:
    """An answer of httpx's in our words."""
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, text)


def lost(error: httpx.TransportError, url: str, answered: bool) -> Lost:
    """What it means that there was no answer; ``answered``: one came from there before."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        why = refusal(error)
        if why is not None:
            said = f"The certificate at {url} is not trusted: {why}."
            return Lost(CertificateRefused(said, hint=HINT), sent=False)
        return Lost(unreachable(url, error), sent=False)
    if isinstance(error, httpx.UnsupportedProtocol):
        return Lost(ServiceUnreachable(f"'{url}' is no address: {error}."), sent=False)
    sent = not isinstance(error, httpx.PoolTimeout)
    hint = "If it serves TLS, its address begins https://."
    if answered or not url.startswith("http:"):
        hint = ""
    said = f"The service at {url} broke off ({type(error).__name__})."
    return Lost(ConnectionLost(said, hint=hint), sent=sent)


async def events_in(
    body: AsyncIterator[bytes], longest: int = LONGEST_EVENT
) -> AsyncIterator[ServerSentEvent]:
    """The events of a stream, each of at most ``longest`` bytes.

    Raises:
        AnswerNotUnderstood: one has no end.
    """
    held = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal held
        async for piece in body:
            held += len(piece)
            if held > longest:
                raise AnswerNotUnderstood("An event of the service has no end.")
            yield piece

    response = httpx.Response(200, headers={"content-type": EVENT_STREAM}, content=pieces())
    async for told in EventSource(response).aiter_sse():
        held = 0
        yield told


class Looping:
    """Requests on an event loop; ``options``: the arguments of httpx's client, once it is used."""

    def __init__(self, options: Callable[[], Dict[str, Any]]) -> None:
        self.options = options
        self._opened: Optional[httpx.AsyncClient] = None

    async def _http(self) -> httpx.AsyncClient:
        if self._opened is None:
            # It may ask for a certificate. Who comes second meanwhile does so too, and is first.
            given = await asyncio.get_running_loop().run_in_executor(None, self.options)
            self._opened = self._opened or httpx.AsyncClient(**given)
        return self._opened

    async def request(self, **said: Any) -> httpx.Response:
        """An answer, read to its end."""
        return await (await self._http()).request(**said)

    @asynccontextmanager
    async def stream(self, **said: Any) -> AsyncIterator[httpx.Response]:
        """An answer whose body is read by `pieces`."""
        async with (await self._http()).stream(**said) as response:
            yield response

    def pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The body as it comes."""
        return response.aiter_bytes()

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Let go of all connections."""
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None


class Blocking(Looping):
    """The same for a caller that waits: what is awaited here is there at once."""

    def __init__(self, options: Callable[[], Dict[str, Any]]) -> None:
        super().__init__(options)
        self._blocking: Optional[httpx.Client] = None

    @property
    def _client(self) -> httpx.Client:
        self._blocking = self._blocking or httpx.Client(**self.options())
        return self._blocking

    async def request(self, **said: Any) -> httpx.Response:
        """As `Looping.request`."""
        return self._client.request(**said)

    @asynccontextmanager
    async def stream(self, **said: Any) -> AsyncIterator[httpx.Response]:
        """As `Looping.stream`."""
        with self._client.stream(**said) as response:
            yield response

    async def pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """As `Looping.pieces`."""
        for piece in response.iter_bytes():
            yield piece

    async def sleep(self, seconds: float) -> None:
        """As `Looping.sleep`."""
        time.sleep(seconds)

    async def close(self) -> None:
        """As `Looping.close`."""
        if self._blocking is not None:
            self._blocking.close()
            self._blocking = None
