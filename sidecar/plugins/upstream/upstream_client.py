"""HTTP client of one upstream, and detection of its kind."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sidecar import errors, openai_http
from sidecar.audio import SAMPLE_RATE, VIBEVOICE_SAMPLE_RATE
from sidecar.audio.spoken_second import SPEECH_S, spoken_second
from sidecar.concurrency import retrieve_exception
from sidecar.config.secret_settings import host_of
from sidecar.interfaces.engine_interface import AUTO, TranscribeOptions, UpstreamOptions
from sidecar.plugins.upstream import upstream_dialect
from sidecar.plugins.upstream.audio_chunks import AudioChunk
from sidecar.plugins.upstream.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from sidecar.plugins.upstream.load_balancer import FailoverLimits, ServerLoad
from sidecar.plugins.upstream.openai_dialect import openai_dialect
from sidecar.plugins.upstream.probe_memory import read_forms, remember_form
from sidecar.plugins.upstream.sidecar_dialect import sidecar_dialect, waiting_jobs
from sidecar.plugins.upstream.streaming_dialect import (
    CONFIG_PATH,
    STREAM_PATH,
    STREAMING,
    streaming_dialect,
)
from sidecar.plugins.upstream.upstream_dialect import (
    AskAgain,
    ChunkRequest,
    ChunkTooLarge,
    UpstreamAnswer,
    UpstreamDialect,
)
from sidecar.plugins.upstream.vllm_dialect import vllm_dialect
from sidecar.transcripts.transcript import Segment

if TYPE_CHECKING:
    import httpx
    from websockets.asyncio.client import ClientConnection


HEALTH_PATH, MODELS_PATH = "/health", "/v1/models"
UPSTREAM_ENGINE = "upstream"
"""Name of this engine: a server that runs it forwards recordings to others."""
VIBEVOICE = "vibevoice"
_PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses of a server in trouble or with too much to do, of a proxy whose server is away, and of a
server that starts: they say nothing of what it is."""

MAX_ANSWER_BYTES = 64 << 20
"""Maximum bytes of an answer; an hour of speech with word times takes 3 MB."""
MAX_EVENT_BYTES = 4 << 20
"""Maximum bytes of an event of a streamed answer; some servers resend the whole text in each."""

SegmentsCallback = Callable[[Sequence[Segment], Sequence[Segment]], None]
"""Callback for segments as they arrive, in seconds from the chunk's start, after the list of those
that the answer had before."""


