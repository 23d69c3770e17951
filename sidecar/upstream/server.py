"""One upstream over the wire: httpx, its connections kept, everything with an end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.config.servers import host_of
from sidecar.interfaces.engine import AUTO, Upstream
from sidecar.transcripts.transcript import Segment
from sidecar.upstream import probing, trouble
from sidecar.upstream.dialect import FLAC, Answer, Call, Dialect, Hearing
from sidecar.upstream.sidecar_dialect import Sidecar
from sidecar.upstream.trouble import Step, Trouble

if TYPE_CHECKING:
    import httpx

LOOK_S = 3.0
"""So long a server may take to say how it is, and to be connected to."""
START_S = 60.0
"""So long a piece may take beside its length: a server may have to load its model first."""
SILENCE_S = 60.0
"""So long an answer that comes bit by bit may stop in the middle."""
MOST_BYTES = 64 << 20
"""Of an answer; an hour of speech with the times of its words has 3."""

Told = Callable[[Sequence[Segment]], None]
"""Hears of segments as they come, in seconds from the piece's begin."""


def trusted(options: Upstream) -> ssl.SSLContext:
    """Whose certificates count.

    Raises:
        OSError: the file that is named has none.
    """
    import httpx

    context = httpx.create_ssl_context()
    if options.ca is not None:
        context.load_verify_locations(options.ca)
    return context


def client_of(options: Upstream) -> httpx.AsyncClient:
    """The client for all upstreams: their certificates are checked, no proxy and no netrc of the
    environment's is used, no redirect followed."""
    import httpx

    return httpx.AsyncClient(
        verify=trusted(options),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=LOOK_S),
        headers={"Accept-Encoding": "identity", "User-Agent": "vibevoice-asr"},
    )


class Server:
    """An upstream, and what was learned of it. ``name`` is its host and port."""

    def __init__(self, client: httpx.AsyncClient, url: str, key: str, options: Upstream) -> None:
        self.name = host_of(url)
        self.dialect: Dialect | None = None
        self.longest_s = options.piece_s or float("inf")
        """The longest piece that it takes, as far as it has said."""
        self._client = client
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._options = options

    async def known(self) -> Dialect:
        """How it speaks; asked for once.

        Raises:
            Trouble: it cannot be reached, or does not say.
        """
        if self.dialect is None:
            self.dialect = await self._find()
        return self.dialect

    async def look(self) -> int:
        """How many recordings wait there; 0 where it does not say.

        Raises:
            Trouble: it does not answer, or is not well.
        """
        dialect = await self.known()
        status, body = await self._get(dialect.health)
        if status >= 500:
            raise Trouble(
                Step.AGAIN,
                errors.UpstreamUnreachable(f"The upstream is not well: {status}."),
                sent=False,
            )
        return dialect.waiting(body)

    async def ask(self, hearing: Hearing, sound: bytes, told: Told, within_s: float) -> Answer:
        """Send a piece, and read what comes.

        Raises:
            Trouble: there is no answer.
        """
        call = hearing.call(sound)
        headers = self._headers | {"Accept": call.accept}
        with _troubles():
            async with asyncio.timeout(within_s) as clock:
                until = clock.when() or 0.0
                async with self._client.stream(
                    "POST", self._url + call.path, headers=headers, **_content(call, sound)
                ) as response:
                    if response.status_code != 200:
                        body = await _read(response)
                        raise hearing.refused(response.status_code, response.headers, body)
                    count = 0
                    async for data in response.aiter_bytes():
                        count += len(data)
                        if count > MOST_BYTES:
                            raise trouble.garbled("has no end")
                        if found := hearing.feed(data):
                            told(found)
                        if call.streams:
                            now = asyncio.get_running_loop().time()
                            clock.reschedule(min(until, now + SILENCE_S))
        return hearing.finish()

    async def _find(self) -> Dialect:
        kind = self._options.dialect
        if kind in (AUTO, "sidecar"):
            _, body = await self._get(probing.HEALTH)
            if (found := probing.sidecar_of(body)) is not None:
                return found
            if kind == "sidecar":
                return Sidecar(probing.USUAL_RATE)
        status, body = await self._get(probing.MODELS)
        if status in (401, 403):
            raise trouble.of_status(status, {}, body)
        if kind == AUTO and status != 200 and not self._options.model:
            raise probing.unknown()
        return probing.dialect_of(kind, body, self._options.model)

    async def _get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a small question; a server that does not answer is unreachable."""
        try:
            with _troubles():
                async with (
                    asyncio.timeout(LOOK_S),
                    self._client.stream("GET", self._url + path, headers=self._headers) as response,
                ):
                    return response.status_code, await _read(response)
        except Trouble as found:
            if found.step is not Step.AGAIN:
                raise
            raise Trouble(Step.AGAIN, errors.UpstreamUnreachable(), sent=False) from None


def _content(call: Call, sound: bytes) -> dict[str, Any]:
    """The arguments for httpx."""
    if call.body is not None:
        return {"content": call.body}
    return {"data": dict(call.fields), "files": {call.file_field: ("audio.flac", sound, FLAC)}}


async def _read(response: httpx.Response) -> bytes:
    """A small body; what is beyond a megabyte is left."""
    body = b""
    async for data in response.aiter_bytes():
        body += data
        if len(body) > 1 << 20:
            break
    return body


@contextmanager
def _troubles() -> Iterator[None]:
    """What goes wrong on the wire, as `Trouble`."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if _untrusted(error):
            raise Trouble(Step.ELSEWHERE, trouble.untrusted(), sent=False) from None
        raise Trouble(Step.AGAIN, errors.UpstreamUnreachable(), sent=False) from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
        raise trouble.gone("went away in the middle") from None
    except TimeoutError:
        raise Trouble(Step.AGAIN, errors.UpstreamTimeout()) from None


def _untrusted(error: BaseException | None) -> bool:
    """Whether a certificate is why there is no connection."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