def _speech_as_flac() -> bytes:
    """Return a second of speech as FLAC."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(spoken_second()), dtype="int16")
    return AudioChunk(0.0, samples, rate, last=True).flac()


def sidecar_dialect_of(health: bytes) -> UpstreamDialect | None:
    """Return the dialect of another vibevoice-asr if the body is its /health, else None.

    Raises:
        UpstreamRefused: it forwards recordings itself: the transcript could not name its engine,
            and the upstream might be this service.
    """
    body = openai_http.loads(health)
    if not isinstance(body, dict) or not {"contract", "engine", "engine_state"} <= body.keys():
        return None
    engine = str(body["engine"])
    if engine == UPSTREAM_ENGINE:
        raise UpstreamRefused("The upstream has the engine 'upstream' itself.")
    if engine == VIBEVOICE:
        return sidecar_dialect(VIBEVOICE_SAMPLE_RATE)
    return sidecar_dialect(SAMPLE_RATE, by_voices=True)


def dialect_of(kind: str, models: bytes, wanted: str | None) -> UpstreamDialect:
    """Return the dialect of a server that is not a vibevoice-asr.

    ``kind``: 'openai', 'vllm', or 'auto' to derive it from the list of models.

    Raises:
        UpstreamRefused: no model is set and none is listed.
    """
    body = openai_http.loads(models)
    model = wanted or next(iter(openai_http.model_names(body)), None)
    if model is None:
        raise UpstreamRefused(
            "The upstream lists no models.",
            hint="Name one with VIBEVOICE_UPSTREAM_MODEL, and the server's kind with "
            "VIBEVOICE_UPSTREAM_DIALECT.",
        )
    if kind == "auto":
        listed = openai_http.listed_models(body)
        shown = wanted or " ".join(str(one.get(key)) for one in listed for key in ("id", "root"))
        kind = "vllm" if VIBEVOICE in shown.lower() else "openai"
    return vllm_dialect(model) if kind == "vllm" else openai_dialect(model)


class UpstreamClient:
    """Client of one upstream. ``name`` is its host and port, and its path if others have the same.
    Requests raise `UpstreamError`."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        key: str,
        options: UpstreamOptions,
        limits: FailoverLimits,
    ) -> None:
        self.name = host_of(url)
        if [*map(host_of, options.urls)].count(self.name) > 1:
            self.name += urlsplit(url).path
        self.dialect: UpstreamDialect | None = None
        self.longest_s = self._most_s = options.piece_s or float("inf")
        """Maximum length of a chunk: of one that was answered after a longer one was refused."""
        self.load = ServerLoad()
        self._client, self._url = client, url
        self._headers = openai_http.authorization(key)
        self._options, self._limits = options, limits
        self._getting_ready: asyncio.Task[UpstreamDialect] | None = None

    async def known_dialect(self) -> UpstreamDialect:
        """Return its dialect; determined once, and anew after it refused one."""
        if self.dialect is None:
            self.dialect = await self._detect_dialect()
        return self.dialect

    async def ready(self) -> UpstreamDialect:
        """Return its dialect, with the form of its answers. All who wait for a probe share its
        result or its failure, and it goes on without them."""
        if self._getting_ready is None or self._getting_ready.done():
            self._getting_ready = asyncio.create_task(self._get_ready())
            self._getting_ready.add_done_callback(
                retrieve_exception
            )  # all who waited may have gone
        return await asyncio.shield(self._getting_ready)

    async def _get_ready(self) -> UpstreamDialect:
        dialect = await self.known_dialect()
        if not dialect.form:
            with self._refusals_of(dialect):
                form = await self._form(dialect)
            self.dialect = dialect = openai_dialect(dialect.model, form)
        return dialect

    @contextmanager
    def _refusals_of(self, dialect: UpstreamDialect) -> Iterator[None]:
        """Forget a dialect that the server refuses: it may have another model now, or be another
        server."""
        try:
            yield
        except UpstreamRefused as error:
            if error.fault is errors.Fault.UPSTREAM and self.dialect is dialect:
                self.dialect, self.longest_s = None, self._most_s
            raise

    async def _form(self, dialect: UpstreamDialect) -> str:
        """Return the form in which it answers speech. One with a key may be paid for each request,
        and is asked once a day."""
        path, server = Path(self._options.answers), f"{self._url} {dialect.model}"
        if not (self._headers and self._options.answers):
            return (await self.probe(dialect)).form
        form, _ = (await asyncio.to_thread(read_forms, path)).get(server, ("", 0.0))
        if not form:
            form = (await self.probe(dialect)).form
            await asyncio.to_thread(remember_form, path, server, form)
        return form

    async def probe(self, dialect: UpstreamDialect) -> UpstreamAnswer:
        """Return the answer to a second of speech."""
        speech = await asyncio.to_thread(_speech_as_flac)
        request = dialect.chunk_request(TranscribeOptions(), SPEECH_S, speech)
        try:
            while True:
                with suppress(AskAgain):
                    return await self._answer(request, lambda *_: None)
        except (errors.SidecarError, ChunkTooLarge) as error:
            if isinstance(error, UpstreamError) and error.fault is errors.Fault.UPSTREAM:
                raise
            raise UpstreamRefused(str(error)) from None  # it is of no recording

    def timeout_s(self, duration_s: float) -> float:
        """Return the seconds that a request of so much audio may take."""
        return self._limits.extra_timeout_s + self._options.timeout * duration_s

    async def check_health(self) -> None:
        """Check its health, and note how many recordings wait there."""
        dialect = await self.known_dialect()
        status, body = await self._get(dialect.health)
        if status >= 500:
            raise UpstreamUnreachable(f"The upstream is not well: {status}.")
        self.load.waiting = max(0, waiting_jobs(body) - self.load.running)

    async def open_stream(self, certificates: ssl.SSLContext) -> ClientConnection:
        """Open a WebSocket for live audio.

        Raises:
            OSError, TimeoutError, websockets.exceptions.InvalidHandshake: that failed.
        """
        from websockets.asyncio.client import connect

        secure = self._url.startswith("https")
        return await connect(
            f"ws{self._url.removeprefix('http')}{STREAM_PATH}",
            ssl=certificates if secure else None,
            additional_headers=self._headers,
            proxy=None,
            compression=None,
            open_timeout=self._limits.probe_timeout_s,
            max_size=MAX_EVENT_BYTES,
        )

    async def transcribe(
        self, request: ChunkRequest, on_segments: SegmentsCallback
    ) -> UpstreamAnswer:
        """Send a chunk and return the answer; report segments to ``on_segments`` as they arrive.

        Raises:
            errors.SidecarError: it refuses this chunk, and takes a second of speech.
            ChunkTooLarge: it might take its halves, and takes a second of speech.
        """
        with self._refusals_of(request.dialect):
            try:
                while True:
                    with suppress(AskAgain):
                        return await self._answer(request, on_segments)
            except (errors.SidecarError, ChunkTooLarge) as error:
                if isinstance(error, ChunkTooLarge) or error.fault is errors.Fault.RECORDING:
                    await self.probe(request.dialect)
                raise

    async def _answer(
        self, chunk_request: ChunkRequest, on_segments: SegmentsCallback
    ) -> UpstreamAnswer:
        request, timeout_s = chunk_request.next_request(), self.timeout_s(chunk_request.duration_s)
        headers = self._headers | {"Accept": request.accept}
        if "content" in request.content:
            headers["Content-Type"] = "application/json"
        sent = {"headers": headers, **request.content}
        try:
            with _http_errors():
                async with (
                    asyncio.timeout(timeout_s) as deadline,
                    openai_http.accepted(
                        self._client, "POST", self._url + request.path, **sent
                    ) as response,
                ):
                    silence_s, until = self._limits.stream_silence_timeout_s, deadline.when() or 0.0

                    def hear() -> None:
                        now = asyncio.get_running_loop().time()
                        deadline.reschedule(min(until, now + silence_s))

                    if request.kept_alive:
                        hear()
                    blocks = _limited_body(response, hear)
                    if request.accept == openai_http.EVENT_STREAM:
                        blocks = openai_http.event_data(blocks, MAX_EVENT_BYTES, _wrong_event)
                    async for data in blocks:
                        if segments := chunk_request.feed(data):
                            on_segments(chunk_request.streamed, segments)
                            chunk_request.streamed += segments
        except openai_http.RequestRefused as refusal:
            raise chunk_request.refused(refusal) from None
        return chunk_request.finish()

    async def _detect_dialect(self) -> UpstreamDialect:
        kind = self._options.dialect
        if kind in (AUTO, "sidecar"):
            _, body = await self._get(HEALTH_PATH)
            if (dialect := sidecar_dialect_of(body)) is not None:
                return dialect
            if kind == "sidecar":
                return sidecar_dialect(SAMPLE_RATE)
        dialect = None
        if kind != STREAMING:
            dialect = dialect_of(kind, await self._get_allowed(MODELS_PATH), self._options.model)
            if (kind, dialect.name) != (AUTO, "vllm"):
                return dialect
        found = streaming_dialect(await self._get_allowed(CONFIG_PATH)) or dialect
        if found is None:
            raise UpstreamRefused("The upstream is no streaming server of VibeVoice-ASR.")
        return found

    async def _get_allowed(self, path: str) -> bytes:
        """Return the body of a small resource, whatever its status, unless the key is rejected."""
        status, body = await self._get(path)
        if status in (401, 403):
            raise upstream_dialect.error_of_refusal(openai_http.RequestRefused(status, {}, body))
        return body

    async def _get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a small request; a server that does not answer is
        unreachable."""
        try:
            with _http_errors():
                async with asyncio.timeout(self._limits.probe_timeout_s):
                    return 200, await openai_http.get(
                        self._client, self._url + path, headers=self._headers
                    )
        except openai_http.RequestRefused as refused:
            if refused.status in _PASSING:
                raise UpstreamUnreachable(f"The upstream answered {refused.status}.") from None
            return refused.status, refused.body
        except (UpstreamFailed, UpstreamTimeout):
            raise UpstreamUnreachable from None


async def _limited_body(
    response: httpx.Response, hear: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """Yield the body in blocks; call ``hear`` at each."""
    if "html" in response.headers.get("content-type", ""):
        raise UpstreamRefused(
            "The upstream answered with a web page.",
            hint="It may be one to sign in at: check the address and the key.",
        )
    byte_count = 0
    async for block in response.aiter_bytes():
        byte_count += len(block)
        if byte_count > MAX_ANSWER_BYTES:
            raise upstream_dialect.garbled("has no end")
        yield block
        hear()


def _wrong_event(first: bytes | None) -> Exception:
    return upstream_dialect.garbled(
        "has an event without end" if first is None else "is no stream of events"
    )


@contextmanager
def _http_errors() -> Iterator[None]:
    """Turn errors of the connection into those of an upstream."""
    try:
        with openai_http.http_errors_as(
            _unreachable, lambda _: UpstreamFailed("The upstream went away in the middle.")
        ):
            yield
    except TimeoutError:
        raise UpstreamTimeout from None


def _unreachable(error: BaseException | None) -> Exception:
    """Return the error of a connection that failed, perhaps because of a certificate."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    if error is None:
        return UpstreamUnreachable()
    return UpstreamRefused(
        "The upstream's certificate is not one that is trusted.",
        hint="Set VIBEVOICE_UPSTREAM_CA to the file with the certificate of who signed it.",
    )
